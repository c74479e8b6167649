"""What the drop-in takes from Keras: the one module of this room that imports it."""

from __future__ import annotations

import logging
import os
import sys

# On AMD and older Intel processors TensorFlow leaves oneDNN off, at twice the time for a
# convolution. It reads the variable once, when it is imported; the user's own value wins.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import keras
from keras.preprocessing.image import smart_resize
from keras.utils import PyDataset, array_to_img, img_to_array, load_img, save_img

__all__ = [
    "PyDataset",
    "array_to_img",
    "floatx",
    "image_data_format",
    "img_to_array",
    "load_img",
    "save_img",
    "say",
    "smart_resize",
]

_LOG = logging.getLogger("kindsight")


def floatx() -> str:
    """Return the type that Keras computes in, such as ``"float32"``."""
    return str(keras.config.floatx())


def image_data_format() -> str:
    """Return where Keras expects the channels: ``"channels_last"`` or ``"channels_first"``."""
    return str(keras.config.image_data_format())


def say(message: str) -> None:
    """Print a line, or log it where the user has told Keras to log."""
    if keras.config.is_interactive_logging_enabled():
        sys.stdout.write(f"{message}\n")
        sys.stdout.flush()
    else:
        _LOG.info(message)
