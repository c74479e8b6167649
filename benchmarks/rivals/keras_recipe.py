"""The usual Keras recipe of transfer learning, as one process: a rival of ``kindsight train``.

``image_dataset_from_directory``, a frozen backbone, pooling, a dense head, Adam, ten epochs, as
the guides to transfer learning of Keras and TensorFlow teach it, with Keras as installed. The
backbone is a ``.keras`` file, so that both sides run the very same network.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import shared


def images_of(folder: Path, size: tuple[int, int], options: argparse.Namespace, **more: Any) -> Any:
    """Read a folder of class folders into batches, as the guides do."""
    import keras

    return keras.utils.image_dataset_from_directory(
        folder, image_size=size, batch_size=options.batch, seed=options.seed, **more
    )


def add_head(backbone: Any, classes: int) -> Any:
    """Put pooling, dropout and a dense layer on the frozen backbone."""
    import keras

    backbone.trainable = False
    pixels = keras.Input(backbone.input_shape[1:])
    x = backbone(pixels, training=False)
    # A backbone that ends in its own pooling gives (batch, features) already.
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
    train_set = images_of(options.train, size, options)
    names = train_set.class_names
    validation_set = images_of(options.validation, size, options, class_names=names, shuffle=False)
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
        # Images that pass the network in a second of fitting, those of validation included.
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
        help=".keras file: pixels 0-255 in, features or a feature map out",
    )
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument(
        "--cache", action="store_true", help="keep the decoded images in memory between epochs"
    )
    shared.run("keras recipe", ("keras", "tensorflow-cpu"), train, parser)
