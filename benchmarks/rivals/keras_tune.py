"""Keras's own ``fit`` on EfficientNet-Lite0, all of it or its upper part.

The backbone is a ``.keras`` file that ends in a feature map, put under pooling and a dense layer.
``--upper`` freezes it up to the end of its fifth stage; Keras then computes that part anew for each
batch, as the guides to fine-tuning have it. The images are in memory, decoded and resized (an
``.npy`` file of uint8), so that the network alone is timed. An epoch ends with
judging what is not learned from.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import shared

CUT = "stage5"


def network(options: argparse.Namespace, classes: int) -> Any:
    """Build the network, its lower part frozen, batch normalisation in inference mode."""
    import keras

    backbone = keras.models.load_model(options.backbone, compile=False)
    below = options.upper
    for layer in backbone.layers:
        normalises = type(layer).__name__ == "BatchNormalization"
        layer.trainable = not below and not normalises
        if layer.name in (CUT, f"{CUT}_out"):
            below = False
    x = backbone.output
    if len(x.shape) == 4:
        x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(backbone.input, keras.layers.Dense(classes)(x))


def train(options: argparse.Namespace) -> dict[str, Any]:
    import keras
    import numpy as np

    keras.utils.set_random_seed(options.seed)
    pixels, targets = np.load(options.pixels), np.load(options.targets)
    model = network(options, int(targets.max()) + 1)
    learning = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(5e-5), loss=loss)

    seconds: list[float] = []

    class Clock(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.started = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            seconds.append(time.perf_counter() - self.started)

    rows, judged = shared.judged_apart(len(pixels), options.judged)
    model.fit(
        pixels[rows], targets[rows], batch_size=options.batch, epochs=options.epochs, verbose=0,
        callbacks=[Clock()], validation_data=(pixels[judged], targets[judged]),
    )  # fmt: skip
    return {"epoch_seconds": seconds, "train": len(rows), "learning": learning}


if __name__ == "__main__":
    parser = shared.tuning_parser(__doc__.splitlines()[0])
    parser.add_argument("--backbone", type=Path, required=True, help="ends in a feature map")
    shared.run("Keras fit", ("keras", "tensorflow-cpu"), train, parser)
