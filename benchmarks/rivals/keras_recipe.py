"""Train with the usual Keras recipe for transfer learning: a rival of ``kindsight train``.

Follows the transfer-learning guides of Keras and TensorFlow, on Keras as installed:
``image_dataset_from_directory``, a frozen backbone, pooling, a dense head, Adam, ten epochs. The
backbone is a ``.keras`` file, so that Keras and kindsight run the same network.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import shared


def load_images(
    folder: Path, size: tuple[int, int], options: argparse.Namespace, **more: Any
) -> Any:
    """Return a ``tf.data.Dataset`` of batches from a folder of class folders."""
    import keras

    return keras.utils.image_dataset_from_directory(
        folder, image_size=size, batch_size=options.batch, seed=options.seed, **more
    )


def add_head(backbone: Any, classes: int) -> Any:
    """Return a model of the frozen backbone, pooling, dropout and a dense layer."""
    import keras

    backbone.trainable = False
    pixels = keras.Input(backbone.input_shape[1:])
    x = backbone(pixels, training=False)
    # A backbone that ends in pooling already outputs (batch, features).
    if len(x.shape) == 4:
        x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(0.2)(x)
    return keras.Model(pixels, keras.layers.Dense(classes, activation="softmax")(x))


def train(options: argparse.Namespace) -> dict[str, Any]:
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(options.seed)
    backbone = keras.models.load_model(options.backbone)
    size = backbone.input_shape[1:3]
    train_set = load_images(options.train, size, options)
    names = train_set.class_names
    validation_set = load_images(
        options.validation, size, options, class_names=names, shuffle=False
    )
    if options.cache:
        train_set, validation_set = train_set.cache(), validation_set.cache()
    train_set = train_set.prefetch(tf.data.AUTOTUNE)
    validation_set = validation_set.prefetch(tf.data.AUTOTUNE)

    model = add_head(backbone, len(names))
    model.compile("adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    started = time.perf_counter()
    history = model.fit(
        train_set, validation_data=validation_set, epochs=options.epochs, verbose=2
    ).history
    fitting = time.perf_counter() - started
    images = shared.count_images(options.train)
    scored = shared.count_images(options.validation)
    return {
        "accuracy": round(history["val_accuracy"][-1], 5),
        # Training and validation images per second of fitting.
        "rate": round(options.epochs * (images + scored) / fitting, 2),
        "fit_seconds": round(fitting, 3),
        "train": images,
        "validation": scored,
        "epochs": options.epochs,
    }


if __name__ == "__main__":
    parser = shared.training_parser(__doc__.splitlines()[0])
    parser.add_argument(
        "--backbone",
        type=Path,
        required=True,
        metavar="FILE",
        help=".keras file: takes pixels 0-255, outputs features or a feature map",
    )
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--cache", action="store_true", help="cache the decoded images in memory")
    shared.run("keras recipe", ("keras", "tensorflow-cpu"), train, parser)
