"""Augment images in memory with one library and print images per second of each epoch as JSON.

Rotation to 40 degrees, shifts to 0.2, shear, zoom, horizontal flip; 150x150, batches of 20, as each
library documents it. The first epoch is not counted. Started by augmentation.py.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

BATCH = 20
SHEAR = 11.5
SCALE = (0.8333, 1.25)

Epoch = Callable[[int], Iterator[Any]]


def opencv(images: Any, cores: int) -> Epoch:
    """Yield images warped by precomputed matrices: the lower bound of the time."""
    import cv2

    cv2.setNumThreads(1)
    height, width = images.shape[1:3]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    matrices = []
    random = np.random.default_rng(0)
    for _ in images:
        angle, scale = random.uniform(-40, 40), 1 / random.uniform(*SCALE)
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, scale)
        matrix[:, 2] += random.uniform(-0.2, 0.2, 2) * (width, height)
        matrices.append(matrix)

    def epoch(_: int) -> Iterator[Any]:
        for start in range(0, len(images), BATCH):
            out = np.empty_like(images[start : start + BATCH])
            for i, target in enumerate(out, start):
                cv2.warpAffine(
                    images[i], matrices[i], (width, height), dst=target, flags=flags,
                    borderMode=cv2.BORDER_REPLICATE,
                )  # fmt: skip
            yield out

    return epoch


def kindsight(images: Any, cores: int) -> Epoch:
    """Yield batches of kindsight's recipe "classic"."""
    from kindsight.augment import Augment, augment_images

    policy = Augment.recipe("classic")

    def epoch(number: int) -> Iterator[Any]:
        for start in range(0, len(images), BATCH):
            index = np.arange(start, min(start + BATCH, len(images)))
            yield augment_images(
                images[start : start + BATCH], policy, seed=0, epoch=number, index=index,
                workers=cores,
            )  # fmt: skip

    return epoch


def keras(images: Any, cores: int) -> Epoch:
    """Yield batches of tf.data with Keras layers."""
    import keras
    import tensorflow as tf

    layers = keras.Sequential(
        [
            keras.layers.RandomFlip("horizontal"),
            keras.layers.RandomRotation(40 / 360, fill_mode="nearest"),
            keras.layers.RandomTranslation(0.2, 0.2, fill_mode="nearest"),
            keras.layers.RandomShear(0.2, 0.0, fill_mode="nearest"),
            keras.layers.RandomZoom((-0.2, 0.2), fill_mode="nearest"),
        ]
    )
    data = (
        tf.data.Dataset.from_tensor_slices(images)
        .batch(BATCH)
        .map(lambda batch: layers(batch, training=True), num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )
    return lambda _: iter(data)


def torchvision(images: Any, cores: int) -> Epoch:
    """Yield batches of a DataLoader over torchvision's v2 transforms."""
    import torch
    from torchvision.transforms import InterpolationMode, v2

    transform = v2.Compose(
        [
            v2.RandomAffine(40, (0.2, 0.2), SCALE, SHEAR, interpolation=InterpolationMode.BILINEAR),
            v2.RandomHorizontalFlip(),
        ]
    )
    tensors = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    return _loader(lambda i: transform(tensors[i]), len(images), cores)


def albumentations(images: Any, cores: int) -> Epoch:
    """Yield batches of a DataLoader over albumentations' transforms."""
    import albumentations as album
    import cv2

    cv2.setNumThreads(0)
    transform = album.Compose(
        [
            album.Affine(
                rotate=(-40, 40), translate_percent=(-0.2, 0.2), scale=SCALE, shear=(-SHEAR, SHEAR),
                border_mode=cv2.BORDER_REPLICATE, p=1,
            ),
            album.HorizontalFlip(p=0.5),
        ]
    )  # fmt: skip
    return _loader(lambda i: transform(image=images[i])["image"], len(images), cores)


def _loader(get: Callable[[int], Any], count: int, cores: int) -> Epoch:
    """Return a DataLoader with one worker per core; without workers on one core."""
    import torch

    class Data(torch.utils.data.Dataset):  # type: ignore[misc]
        def __len__(self) -> int:
            return count

        def __getitem__(self, i: int) -> Any:
            return get(i)

    torch.set_num_threads(cores)
    loader = torch.utils.data.DataLoader(
        Data(), BATCH, num_workers=0 if cores == 1 else cores, persistent_workers=cores > 1
    )
    return lambda _: iter(loader)


LIBRARIES = {
    function.__name__: function
    for function in (opencv, kindsight, keras, torchvision, albumentations)
}


def main() -> None:
    """Measure and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("library", choices=LIBRARIES)
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--side", type=int, default=150)
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):  # before any library counts the cores
        free = sorted(os.sched_getaffinity(0))[: options.cores]
        os.sched_setaffinity(0, free)
    side = options.side
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (options.images, side, side, 3), dtype=np.uint8)
    epoch = LIBRARIES[options.library](images, options.cores)
    rates = []
    for number in range(options.epochs + 1):
        start = time.perf_counter()
        images_seen = sum(len(batch) for batch in epoch(number))
        assert images_seen == len(images)
        rates.append(images_seen / (time.perf_counter() - start))
    print(json.dumps({"rates": rates[1:]}))


if __name__ == "__main__":
    main()
