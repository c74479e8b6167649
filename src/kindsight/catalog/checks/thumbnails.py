"""Small pictures to be shown beside findings, made when they are first shown and then kept."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing

import cv2
import numpy as np

from kindsight.cache import Cache
from kindsight.catalog.catalog import Catalog
from kindsight.catalog.checks.keeping import FORMAT
from kindsight.catalog.checks.table import MeasurementTable
from kindsight.errors import PictureError
from kindsight.pictures import read_picture
from kindsight.threads import count_cores, map_ordered, single_threaded_opencv

__all__ = ["THUMBNAIL", "thumbnails"]

THUMBNAIL = 144
"""Pixels of the longer side."""

QUALITY = 80


def thumbnails(
    catalog: Catalog, rows: Iterable[int], cache: Cache, workers: int | None = None
) -> dict[int, bytes]:
    """Return small JPEGs of some rows.

    Parameters
    ----------
    catalog : Catalog
        With digests; rows without one, and pictures that cannot be read, get none.
    rows : iterable of int
    cache : Cache
        Where they are kept by content.
    workers : int, optional
        How many are read at once; the number of cores if omitted.

    Returns
    -------
    dict of int to bytes
    """
    digests = {row: digest for row in rows if (digest := catalog.digest[row]) is not None}
    with closing(MeasurementTable(cache.measurements_file(str(FORMAT)))) as table:
        known = table.thumbnails(digests.values())
        missing: dict[str, int] = {}
        for row, digest in digests.items():
            if digest not in known:
                missing.setdefault(digest, row)
        if missing:
            with single_threaded_opencv():
                made = map_ordered(
                    lambda row: _thumbnail(catalog, row), missing.values(), workers or count_cores()
                )
                fresh = dict(zip(missing, made, strict=True))
            table.put_thumbnails({digest: jpeg for digest, jpeg in fresh.items() if jpeg})
            known.update(fresh)
    return {row: known[digest] for row, digest in digests.items() if known.get(digest)}


def _thumbnail(catalog: Catalog, row: int) -> bytes:
    try:
        data = catalog.load(row)
        # Twice the size: what is decoded at reduced size is then still made smaller, and smooth.
        target = (2 * THUMBNAIL, 2 * THUMBNAIL)
        picture = read_picture(data, target=target) if isinstance(data, bytes) else data
    except PictureError:
        return b""
    height, width = picture.shape[:2]
    scale = THUMBNAIL / max(height, width)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    turned = np.ascontiguousarray(picture[:, :, ::-1])
    made, data = cv2.imencode(".jpg", turned, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return np.asarray(data).tobytes() if made else b""
