"""What an export says about its network: classes, resize rule, thresholds."""

from __future__ import annotations

from typing import Any

from kindsight.bundle import Bundle
from kindsight.export.target import OOD_SCORE, PROBABILITIES
from kindsight.models.formats.assemble import PIXELS
from kindsight.models.formats.tflite import read_tflite

__all__ = ["DESCRIPTION_FILE", "FORMAT", "describe"]

DESCRIPTION_FILE = "model.json"

FORMAT = 1


def describe(bundle: Bundle) -> dict[str, Any]:
    """Return the content of ``model.json``.

    Probabilities are calibrated: the network divides its logits by the temperature itself, which is
    here for information. A prediction is unknown where its out-of-distribution score is above
    ``thresholds.unknown``, else unsure where its highest probability is below
    ``thresholds.unsure``; null where there is no such rule.
    """
    parts = bundle.uncertainty
    scored = read_tflite(bundle.tflite).second_output is not None
    return {
        "format": FORMAT,
        "classes": list(bundle.classes),
        "input": {
            "name": PIXELS,
            "shape": [None, *bundle.spec.size, 3],
            "values": "RGB, 0 to 255; scaling is inside the network",
            "resize": bundle.spec.to_dict(),
        },
        "outputs": [PROBABILITIES, OOD_SCORE] if scored else [PROBABILITIES],
        "temperature": bundle.temperature,
        "thresholds": {
            "unsure": parts.get("unsure", {}).get("threshold"),
            "unknown": parts.get("unknown", {}).get("threshold"),
        },
        "backbone": bundle.backbone,
    }
