"""The target ``web``: a page that classifies in a browser, verified in Chromium."""

from __future__ import annotations

import base64
import codecs
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.bundle import Bundle
from kindsight.export.kit.drawings import draw_pixels
from kindsight.export.litert import MODEL_FILE, LiteRTModel, probabilities_tflite
from kindsight.export.target import Bounds, Calibration, Measured, Outputs, describe
from kindsight.export.web.chromium import Chromium, find_browser
from kindsight.export.web.packing import PRECISIONS, pack_model, round_weights
from kindsight.export.web.pages import render_file, render_site
from kindsight.web.library import load_library

__all__ = ["PAGE_FILE", "SITE", "WEB_TARGET", "Web", "WebModel"]

PAGE_FILE = "classifier.html"
"""Name of the page as one file."""

SITE = "site"
"""The folder for a static host."""

BOUNDS = Bounds(labels=0.999, probability=2e-3)

TRIED_PROBABILITY, TRIED_SCORE = 5e-4, 5e-3
"""Maximum change of a probability, and of the score as a fraction of it, caused by rounded weights,
on the kit's drawings and on training images. The change on other images may be larger."""

CHUNK_BYTES = 4 * 2**20
"""Bytes of images that are sent to the browser at once."""

_RUN = """
(async () => {
  const { info } = kindsight;
  const [, height, width] = info.input.shape;
  const bytes = Uint8Array.from(atob("%s"), (letter) => letter.charCodeAt(0));
  const size = 3 * height * width;
  const found = [];
  for (let at = 0; at < bytes.length; at += size) {
    const started = performance.now();
    const { probabilities, score } = await kindsight.run(bytes.slice(at, at + size));
    const seconds = (performance.now() - started) / 1000;
    found.push([Array.from(probabilities), score, seconds]);
  }
  return found;
})()
"""

_CLASSIFY = """
(async () => {
  const bytes = Uint8Array.from(atob("%s"), (letter) => letter.charCodeAt(0));
  try {
    const answer = await kindsight.classify({ blob: new Blob([bytes]) }, 0);
    return [Array.from(answer.probabilities), answer.score];
  } catch (error) {
    return null;
  }
})()
"""


@dataclass(frozen=True)
class Web:
    """A page with the network, for browsers."""

    name: str = "web"
    title: str = "web page that classifies in the browser"
    extra: str | None = None
    bounds: Bounds = BOUNDS
    needs_calibration: bool = True
    own_process: bool = True

    def check(self, bundle: Bundle) -> None:
        """Raise KindsightError if LiteRT.js is missing."""
        load_library()

    def convert(
        self, bundle: Bundle, folder: Path, calibration: Calibration | None
    ) -> tuple[Path, ...]:
        """Write ``classifier.html`` and the folder ``site``."""
        library, info = load_library(), describe(bundle)
        content = probabilities_tflite(bundle, info)
        images = draw_pixels(bundle.spec)
        if calibration is not None:
            images = np.concatenate([images, calibration()])
        model = pack_model(content, choose_precision(content, images))
        name = bundle.folder.absolute().name or "Classifier"
        page = folder / PAGE_FILE
        # UTF-16, whose byte order mark overrides the charset that a server sends; see `as_text`.
        text = render_file(info, model, library, name)
        page.write_bytes(codecs.BOM_UTF16_LE + text.encode("utf-16-le"))
        written = [page]
        site = folder / SITE
        site.mkdir()
        for file, content in render_site(info, model, library, name).items():
            (site / file).write_bytes(content)
            written.append(site / file)
        return tuple(written)

    def open(self, folder: Path) -> WebModel | None:
        """Open ``classifier.html`` in headless Chromium; None if there is no Chromium."""
        browser = find_browser()
        return None if browser is None else WebModel(browser, folder / PAGE_FILE)

    def runtime(self) -> dict[str, str]:
        """Return the version of LiteRT.js."""
        return {"@litertjs/core": load_library().version}


WEB_TARGET = Web()


def choose_precision(content: bytes, images: NDArray[np.uint8]) -> int:
    """Return the lowest precision of weights that changes the outputs little enough.

    Parameters
    ----------
    content : bytes
        The LiteRT file.
    images : array
        uint8 (n, height, width, 3), resized.
    """
    expected = _run(content, images)
    for precision in PRECISIONS:
        probabilities, scores = _run(round_weights(content, precision), images)
        differences = [np.abs(probabilities - expected[0]).max() / TRIED_PROBABILITY]
        if scores is not None and expected[1] is not None:
            allowed = TRIED_SCORE * np.maximum(np.abs(expected[1]), np.finfo(np.float32).tiny)
            differences.append((np.abs(scores - expected[1]) / allowed).max())
        if max(differences) <= 1:
            return precision
    return PRECISIONS[-1]


def _run(content: bytes, images: NDArray[np.uint8]) -> Outputs:
    with tempfile.TemporaryDirectory(prefix="kindsight-") as folder:
        path = Path(folder, MODEL_FILE)
        path.write_bytes(content)
        return LiteRTModel(path).predict(images)


class WebModel:
    """The page in headless Chromium, without a network."""

    def __init__(self, browser: str, page: Path) -> None:
        self._chromium = Chromium(browser)
        try:
            self._chromium.open(page.absolute().as_uri())
            self._info = self._chromium.evaluate("kindsight.ready.then(() => kindsight.info)")
        except BaseException:
            self._chromium.close()
            raise

    def predict(self, pixels: NDArray[Any]) -> Outputs:
        """Return the outputs for resized images; see :class:`.target.ExportedModel`."""
        return self.measure(pixels).outputs

    def measure(self, pixels: NDArray[Any]) -> Measured:
        """Return the outputs with their times in the page."""
        images = np.ascontiguousarray(pixels, np.uint8)
        rows: list[Any] = []
        step = max(1, CHUNK_BYTES // max(1, images[0].nbytes)) if len(images) else 1
        for start in range(0, len(images), step):
            chunk = images[start : start + step].tobytes()
            rows += self._chromium.evaluate(_RUN % _text(chunk))
        seconds = [row[2] for row in rows] or [0.0]
        throughput = len(rows) / max(1e-9, sum(seconds))
        return Measured(self._outputs(rows), statistics.median(seconds), throughput)

    def predict_files(self, files: Sequence[bytes]) -> Outputs:
        """Return the outputs for image files, decoded by the page; see :class:`.FileModel`."""
        return self._outputs([self._chromium.evaluate(_CLASSIFY % _text(data)) for data in files])

    def close(self) -> None:
        """End the browser."""
        self._chromium.close()

    def _outputs(self, rows: list[Any]) -> Outputs:
        classes = len(self._info["classes"])
        missing = [float("nan")] * classes
        probabilities = np.array([row[0] if row else missing for row in rows], np.float32)
        probabilities = probabilities.reshape(len(rows), classes)
        if len(self._info["outputs"]) < 2:
            return probabilities, None
        return probabilities, np.array([row[1] if row else np.nan for row in rows], np.float32)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
