"""One picture: from a file to an array, and nothing else."""

from kindsight.pictures.fingerprint import content_digest
from kindsight.pictures.read import MAX_BYTES, MAX_PIXELS, read_bytes, read_picture
from kindsight.pictures.resize import Fit, InputSpec, Interpolation, resize_picture

__all__ = [
    "MAX_BYTES",
    "MAX_PIXELS",
    "Fit",
    "InputSpec",
    "Interpolation",
    "content_digest",
    "read_bytes",
    "read_picture",
    "resize_picture",
]
