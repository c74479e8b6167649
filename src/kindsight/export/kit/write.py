"""Write the conformance kit: images, an export's outputs for them, and how to compare."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kindsight.bundle import Bundle
from kindsight.export.kit.drawings import Drawing, draw_files, draw_pixels
from kindsight.export.target import Exporter, Outputs, describe
from kindsight.files import write_json, write_text
from kindsight.predictor import Predictor
from kindsight.uncertainty.prediction import Decisions, Prediction

__all__ = ["EXPECTED_FILE", "KIT", "Kit", "make_kit"]

KIT = "kit"
"""The folder in an export."""

EXPECTED_FILE = "expected.json"

FORMAT = 1

PIXELS = 1
"""Maximum difference of a pixel for a correct resize, 0-255; for lossless images."""

FLOAT32 = 1e-3
REDUCED = 1e-2
"""Maximum differences of a probability between processors: for float32 networks, and for others."""

DIGITS = 7


@dataclass(frozen=True, eq=False)
class Kit:
    """The images of a classifier's kit, and the classifier's outputs for them.

    Parameters
    ----------
    drawings : tuple of Drawing
    pixels : array
        uint8 (20, height, width, 3), after the resize.
    outputs : Outputs
        Outputs of the classifier.
    """

    bundle: Bundle
    drawings: tuple[Drawing, ...]
    pixels: NDArray[np.uint8]
    outputs: Outputs

    def write(self, folder: Path, target: Exporter, outputs: Outputs | None) -> Path:
        """Write the kit of an export into a new folder, and return it.

        Parameters
        ----------
        folder : pathlib.Path
            Folder of the export.
        target : Exporter
        outputs : Outputs or None
            The export's outputs for :attr:`pixels`; None if it was not run.
        """
        kit = folder / KIT
        for name in ("images", "pixels"):
            (kit / name).mkdir(parents=True)
        for drawing, pixels in zip(self.drawings, self.pixels, strict=True):
            (kit / "images" / drawing.name).write_bytes(drawing.data)
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
            (kit / _pixels_name(drawing)).write_bytes(buffer.getvalue())
        write_json(kit / EXPECTED_FILE, self._expected(target, outputs))
        for name in ("resize.md", "resize.py"):
            write_text(kit / name, _text(name))
        write_text(kit / "README.md", readme(target.name))
        return kit

    def _expected(self, target: Exporter, outputs: Outputs | None) -> dict[str, Any]:
        about = describe(self.bundle)
        is_exact = target.bounds.probability is not None
        return {
            "format": FORMAT,
            "target": target.name,
            "classes": about["classes"],
            "resize": about["input"]["resize"],
            "thresholds": about["thresholds"],
            "source": "classifier" if outputs is None else "export",
            "tolerance": {"pixels": PIXELS, "probabilities": FLOAT32 if is_exact else REDUCED},
            "images": list(self._images(self.outputs if outputs is None else outputs)),
        }

    def _images(self, outputs: Outputs) -> Iterator[dict[str, Any]]:
        decisions, (probabilities, scores) = Decisions.load(self.bundle), outputs
        for row, drawing in enumerate(self.drawings):
            score = None if scores is None else float(scores[row])
            values, name = probabilities[row], drawing.name
            found = decisions.decide(
                Prediction(name, self.bundle.classes, probabilities=values, ood_score=score)
            )
            yield {
                "file": f"images/{drawing.name}",
                "what": drawing.what,
                "lossless": drawing.lossless,
                "pixels": _pixels_name(drawing),
                "probabilities": [round(float(value), DIGITS) for value in values],
                "ood_score": None if score is None else round(score, DIGITS),
                "label": found.label,
                "reason": found.reason,
                "classifier": [round(float(value), DIGITS) for value in self.outputs[0][row]],
            }


def make_kit(bundle: Bundle) -> Kit:
    """Draw the images, and predict them with the classifier."""
    spec, predictor = bundle.spec, Predictor(bundle, always=True)
    drawings = tuple(draw_files(spec))
    pixels = draw_pixels(spec)
    found = list(predictor.predict(list(pixels)))
    scores = [each.ood_score for each in found]
    probabilities = np.array([each.probabilities for each in found], np.float32)
    return Kit(
        bundle, drawings, pixels,
        (probabilities, None if None in scores else np.array(scores, np.float32)),
    )  # fmt: skip


def readme(target: str) -> str:
    """Return the README of a kit: a description, and examples in the target's languages."""
    intro, *sections = _text("examples.md").split("\n## ")
    for section in sections:
        names, _, body = section.partition("\n")
        if target in names.replace(",", "").split():
            return f"{intro}\n{body}"
    return intro


def _pixels_name(drawing: Drawing) -> str:
    return f"pixels/{drawing.name.partition('.')[0]}.png"


def _text(name: str) -> str:
    return (files("kindsight.export.kit") / name).read_text("utf-8")
