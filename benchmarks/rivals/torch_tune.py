"""Train all or the upper layers of EfficientNet-Lite0 with a plain PyTorch loop.

Uses timm's ``tf_efficientnet_lite0`` in channels_last with batch normalisation in inference mode,
AdamW and batches of 32. The images are decoded, resized and in memory (an ``.npy`` file of uint8),
so that only the network is timed. ``--upper`` freezes the network up to the end of its fifth stage;
the frozen layers are computed for each batch without gradients. Each epoch ends with validation.
The weights are random, which does not change the time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

import shared

# Stages that --upper freezes, of timm's seven.
FROZEN_STAGES = 5


def split_network(network: Any, upper: bool) -> tuple[Any, Any]:
    """Return the frozen layers and the trainable layers."""
    from torch import nn

    stem = [network.conv_stem, network.bn1]
    count = FROZEN_STAGES if upper else 0
    blocks = list(network.blocks)
    frozen = nn.Sequential(*stem, *blocks[:count]) if upper else nn.Identity()
    top = [network.conv_head, network.bn2, network.global_pool, network.classifier]
    rest = [*blocks[count:], *top]
    return frozen, nn.Sequential(*([] if upper else stem), *rest)


def train(options: argparse.Namespace) -> dict[str, Any]:
    import numpy as np
    import timm
    import torch

    torch.manual_seed(options.seed)
    torch.backends.mkldnn.enabled = True
    pixels, targets = np.load(options.pixels), torch.from_numpy(np.load(options.targets))
    network = timm.create_model("tf_efficientnet_lite0", num_classes=int(targets.max()) + 1)
    network = network.to(memory_format=torch.channels_last).eval()
    frozen, trainable = split_network(network, options.upper)
    for parameter in frozen.parameters():
        parameter.requires_grad = False
    optimizer = torch.optim.AdamW(trainable.parameters(), lr=5e-5)
    loss_function = torch.nn.CrossEntropyLoss()
    seconds = []
    rows, val_rows = shared.split_rows(len(pixels), options.validate)

    def batches(order: Any) -> Iterator[tuple[Any, Any]]:
        for start in range(0, len(order), options.batch):
            selected = order[start : start + options.batch]
            batch = torch.from_numpy(pixels[selected]).permute(0, 3, 1, 2)
            batch = ((batch.float() - 127) / 128).contiguous(memory_format=torch.channels_last)
            with torch.no_grad():
                activations = frozen(batch)
            yield activations, targets[selected]

    for epoch in range(options.epochs):
        order = np.random.default_rng(epoch).permutation(rows)
        started = time.perf_counter()
        for batch, truth in batches(order):
            optimizer.zero_grad(set_to_none=True)
            loss_function(trainable(batch), truth).backward()
            optimizer.step()
        with torch.no_grad():
            sum(loss_function(trainable(batch), truth).item() for batch, truth in batches(val_rows))
        seconds.append(time.perf_counter() - started)
    return {"epoch_seconds": seconds, "train": len(rows)}


if __name__ == "__main__":
    parser = shared.tuning_parser(__doc__.splitlines()[0])
    shared.run("PyTorch channels_last", ("torch", "timm"), train, parser)
