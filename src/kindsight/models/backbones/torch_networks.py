"""Networks whose weights come from files of timm, torchvision, Hugging Face or Meta."""

from __future__ import annotations

from typing import Any

from kindsight.models.backbones.applications import build_application
from kindsight.models.backbones.backbone import Backbone
from kindsight.models.backbones.convnext_weights import load_convnext_state
from kindsight.models.backbones.resnet import build_torch_resnet, load_resnet_state
from kindsight.models.backbones.torch_state import State
from kindsight.models.backbones.vit import VITS, build_vit
from kindsight.models.backbones.vit_weights import load_vit_state

__all__ = ["TORCH_NETWORKS", "build_torch_network"]

_RESNET, _CONVNEXT = "resnet50", "convnext-tiny"
TORCH_NETWORKS = frozenset((*VITS, _RESNET, _CONVNEXT))
"""Names of the backbones that such a file fits, beside EfficientNet-Lite."""


def build_torch_network(backbone: Backbone, size: tuple[int, int], state: State | None) -> Any:
    """Build one of :data:`TORCH_NETWORKS`, from pixels to its last feature maps, with weights.

    Without `state`, a vision transformer gets random weights. WeightsError for weights of another
    network.
    """
    if backbone.name in VITS:
        spec = VITS[backbone.name]
        network = build_vit(backbone.name, spec, size)
        if state is not None:
            load_vit_state(network, spec, state)
        return network
    assert state is not None
    if backbone.name == _RESNET:
        network = build_torch_resnet(size)
        load_resnet_state(network, state)
    else:
        network = build_application(backbone, size)
        load_convnext_state(network, state)
    return network
