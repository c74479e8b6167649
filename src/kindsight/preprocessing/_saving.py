"""``save_to_dir``: each picture of a batch as a file too, to look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.preprocessing import _keras
from kindsight.preprocessing._threads import for_each

__all__ = ["Saving"]


@dataclass(frozen=True)
class Saving:
    """Where pictures are written, and what they are called.

    Parameters
    ----------
    folder : path or None
        None to write nothing, and draw nothing.
    prefix, ending : str
        Names are ``prefix_number_chance.ending``.
    numbers : int
        The number that chance makes of a name is below this.
    """

    folder: Any
    prefix: str
    ending: str
    numbers: int

    def draw_names(self, index_array: NDArray[np.int64]) -> list[str]:
        """Name the pictures of a batch, drawing from NumPy's global state."""
        if not self.folder:
            return []
        return [
            f"{self.prefix}_{number}_{np.random.randint(self.numbers)}.{self.ending}"
            for number in index_array.tolist()
        ]

    def write(self, pictures: NDArray[Any], names: list[str], data_format: str) -> None:
        """Write the pictures, each stretched to 0 to 255, under the names that were drawn."""

        def work(place: int) -> None:
            picture = _keras.array_to_img(pictures[place], data_format, scale=True)
            picture.save(Path(self.folder) / names[place])

        for_each(len(names), work)
