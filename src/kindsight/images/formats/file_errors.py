"""Errors that the readers of all formats raise."""

from __future__ import annotations

from kindsight.errors import ImageError

__all__ = ["check_size", "corrupt", "truncated"]


def truncated(name: str) -> ImageError:
    """Return the error for a file that ends too early."""
    return ImageError("truncated", f"The {name} file ends before the image is complete.")


def corrupt(name: str, detail: str) -> ImageError:
    """Return the error for a file that violates its own format."""
    return ImageError("corrupt", f"The {name} file is damaged: {detail}.")


def check_size(height: int, width: int, max_pixels: int) -> None:
    """Raise ``corrupt`` for an empty image and ``too-large`` for one above `max_pixels`."""
    if height < 1 or width < 1:
        raise ImageError("corrupt", "The file's header states an image without pixels.")
    if height * width > max_pixels:
        raise ImageError(
            "too-large",
            f"The image has {height} x {width} pixels (height x width), "
            f"more than the limit of {max_pixels:,} pixels.",
        )
