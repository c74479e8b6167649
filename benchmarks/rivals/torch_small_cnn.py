"""Train the course's network in PyTorch: a rival of ``kindsight train --model small-cnn``.

Uses ``ImageFolder`` with torchvision's v2 transforms, a ``DataLoader`` with two workers, tensors in
channels_last, and RMSprop.
"""

from __future__ import annotations

import argparse
import itertools
import time
from typing import Any

import shared


def network() -> Any:
    """Build the course's network for two classes."""
    from torch import nn

    layers: list[Any] = []
    for channels, filters in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(channels, filters, 3), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(64 * 17 * 17, 512), nn.ReLU(), nn.Linear(512, 1)
    )


def train(options: argparse.Namespace) -> dict[str, Any]:
    import torch
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    torch.manual_seed(options.seed)
    augmentation: list[Any] = []
    if not options.plain:
        augmentation = [
            v2.RandomAffine(
                40,
                (0.2, 0.2),
                (0.8, 1.2),
                11.5,
                interpolation=v2.InterpolationMode.BILINEAR,
            ),
            v2.RandomHorizontalFlip(),
        ]
    transform = v2.Compose(
        [
            v2.ToImage(),
            v2.Resize((150, 150)),
            *augmentation,
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    loader = DataLoader(
        ImageFolder(str(options.train), transform),
        batch_size=20,
        shuffle=True,
        num_workers=options.workers,
        persistent_workers=options.workers > 0,
    )
    model = network().to(memory_format=torch.channels_last)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=options.learning_rate, alpha=0.9)
    loss_function = torch.nn.BCEWithLogitsLoss()
    ends = [time.perf_counter()]
    for _ in range(options.epochs):
        total = 0.0
        for images, labels in loader:
            optimizer.zero_grad(set_to_none=True)
            batch = images.to(memory_format=torch.channels_last)
            loss = loss_function(model(batch)[:, 0], labels.float())
            loss.backward()
            optimizer.step()
            total += loss.item()
        ends.append(time.perf_counter())
        print(f"loss {total / len(loader):.4f}")
    return {
        "epoch_seconds": [end - start for start, end in itertools.pairwise(ends)],
        "train": shared.count_images(options.train),
    }


if __name__ == "__main__":
    parser = shared.training_parser(__doc__.splitlines()[0])
    for action in parser._actions:
        action.required = action.dest == "train"
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--plain", action="store_true", help="without augmentation")
    parser.add_argument("--workers", type=int, default=2)
    shared.run("pytorch channels_last", ("torch", "torchvision"), train, parser)
