"""Going through the pictures of a catalog once: what was made of a picture is found again.

Whatever is kept of pictures (features, resized pixels) is kept by the content of their files. So
it does not matter how a file is called, in which folder it lies, or how the data are split; copies
are made once; and a file whose size and times have not changed is not even read to be known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kindsight.cache import Cache
from kindsight.catalog.catalog import Catalog
from kindsight.catalog.ledger import Progress, Table
from kindsight.catalog.reading import Read, Reader, read_through
from kindsight.errors import PictureError
from kindsight.pictures import InputSpec, read_picture, resize_picture

__all__ = ["Beside", "Gone", "Maker", "Progress", "Reader", "Table", "go_through"]


class Maker(Protocol):
    """Makes the rows of a :class:`Table`; called on many threads."""

    def make(self, digest: str, pixels: NDArray[np.uint8], size: tuple[int, int]) -> Any:
        """Make a picture's row.

        Parameters
        ----------
        digest : str
        pixels : uint8 array (height, width, 3)
            Resized.
        size : (height, width)
            Before it was resized.

        Raises
        ------
        PictureError
            If it is of no use after all.
        """

    def failed(self, digest: str, error: PictureError) -> Any:
        """Make the row of a picture that is of no use."""


class Beside(Protocol):
    """Looks at pictures that are read for another purpose; called on many threads."""

    def see(
        self,
        digest: str,
        data: bytes,
        size: tuple[int, int],
    ) -> NDArray[np.uint8]:
        """Read a picture, look at it, and return it.

        Parameters
        ----------
        digest : str
        data : bytes
            Its file.
        size : (height, width)
            As ``target`` of :func:`kindsight.pictures.read_picture`.

        Raises
        ------
        PictureError
            As that function.
        """


@dataclass(frozen=True)
class Gone:
    """How the pictures of a catalog fared.

    Parameters
    ----------
    catalog : Catalog
        The readable ones, digests filled in.
    problems : tuple of PictureError
        Those that were set aside, with their paths.
    problem_labels : tuple of str or None
        The labels of those that were set aside.
    made, reused : int
        How many distinct pictures were made, and how many did not have to be.
    """

    catalog: Catalog
    problems: tuple[PictureError, ...]
    problem_labels: tuple[str | None, ...]
    made: int
    reused: int


def go_through(
    catalog: Catalog,
    spec: InputSpec,
    cache: Cache,
    table: Table,
    look_up: Table,
    maker: Callable[[], Maker],
    threads: int,
    progress: Progress | None = None,
    beside: Beside | None = None,
    *,
    together: int = 1,
) -> Gone:
    """See to it that a table has every picture of a catalog.

    Parameters
    ----------
    catalog : Catalog
        Which pictures.
    spec : InputSpec
        How they are resized.
    cache : Cache
        Whose index of files is used.
    table, look_up : Table
        The table, over two connections: many threads look contents up, and on a connection of
        their own no write holds them up.
    maker : callable
        Called if there is anything to make.
    threads : int
        How many pictures are under way at once.
    progress : callable, optional
        Called from this thread.
    beside : Beside, optional
        Looks at the pictures that are read.
    together : int
        How many pictures a thread is handed at once, at most.

    Raises
    ------
    CacheError
        Where the cache cannot be used, or is damaged (DamagedTableError: go through again).
    """

    def reader() -> Reader:
        return _Resizing(spec, maker(), beside)

    read = read_through(
        catalog, cache, table, look_up, reader, threads, progress, together=together, quick=False
    )
    return _part(catalog, table, read)


@dataclass
class _Resizing:
    """Reads and resizes pictures, and hands them on; a :class:`Reader`."""

    spec: InputSpec
    maker: Maker
    beside: Beside | None = None

    def read(self, digest: str, data: bytes | NDArray[np.uint8]) -> Any:
        if not isinstance(data, bytes):
            picture = data
        elif self.beside is not None:
            picture = self.beside.see(digest, data, self.spec.size)
        else:
            picture = read_picture(data, target=self.spec.size)
        pixels = resize_picture(picture, self.spec)
        return self.maker.make(digest, pixels, (picture.shape[0], picture.shape[1]))

    def failed(self, digest: str, error: PictureError) -> Any:
        return self.maker.failed(digest, error)


def _part(catalog: Catalog, table: Table, read: Read) -> Gone:
    """Part the readable pictures from those set aside."""
    digests = read.digests
    failed = table.problems(digest for digest in digests if digest is not None)
    errors = dict(read.errors)
    for row, digest in enumerate(digests):
        if digest in failed:
            errors[row] = PictureError(*failed[digest])
    good = np.array([row for row in range(len(catalog)) if row not in errors], np.int64)
    kept = catalog.with_columns(digest=digests)[good]
    return Gone(
        kept,
        tuple(errors[row].at(catalog.path[row]) for row in sorted(errors)),
        tuple(catalog.label[row] for row in sorted(errors)),
        read.made,
        len(set(kept.digest)) - read.made,
    )
