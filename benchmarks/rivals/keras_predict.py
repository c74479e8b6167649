"""Load a ``.keras`` file, call ``model.predict`` on one image: rival of ``kindsight predict``.

What Keras's guides show for a single image: ``load_model``, ``load_img``, ``img_to_array``,
``predict``. Nothing of kindsight is imported.
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
    best = int(np.argmax(output))
    names = options.classes.split(",") if options.classes else None
    return {
        "label": names[best] if names else best,
        # A probability or a logit, whichever the model gives.
        "output": round(float(output[best]), 6),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="file that keras.models.load_model reads")
    parser.add_argument("image", type=Path)
    parser.add_argument("--classes", default="", help="names in the model's order, with commas")
    shared.run("keras predict", ("keras", "tensorflow-cpu"), predict, parser)
