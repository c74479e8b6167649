"""A plain loop in PyTorch that trains EfficientNet-Lite0, all of it or its upper part.

timm's ``tf_efficientnet_lite0`` in channels_last, batch normalisation in inference mode, AdamW,
batches of 32. The images are in memory, decoded and resized (an ``.npy`` file of uint8), so that
the network alone is timed. ``--upper`` freezes the network up to the end of its fifth stage, and
computes that part anew for each batch, without gradients. An epoch ends with judging what is not
learned from. The weights are random: they make no
difference to the time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

import shared

# Of timm's seven stages, those below the cut.
LOWER_BLOCKS = 5


def parts_of(network: Any, upper: bool) -> tuple[Any, Any]:
    """Return what runs without gradients, and what learns."""
    from torch import nn

    stem = [network.conv_stem, network.bn1]
    count = LOWER_BLOCKS if upper else 0
    blocks = list(network.blocks)
    lower = nn.Sequential(*stem, *blocks[:count]) if upper else nn.Identity()
    top = [network.conv_head, network.bn2, network.global_pool, network.classifier]
    rest = [*blocks[count:], *top]
    return lower, nn.Sequential(*([] if upper else stem), *rest)


def train(options: argparse.Namespace) -> dict[str, Any]:
    import numpy as np
    import timm
    import torch

    torch.manual_seed(options.seed)
    torch.backends.mkldnn.enabled = True
    pixels, targets = np.load(options.pixels), torch.from_numpy(np.load(options.targets))
    network = timm.create_model("tf_efficientnet_lite0", num_classes=int(targets.max()) + 1)
    network = network.to(memory_format=torch.channels_last).eval()
    lower, learning = parts_of(network, options.upper)
    for parameter in lower.parameters():
        parameter.requires_grad = False
    optimizer = torch.optim.AdamW(learning.parameters(), lr=5e-5)
    loss_of = torch.nn.CrossEntropyLoss()
    seconds = []
    rows, judged = shared.judged_apart(len(pixels), options.judged)

    def batches(order: Any) -> Iterator[tuple[Any, Any]]:
        for start in range(0, len(order), options.batch):
            some = order[start : start + options.batch]
            batch = torch.from_numpy(pixels[some]).permute(0, 3, 1, 2)
            batch = ((batch.float() - 127) / 128).contiguous(memory_format=torch.channels_last)
            with torch.no_grad():
                given = lower(batch)
            yield given, targets[some]

    for epoch in range(options.epochs):
        order = np.random.default_rng(epoch).permutation(rows)
        started = time.perf_counter()
        for batch, truth in batches(order):
            optimizer.zero_grad(set_to_none=True)
            loss_of(learning(batch), truth).backward()
            optimizer.step()
        with torch.no_grad():
            sum(loss_of(learning(batch), truth).item() for batch, truth in batches(judged))
        seconds.append(time.perf_counter() - started)
    return {"epoch_seconds": seconds, "train": len(rows)}


if __name__ == "__main__":
    parser = shared.tuning_parser(__doc__.splitlines()[0])
    shared.run("PyTorch channels_last", ("torch", "timm"), train, parser)
