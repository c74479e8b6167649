"""Iterate over class folders with one library and print images per second of each epoch as JSON.

150x150, batches of 20, float32 from 0 to 1, shuffled, written as each library documents it; with
augmentation (rotation 40, shifts 0.2, shear 0.2, zoom 0.2, horizontal flip, nearest) or
none. Started by generator.py.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

SIDE, BATCH, WORKERS = 150, 20, 2
# Larger than the datasets, for a uniform shuffle.
SHUFFLE_BUFFER = 10_000
COURSE = {
    "rotation_range": 40,
    "width_shift_range": 0.2,
    "height_shift_range": 0.2,
    "shear_range": 0.2,
    "zoom_range": 0.2,
    "horizontal_flip": True,
    "fill_mode": "nearest",
}
# Keras divides by its zoom of 0.8 to 1.2; the others multiply.
SCALE = (1 / 1.2, 1 / 0.8)

Epochs = Callable[[Path, bool], Callable[[], Iterable[Any]]]


def kindsight() -> Epochs:
    """Yield batches of kindsight's ImageDataGenerator."""
    from kindsight.preprocessing.image import ImageDataGenerator

    return _generator(ImageDataGenerator)


def keras() -> Epochs:
    """Yield batches of Keras's generator."""
    from keras._tf_keras.keras.preprocessing.image import ImageDataGenerator

    return _generator(ImageDataGenerator)


def _generator(kind: Any) -> Epochs:
    def make(folder: Path, course: bool) -> Callable[[], Iterable[Any]]:
        flow = kind(rescale=1 / 255, **(COURSE if course else {})).flow_from_directory(
            folder, target_size=(SIDE, SIDE), batch_size=BATCH, class_mode="binary"
        )
        return lambda: (next(flow) for _ in range(len(flow)))

    return make


def tfdata() -> Epochs:
    """Yield batches of tf.data with cached images, shuffled in every epoch, and Keras layers."""
    return _tfdata(cached_batches=False)


def tfdata_replayed() -> Epochs:
    """Yield batches of tf.data with cached batches: the same order in every epoch."""
    return _tfdata(cached_batches=True)


def _tfdata(cached_batches: bool) -> Epochs:
    import keras
    import tensorflow as tf

    def make(folder: Path, course: bool) -> Callable[[], Iterable[Any]]:
        data = keras.utils.image_dataset_from_directory(
            folder,
            label_mode="binary",
            image_size=(SIDE, SIDE),
            batch_size=BATCH if cached_batches else None,
        ).cache()
        if not cached_batches:
            data = data.shuffle(SHUFFLE_BUFFER).batch(BATCH)
        layers = [keras.layers.Rescaling(1 / 255)]
        if course:
            layers = [
                keras.layers.RandomFlip("horizontal"),
                keras.layers.RandomRotation(40 / 360, fill_mode="nearest"),
                keras.layers.RandomTranslation(0.2, 0.2, fill_mode="nearest"),
                keras.layers.RandomShear(0.2, 0.0, fill_mode="nearest"),
                keras.layers.RandomZoom((-0.2, 0.2), fill_mode="nearest"),
                *layers,
            ]
        chain = keras.Sequential(layers)
        batches = data.map(
            lambda x, y: (chain(x, training=True), y), num_parallel_calls=tf.data.AUTOTUNE
        ).prefetch(tf.data.AUTOTUNE)
        return batches.as_numpy_iterator

    return make


def torchvision() -> Epochs:
    """Yield batches of a DataLoader over torchvision's v2 transforms."""
    import torch
    from torchvision import datasets
    from torchvision.transforms import InterpolationMode, v2

    torch.set_num_threads(1)

    def make(folder: Path, course: bool) -> Callable[[], Iterable[Any]]:
        changes = [
            v2.RandomAffine(40, (0.2, 0.2), SCALE, 0.2, interpolation=InterpolationMode.BILINEAR),
            v2.RandomHorizontalFlip(),
        ]
        transform = v2.Compose(
            [
                v2.ToImage(),
                v2.Resize((SIDE, SIDE), antialias=True),
                *(changes if course else []),
                v2.ToDtype(torch.float32, scale=True),
            ]
        )
        return _loader(datasets.ImageFolder(str(folder), transform))

    return make


def albumentations() -> Epochs:
    """Yield batches of a DataLoader over albumentations' transforms."""
    import albumentations as album
    import cv2
    import numpy as np
    from torchvision import datasets

    cv2.setNumThreads(0)

    def make(folder: Path, course: bool) -> Callable[[], Iterable[Any]]:
        changes = [
            album.Affine(
                rotate=(-40, 40), translate_percent=(-0.2, 0.2), scale=SCALE, shear=(-0.2, 0.2),
                border_mode=cv2.BORDER_REPLICATE, p=1,
            ),
            album.HorizontalFlip(p=0.5),
        ]  # fmt: skip
        chain = album.Compose([album.Resize(SIDE, SIDE), *(changes if course else [])])

        def transform(image: Any) -> Any:
            changed = chain(image=np.asarray(image))["image"]
            return changed.transpose(2, 0, 1).astype(np.float32) / 255

        return _loader(datasets.ImageFolder(str(folder), transform))

    return make


def _loader(data: Any) -> Callable[[], Iterable[Any]]:
    import torch

    loader = torch.utils.data.DataLoader(
        data, BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True
    )
    return lambda: iter(loader)


LIBRARIES = {
    function.__name__: function
    for function in (kindsight, keras, tfdata, tfdata_replayed, torchvision, albumentations)
}


def main() -> None:
    """Measure and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("library", choices=LIBRARIES)
    parser.add_argument("augmentation", choices=["course", "none"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    make = LIBRARIES[options.library]()
    rates = []
    with contextlib.redirect_stdout(sys.stderr):
        start = time.perf_counter()
        epoch = make(options.folder, options.augmentation == "course")
        for _ in range(options.epochs):
            count = sum(len(images) for images, _ in epoch())
            end = time.perf_counter()
            rates.append(count / (end - start))
            start = end
    print(json.dumps({"rates": rates, "images": count}))


if __name__ == "__main__":
    main()
