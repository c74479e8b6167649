"""Write the golden files of networks whose weights users bring, with PyTorch.

In a separate environment, as none of these packages is a dependency of the project::

    python -m venv golden && golden/bin/pip install torch torchvision timm transformers safetensors
    golden/bin/python tests/golden/make_torch_golden.py

It writes into its folder:

- ``torch_networks.npz``: for each case the names and shapes of the reference's tensors, as in a
  file that it saves, and its outputs for the images of ``patterns.py``, with weights that
  ``patterns.make_state`` makes from the names. Small networks of every layout, at a size for which
  position embeddings are resampled, and three whole ones, of which two corners of the maps.
- ``small.safetensors`` and ``small_safetensors.npz``: small tensors of all types, written by the
  library ``safetensors``, and the same as arrays.
"""

import tempfile
from pathlib import Path

import numpy as np
import safetensors.torch
import timm
import torch
import torchvision
import transformers
from patterns import make_images, make_state

HERE = Path(__file__).resolve().parent
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
TIMM = {"embed_dim": 32, "depth": 2, "num_heads": 2, "dynamic_img_size": True, "num_classes": 0}


def hugging_face(kind, **settings):
    """Return a small network of transformers, with its head's norm but without a pooler."""
    config = getattr(transformers, f"{kind}Config")(**SMALL, **settings)
    more = {"add_pooling_layer": False} if kind == "ViT" else {}
    return getattr(transformers, f"{kind}Model")(config, **more)


def saved_shapes(model):
    """Return names and shapes of the tensors in the file that a library writes."""
    if not hasattr(model, "save_pretrained"):
        return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tensors = safetensors.torch.load_file(Path(folder, "model.safetensors"))
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def fill(model, shapes):
    """Give a network the weights that belong to the names of its file."""
    texts = ["x".join(map(str, shape)) for shape in shapes.values()]
    state = {
        name: torch.from_numpy(array) for name, array in make_state(list(shapes), texts).items()
    }
    if hasattr(model, "save_pretrained"):
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            safetensors.torch.save_file(state, Path(folder, "model.safetensors"), {"format": "pt"})
            more = {"add_pooling_layer": False} if "ViT" in type(model).__name__ else {}
            return type(model).from_pretrained(folder, **more).eval()
    missing = model.load_state_dict(state, strict=False)
    assert all(name.endswith("num_batches_tracked") for name in missing.missing_keys), missing
    assert not missing.unexpected_keys
    return model.eval()


def token_outputs(tokens, prefix, grid):
    """Return the patch tokens as maps, each beside the class token."""
    patches = tokens[:, prefix:].reshape(len(tokens), *grid, -1)
    everywhere = tokens[:, :1, None].expand(-1, *grid, -1)
    return torch.cat([patches, everywhere], -1)


def run_hugging_face(patch, prefix):
    """Return a function of network and images to maps."""

    def run(model, x):
        resized = {"interpolate_pos_encoding": True} if "ViT" in type(model).__name__ else {}
        tokens = model(x, **resized).last_hidden_state
        return token_outputs(tokens, prefix, (x.shape[2] // patch, x.shape[3] // patch))

    return run


def run_timm_vit(model, x):
    """Return the maps of a vision transformer of timm."""
    patch = model.patch_embed.patch_size[0]
    grid = (x.shape[2] // patch, x.shape[3] // patch)
    return token_outputs(model.forward_features(x), model.num_prefix_tokens, grid)


def run_resnet(model, x):
    """Return the last maps of torchvision's ResNet."""
    x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
    return model.layer4(model.layer3(model.layer2(model.layer1(x)))).permute(0, 2, 3, 1)


def run_timm_convnext(model, x):
    """Return the last maps of timm's ConvNeXt, each pixel normalised by the head's norm."""
    x = model.forward_features(x).permute(0, 2, 3, 1)
    norm = model.head.norm
    return torch.nn.functional.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps)


def run_torchvision_convnext(model, x):
    """Return the last maps of torchvision's ConvNeXt, normalised likewise."""
    x, norm = model.features(x).permute(0, 2, 3, 1), model.classifier[0]
    return torch.nn.functional.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps)


def torchvision_convnext():
    """Return a small ConvNeXt of torchvision."""
    setting = torchvision.models.convnext.CNBlockConfig
    widths = (8, 16, 32, 64, None)
    blocks = [setting(widths[i], widths[i + 1], depth) for i, depth in enumerate((1, 2, 1, 1))]
    return torchvision.models.ConvNeXt(blocks)


def cases():
    """Yield name, network, function, scaling and (height, width) of each case."""
    small = {"image_size": 64, "patch_size": 16, "intermediate_size": 128, "layer_norm_eps": 1e-6}
    dino = {"image_size": 70, "patch_size": 14}
    vit = timm.models.vision_transformer.VisionTransformer
    yield "hf_vit", hugging_face("ViT", **small), run_hugging_face(16, 1), HALF, (48, 80)
    yield "hf_dinov2", hugging_face("Dinov2", **dino), run_hugging_face(14, 1), IMAGENET, (42, 84)
    registers = hugging_face("Dinov2WithRegisters", **dino)
    yield "hf_registers", registers, run_hugging_face(14, 5), IMAGENET, (42, 84)
    yield "timm_vit", vit(64, 16, **TIMM), run_timm_vit, HALF, (48, 80)
    dinov2 = vit(70, 14, init_values=0.1, **TIMM)
    yield "timm_dinov2", dinov2, run_timm_vit, IMAGENET, (70, 70)
    registers = vit(70, 14, init_values=0.1, reg_tokens=4, no_embed_class=True, **TIMM)
    yield "timm_registers", registers, run_timm_vit, IMAGENET, (42, 84)
    convnext = timm.models.convnext.ConvNeXt(depths=(1, 2, 1, 1), dims=(8, 16, 32, 64))
    yield "timm_convnext", convnext, run_timm_convnext, IMAGENET, (64, 96)
    other = torchvision_convnext()
    yield "torchvision_convnext", other, run_torchvision_convnext, IMAGENET, (64, 96)
    # Whole networks: the names of kindsight.
    whole = transformers.Dinov2Config(
        hidden_size=384, num_attention_heads=6, image_size=518, patch_size=14
    )
    size = (56, 84)
    yield "dinov2-small", transformers.Dinov2Model(whole), run_hugging_face(14, 1), IMAGENET, size
    resnet = torchvision.models.resnet50()
    names = set(resnet.state_dict())
    assert names == set(timm.create_model("resnet50").state_dict())
    yield "resnet50", resnet, run_resnet, IMAGENET, (64, 96)
    convnext = timm.create_model("convnext_tiny")
    yield "convnext-tiny", convnext, run_timm_convnext, IMAGENET, (64, 96)


def outputs(model, run, scaling, size):
    """Return the maps of two images: float32 (2, rows, columns, channels)."""
    mean, deviation = (torch.tensor(values).reshape(1, 3, 1, 1) for values in scaling)
    pixels = torch.from_numpy(make_images(2, size).transpose(0, 3, 1, 2).astype(np.float32))
    with torch.no_grad():
        return run(model, (pixels / 255 - mean) / deviation).numpy()


def small_tensors():
    """Return tensors of several types, a scalar and an empty one."""
    return {
        "table": torch.arange(24, dtype=torch.float32).reshape(2, 3, 4) / 8,
        "bfloat": torch.tensor([1.5, -2.25, 3e38, float("inf")], dtype=torch.bfloat16),
        "half": torch.tensor([1.5, -2.25], dtype=torch.float16),
        "double": torch.tensor([[1e-300], [3.0]], dtype=torch.float64),
        "long": torch.tensor(-5, dtype=torch.int64),
        "int": torch.tensor([2**31 - 1], dtype=torch.int32),
        "short": torch.tensor([-300], dtype=torch.int16),
        "char": torch.tensor([-7], dtype=torch.int8),
        "byte": torch.tensor([250], dtype=torch.uint8),
        "bool": torch.tensor([True, False, True]),
        "empty": torch.zeros((0, 3)),
    }


def main():
    """Write every file."""
    arrays = {}
    for name, model, run, scaling, size in cases():
        shapes = saved_shapes(model)
        found = outputs(fill(model, shapes), run, scaling, size)
        print(name, found.shape, float(np.abs(found).max()))
        arrays[f"{name}/names"] = np.array(list(shapes))
        arrays[f"{name}/shapes"] = np.array(["x".join(map(str, s)) for s in shapes.values()])
        arrays[f"{name}/size"] = np.array(size)
        # Of whole networks only two corners, as the file is to be small.
        whole = found.shape[-1] > 64
        arrays[f"{name}/corners" if whole else f"{name}/maps"] = (
            found[:, [0, -1], [0, -1]] if whole else found
        )
    np.savez_compressed(HERE / "torch_networks.npz", **arrays)
    small = small_tensors()
    safetensors.torch.save_file(small, HERE / "small.safetensors", {"made": "by safetensors"})
    np.savez_compressed(
        HERE / "small_safetensors.npz",
        **{
            key: (value.float() if value.dtype == torch.bfloat16 else value).numpy()
            for key, value in small.items()
        },
    )


if __name__ == "__main__":
    main()
