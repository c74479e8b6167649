"""What is made of one picture to get its features; many are under way at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import PictureError
from kindsight.models.views import look
from kindsight.runtime import InterpreterPool
from kindsight.training.kept import to_jpeg
from kindsight.training.tables import FeatureRow

__all__ = ["FeatureMaker"]


@dataclass(frozen=True)
class FeatureMaker:
    """Runs pictures through the frozen network; a :class:`kindsight.catalog.once.Maker`.

    Parameters
    ----------
    pool : InterpreterPool
        The network.
    view : int
        Which view it sees, as :mod:`.views` counts them.
    """

    pool: InterpreterPool
    view: int = 0

    def make(self, digest: str, pixels: NDArray[np.uint8], size: tuple[int, int]) -> FeatureRow:
        """Return the features of a resized picture, with the picture as a JPEG."""
        vector = self.pool.run(look(pixels, self.view))
        if not np.isfinite(vector).all():
            raise PictureError("corrupt", "The network's answer to it is not finite.")
        # What reports show is kept once, beside the features of the picture as it is.
        return FeatureRow(digest, vector, b"" if self.view else to_jpeg(pixels), *size)

    def failed(self, digest: str, error: PictureError) -> FeatureRow:
        """Return the row of a picture that cannot be read."""
        return FeatureRow(digest, None, code=error.code, reason=error.reason)
