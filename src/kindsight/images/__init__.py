"""One image: files to arrays, resizing, hashes and metadata."""

from kindsight.images.read import MAX_BYTES, MAX_PIXELS, read_bytes, read_image
from kindsight.images.resize import Fit, InputSpec, Interpolation, read_loaded, resize_image

__all__ = [
    "MAX_BYTES", "MAX_PIXELS", "Fit", "InputSpec", "Interpolation", "read_bytes", "read_image",
    "read_loaded", "resize_image",
]  # fmt: skip
