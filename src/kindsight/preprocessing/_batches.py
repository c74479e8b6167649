"""The pictures of one batch: drawn for in order, then made on all cores.

Two ways lead to a batch. The short one draws for the whole batch at once and writes each picture
into its place in the result. The long one calls the generator's methods picture by picture as Keras
does; it is taken where somebody else's code has a say in the order of draws: a preprocessing
function that may draw numbers itself, or a subclass with methods of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.preprocessing import _keras
from kindsight.preprocessing._colour import brighten_into, shift_channels_into
from kindsight.preprocessing._draws import GLOBAL, Draws, Source, draw_many
from kindsight.preprocessing._fill import Fill
from kindsight.preprocessing._matrices import affine_matrices
from kindsight.preprocessing._room import room
from kindsight.preprocessing._standards import only_factor
from kindsight.preprocessing._threads import Work, for_each
from kindsight.preprocessing._warp import warp_into

__all__ = ["Batch", "Making", "begin_batch", "can_draw_ahead"]

Pixels = NDArray[Any]
_SLACK = 1e-3  # in units of 255, see brighten_into


@dataclass(frozen=True)
class Batch:
    """What a batch is made of.

    Parameters
    ----------
    generator : ImageDataGenerator or None
        What draws, transforms and standardises.
    count : int
        How many pictures.
    fetch : callable
        The pixels of the i-th, an array of shape (height, width, channels) that is not written to.
    shape : tuple of int
        (height, width, channels).
    channels_first : bool
        Whether the result has the channels before the rows.
    pixel_type, result_type : str
        What is computed in, and what comes out.
    """

    generator: Any
    count: int
    fetch: Callable[[int], Pixels]
    shape: tuple[int, int, int]
    channels_first: bool
    pixel_type: str
    result_type: str

    def laid_out(self, picture: Pixels) -> Pixels:
        """Return a view of a picture with the channels where the result has them."""
        return picture.transpose(2, 0, 1) if self.channels_first else picture

    def empty(self) -> Pixels:
        """Return an array for the result."""
        height, width, channels = self.shape
        shape = (channels, height, width) if self.channels_first else self.shape
        return room.empty((self.count, *shape), self.result_type)


class Making:
    """A batch that has been drawn for, and is being made.

    Parameters
    ----------
    work : Work
        What makes it.
    answer : callable
        What returns it, called when the work is done.
    """

    def __init__(self, work: Work, answer: Callable[[], Any]) -> None:
        self.work, self._answer = work, answer

    def __call__(self) -> Any:
        """Join in the work until it is done, and return the batch."""
        self.work.finish()
        return self._answer()


def begin_batch(batch: Batch, source: Source = GLOBAL) -> tuple[Pixels, Work]:
    """Draw what has to be drawn.

    Returns
    -------
    result : array
        Where the pictures will be.
    work : Work
        What puts them there, picture by picture, on whatever threads.
    """
    generator = batch.generator
    if not generator:
        return _convert(batch)
    if not getattr(generator, "_draws_alone", False):
        return _one_by_one(batch), Work(0, lambda _: None)
    shape = batch.laid_out(np.empty(batch.shape, np.bool_)).shape
    if generator._draws_as_usual:
        draws = draw_many(generator, shape, batch.count, source)
    else:
        draws = Draws.of([generator.get_random_transform(shape) for _ in range(batch.count)])
    if batch.pixel_type != "float32" or _refused(batch, draws):
        return _by_methods(batch, draws)
    return _directly(batch, draws)


def can_draw_ahead(generator: Any) -> bool:
    """Whether a batch can be drawn for from another source than NumPy's global state."""
    if not generator:
        return True
    return bool(getattr(generator, "_draws_alone", False) and generator._draws_as_usual)


def _refused(batch: Batch, draws: Draws) -> bool:
    """Whether a brightness shift will misread the picture's axes, and complain."""
    last = _keras.image_data_format() == "channels_last"
    return last == batch.channels_first and any(value is not None for value in draws.brightness)


def _convert(batch: Batch) -> tuple[Pixels, Work]:
    result = batch.empty()

    def make(place: int) -> None:
        result[place] = batch.laid_out(batch.fetch(place)).astype(batch.pixel_type, copy=False)

    return result, Work(batch.count, make)


def _one_by_one(batch: Batch) -> Pixels:
    result, generator = batch.empty(), batch.generator
    fetched: list[Pixels | None] = [None] * batch.count

    def read(place: int) -> None:
        fetched[place] = batch.fetch(place)

    for_each(batch.count, read)
    for place, pixels in enumerate(fetched):
        x = np.array(batch.laid_out(np.asarray(pixels)), batch.pixel_type)
        parameters = generator.get_random_transform(x.shape)
        x = generator.apply_transform(x, parameters)
        result[place] = generator.standardize(x)
    return result


def _by_methods(batch: Batch, draws: Draws) -> tuple[Pixels, Work]:
    result, generator = batch.empty(), batch.generator

    def make(place: int) -> None:
        x = np.array(batch.laid_out(batch.fetch(place)), batch.pixel_type)
        x = generator.apply_transform(x, draws.parameters(place))
        result[place] = generator.standardize(x)

    return result, Work(batch.count, make)


def _coloured(draws: Draws, place: int) -> bool:
    return draws.channel_shift[place] is not None or draws.brightness[place] is not None


def _directly(batch: Batch, draws: Draws) -> tuple[Pixels, Work]:
    result, generator = batch.empty(), batch.generator
    height, width, _ = batch.shape
    matrices, still = affine_matrices(draws.affine, height, width)
    fill = Fill(generator.fill_mode, generator.cval, generator.interpolation_order)
    in_place = result.dtype == np.float32 and not batch.channels_first
    factor = only_factor(generator) if in_place else None

    def make(place: int) -> None:
        out = result[place] if in_place else np.empty(batch.shape, np.float32)
        laid_out, source = batch.laid_out(out), batch.fetch(place)
        horizontal, vertical = draws.flips[place].tolist()
        rounded = False
        if factor is not None and still[place] and not _coloured(draws, place):
            turned = source[:: -1 if vertical else 1, :: -1 if horizontal else 1]
            # In two walks, as a picture stays in the processor's cache between them: mixing the
            # types in one makes NumPy go through a small buffer, which takes half as long again.
            np.copyto(out, turned, casting="unsafe")
            np.multiply(out, factor, out=out)
            return
        if still[place]:
            out[...] = source[:: -1 if vertical else 1, :: -1 if horizontal else 1]
        else:
            rounded = warp_into(out, source, matrices[place], fill, (horizontal, vertical))
        if (intensity := draws.channel_shift[place]) is not None:
            shift_channels_into(out, intensity)
        if (brightness := draws.brightness[place]) is not None:
            brighten_into(laid_out, brightness, _SLACK if rounded else 0)
        standard = generator.standardize(laid_out)
        if standard is not laid_out or not in_place:
            result[place] = standard

    return result, Work(batch.count, make)
