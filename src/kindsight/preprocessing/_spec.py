"""How files become pictures of one size."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Loading"]


@dataclass(frozen=True)
class Loading:
    """How files become pictures of one size.

    Parameters
    ----------
    color_mode : str
        ``"rgb"``, ``"rgba"`` or ``"grayscale"``.
    target_size : pair of int
        Height and width.
    interpolation : str
        One of Pillow's, such as ``"nearest"``.
    keep_aspect_ratio : bool
        Whether to cut out the middle with the proportions of the target first.
    """

    color_mode: str
    target_size: tuple[int, int]
    interpolation: str
    keep_aspect_ratio: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        channels = {"rgba": 4, "rgb": 3}.get(self.color_mode, 1)
        return (*self.target_size, channels)
