"""Classify one image with Keras's ``model.predict``: a rival of ``kindsight predict``.

Follows Keras's guides: ``load_model``, ``load_img``, ``img_to_array``, ``predict``. Does not import
kindsight.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import shared


def predict(options: argparse.Namespace) -> dict[str, Any]:
    import keras
    import numpy as np

    model = keras.models.load_model(options.model)
    size = model.input_shape[1:3]
    image = keras.utils.load_img(options.image, target_size=size)
    pixels = keras.utils.img_to_array(image)
    output = model.predict(np.expand_dims(pixels, 0), verbose=0)[0]
    index = int(np.argmax(output))
    names = options.classes.split(",") if options.classes else None
    return {
        "label": names[index] if names else index,
        # A probability or a logit, depending on the model.
        "output": round(float(output[index]), 6),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help=".keras file")
    parser.add_argument("image", type=Path)
    parser.add_argument(
        "--classes",
        default="",
        help="comma-separated class names in the order of the model's outputs",
    )
    shared.run("keras predict", ("keras", "tensorflow-cpu"), predict, parser)
