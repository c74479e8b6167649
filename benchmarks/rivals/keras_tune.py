"""Fine-tune all or the upper layers of EfficientNet-Lite0 with Keras's ``fit``.

The backbone is a ``.keras`` file that ends in a feature map, followed by pooling and a dense layer.
``--upper`` freezes it up to the end of its fifth stage; Keras still computes the frozen layers for
each batch, as in the guides to fine-tuning. The images are decoded, resized and in memory (an
``.npy`` file of uint8), so that only the network is timed. Each epoch ends with validation.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import shared

CUT = "stage5"


def network(options: argparse.Namespace, classes: int) -> Any:
    """Build the network with batch normalisation in inference mode; `options.upper` freezes."""
    import keras

    backbone = keras.models.load_model(options.backbone, compile=False)
    frozen = options.upper
    for layer in backbone.layers:
        batch_norm = type(layer).__name__ == "BatchNormalization"
        layer.trainable = not frozen and not batch_norm
        if layer.name in (CUT, f"{CUT}_out"):
            frozen = False
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
    trainable = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(5e-5), loss=loss)

    seconds: list[float] = []

    class Clock(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.started = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            seconds.append(time.perf_counter() - self.started)

    rows, val_rows = shared.split_rows(len(pixels), options.validate)
    model.fit(
        pixels[rows], targets[rows], batch_size=options.batch, epochs=options.epochs, verbose=0,
        callbacks=[Clock()], validation_data=(pixels[val_rows], targets[val_rows]),
    )  # fmt: skip
    return {"epoch_seconds": seconds, "train": len(rows), "trainable": trainable}


if __name__ == "__main__":
    parser = shared.tuning_parser(__doc__.splitlines()[0])
    parser.add_argument(
        "--backbone", type=Path, required=True, help=".keras file that outputs a feature map"
    )
    shared.run("Keras fit", ("keras", "tensorflow-cpu"), train, parser)
