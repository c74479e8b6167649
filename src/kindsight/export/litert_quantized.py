"""LiteRT with int8 convolutions, by ai-edge-quantizer, without TensorFlow."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kindsight.bundle import Bundle
from kindsight.errors import KindsightError
from kindsight.export.description import describe
from kindsight.export.litert import MODEL_FILE, LiteRTModel, probabilities_tflite
from kindsight.export.litert_file import count_convolutions, count_int8_weights, to_float16
from kindsight.export.process import converter_process
from kindsight.export.target import INT8, Bounds, Calibration, require, version_of
from kindsight.models.formats.assemble import PIXELS
from kindsight.models.formats.tflite import SIGNATURE

__all__ = ["DYNAMIC_TARGET", "INT8_TARGET", "QuantizedLiteRT"]


@dataclass(frozen=True)
class QuantizedLiteRT:
    """A LiteRT file with int8 convolutions.

    The head, the "none of these" score and the statistics of the feature maps stay in floating
    point, with float16 weights: they are a hundredth of the work, and their sums nearly cancel.

    Parameters
    ----------
    name, title, extra, bounds
        See :class:`.target.Exporter`.
    needs_calibration : bool
        Whether activations are int8 in the file, with ranges measured on training images. Without,
        only weights are, and the runtime measures each image's ranges itself (dynamic range).
    """

    name: str
    title: str
    needs_calibration: bool
    extra: str | None = "quantize"
    bounds: Bounds = INT8
    own_process: bool = False

    def check(self, bundle: Bundle) -> None:
        """Raise MissingExtraError without ai-edge-quantizer."""
        require(self.title, self.extra, "ai_edge_quantizer")

    def convert(
        self, bundle: Bundle, folder: Path, calibration: Calibration | None
    ) -> tuple[Path, ...]:
        """Write ``model.tflite``; KindsightError if a convolution is not int8 in it."""
        target = folder / MODEL_FILE
        with tempfile.TemporaryDirectory(prefix="kindsight-") as temporary:
            source, out = Path(temporary, "float.tflite"), Path(temporary, "int8.tflite")
            source.write_bytes(probabilities_tflite(bundle, describe(bundle)))
            pixels = None
            if calibration is not None:
                pixels = Path(temporary, "pixels.npy")
                np.save(pixels, calibration(), allow_pickle=False)
            with converter_process() as process:
                process.run_job(
                    job="quantize", model=str(source), out=str(out), input=PIXELS,
                    signature=SIGNATURE, pixels=None if pixels is None else str(pixels),
                )  # fmt: skip
            content = to_float16(out.read_bytes())
        count = count_convolutions if self.needs_calibration else count_int8_weights
        integer, total = count(content)
        if integer < total:
            raise KindsightError(
                f"{total - integer} of {total} convolutions are not int8 after quantisation. "
                "Export to litert-float16 instead, and report this with the network's name."
            )
        target.write_bytes(content)
        return (target,)

    def open(self, folder: Path) -> LiteRTModel | None:
        """Open ``model.tflite``."""
        return LiteRTModel(folder / MODEL_FILE)

    def runtime(self) -> dict[str, str]:
        """Return the versions of LiteRT and of the quantizer."""
        return version_of("ai-edge-litert", "ai-edge-quantizer")


DYNAMIC_TARGET = QuantizedLiteRT("litert-dynamic", "LiteRT, dynamic range (int8 weights)", False)
INT8_TARGET = QuantizedLiteRT("litert-int8", "LiteRT, int8 convolutions, calibrated", True)
