"""Everything that the drop-in takes from Keras; the only module of the package that imports it."""

from __future__ import annotations

import logging
import os
import sys

from kindsight.errors import MissingExtraError

# On AMD and older Intel processors TensorFlow does not use oneDNN by default, which doubles the
# time of convolutions. It reads the variable once, at import; a value set by the user wins.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

try:
    import keras
    from keras.preprocessing.image import smart_resize
    from keras.utils import PyDataset, array_to_img, img_to_array, load_img, save_img
except ModuleNotFoundError as error:
    if error.name not in ("keras", "tensorflow"):
        raise
    raise MissingExtraError("kindsight.preprocessing", "train") from None

__all__ = [
    "PyDataset", "array_to_img", "floatx", "image_data_format", "img_to_array", "load_img",
    "print_or_log", "save_img", "smart_resize",
]  # fmt: skip

_LOG = logging.getLogger("kindsight")


def floatx() -> str:
    """Return Keras's default float type, such as ``"float32"``."""
    return str(keras.config.floatx())


def image_data_format() -> str:
    """Return Keras's data format: ``"channels_last"`` or ``"channels_first"``."""
    return str(keras.config.image_data_format())


def print_or_log(message: str) -> None:
    """Print a line, or log it if interactive logging is disabled in Keras."""
    if keras.config.is_interactive_logging_enabled():
        sys.stdout.write(f"{message}\n")
        sys.stdout.flush()
    else:
        _LOG.info(message)
