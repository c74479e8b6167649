"""Train with the course's code in Keras: a rival of ``kindsight train --model small-cnn``.

Uses ``ImageDataGenerator.flow_from_directory`` with the course's augmentation, the small network,
RMSprop and ``model.fit``, on Keras as installed.
"""

from __future__ import annotations

import argparse
import itertools
import time
from typing import Any

import shared


def network() -> Any:
    """Build the course's network for two classes."""
    from keras import Sequential, layers

    return Sequential(
        [
            layers.Conv2D(16, (3, 3), activation="relu", input_shape=(150, 150, 3)),
            layers.MaxPooling2D(2, 2),
            layers.Conv2D(32, (3, 3), activation="relu"),
            layers.MaxPooling2D(2, 2),
            layers.Conv2D(64, (3, 3), activation="relu"),
            layers.MaxPooling2D(2, 2),
            layers.Flatten(),
            layers.Dense(512, activation="relu"),
            layers.Dense(1, activation="sigmoid"),
        ]
    )


def train(options: argparse.Namespace) -> dict[str, Any]:
    import keras
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    keras.utils.set_random_seed(options.seed)
    augmentation = {}
    if not options.plain:
        augmentation = {
            "rotation_range": 40,
            "width_shift_range": 0.2,
            "height_shift_range": 0.2,
            "shear_range": 0.2,
            "zoom_range": 0.2,
            "horizontal_flip": True,
            "fill_mode": "nearest",
        }
    flow = {"target_size": (150, 150), "batch_size": 20, "class_mode": "binary"}
    images = ImageDataGenerator(rescale=1.0 / 255, **augmentation)
    training = images.flow_from_directory(str(options.train), seed=options.seed, **flow)
    validation = None
    if options.validation is not None:
        validation = ImageDataGenerator(rescale=1.0 / 255).flow_from_directory(
            str(options.validation), shuffle=False, **flow
        )
    model = network()
    model.compile(
        loss="binary_crossentropy",
        optimizer=keras.optimizers.RMSprop(learning_rate=options.learning_rate),
        metrics=["accuracy"],
    )
    ends = [time.perf_counter()]
    clock = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: ends.append(time.perf_counter())
    )
    history = model.fit(
        training, epochs=options.epochs, validation_data=validation, callbacks=[clock], verbose=2
    ).history
    return {
        "epoch_seconds": [end - start for start, end in itertools.pairwise(ends)],
        "train": shared.count_images(options.train),
        "accuracies": history.get("val_accuracy", []),
    }


if __name__ == "__main__":
    parser = shared.training_parser(__doc__.splitlines()[0])
    for action in parser._actions:
        action.required = action.dest == "train"
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--plain", action="store_true", help="without augmentation")
    shared.run("the course's code", ("keras", "tensorflow-cpu"), train, parser)
