"""The prediction for one image, and whether it gets a label, by the rules of a bundle."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kindsight.bundle import JSON_FILE, Bundle
from kindsight.encoding import short
from kindsight.errors import BundleError, ImageError, SettingsError, UsageError

__all__ = ["Decisions", "Prediction", "Reason"]

CLIPPED = 0.001
"""Fraction of an image's samples outside of the range of values from which it counts as clipped."""

Reason: TypeAlias = Literal["", "unsure", "unknown"]
"""Why a prediction has no label."""


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image, or the reason why there is none.

    The most probable class is always in :attr:`best`; :attr:`label` is None where the classifier
    does not decide, for the reason in `reason`.

    Parameters
    ----------
    path : str
        As given.
    classes : tuple of str
    logits : array or None
        float32 (classes,); None for an unreadable image.
    probabilities : array or None
        float32 (classes,), 0 to 1, with sum 1.
    error : ImageError or None
        Why there is no prediction.
    clipped : float
        Fraction of the image's samples of more than 8 bits that are outside of the range on which
        the classifier was trained, 0 to 1; 1 if it was trained on images of 8 bits and the file
        does not state its depth.
    reason : {"", "unsure", "unknown"}
        Why there is no label: ``"unsure"`` below the threshold of confidence, ``"unknown"`` for an
        image unlike those of the training; empty if there is a label, or an error.
    ood_score : float or None
        Out-of-distribution score: higher for images less like those of the training; None if the
        classifier has none.
    prediction_set : tuple of str or None
        The classes of the prediction set, most probable first; None if none was requested.
    """

    path: str
    classes: tuple[str, ...]
    logits: NDArray[np.float32] | None = None
    probabilities: NDArray[np.float32] | None = None
    error: ImageError | None = None
    clipped: float = 0.0
    reason: Reason = ""
    ood_score: float | None = None
    prediction_set: tuple[str, ...] | None = None

    @property
    def label(self) -> str | None:
        """The most probable class; None where the classifier does not decide."""
        return None if self.reason else self.best

    @property
    def best(self) -> str | None:
        """The most probable class; None only for an unreadable image."""
        if self.probabilities is None:
            return None
        return self.classes[int(self.probabilities.argmax())]

    @property
    def confidence(self) -> float | None:
        """The probability of the most probable class, 0 to 1."""
        return None if self.probabilities is None else float(self.probabilities.max())

    @property
    def is_clipped(self) -> bool:
        """Whether at least a thousandth of the samples is outside of the training's range."""
        return self.clipped >= CLIPPED

    def top(self, count: int) -> list[tuple[str, float]]:
        """Return the `count` most probable classes with their probabilities."""
        if self.probabilities is None:
            return []
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(self.classes[index], float(self.probabilities[index])) for index in order]

    def to_dict(self, top: int | None = None) -> dict[str, Any]:
        """Return a JSON object: path, label, reason, confidence and more; null without a value.

        Its probabilities are of the `top` most probable classes in their order, or of all in the
        classifier's. Numbers are rounded to the nine digits that identify a float32.
        """
        error, confidence, score = self.error, self.confidence, self.ood_score
        probabilities = None
        if self.probabilities is not None and top is None:
            shares = zip(self.classes, self.probabilities.tolist(), strict=True)
            probabilities = {name: short(share) for name, share in shares}
        elif self.probabilities is not None and top is not None:
            probabilities = {name: short(share) for name, share in self.top(top)}
        found = self.prediction_set
        return {
            "path": self.path,
            "label": self.label,
            "reason": self.reason or None,
            "best": self.best,
            "confidence": None if confidence is None else short(confidence),
            "ood_score": None if score is None else short(score),
            "prediction_set": None if found is None else list(found),
            "probabilities": probabilities,
            "error": None if error is None else {"code": error.code, "message": error.reason},
        }


@dataclass(frozen=True)
class Decisions:
    """The rules by which a prediction gets a label or a reason, and a set.

    Parameters
    ----------
    threshold : float or None
        Confidence below which a prediction is unsure.
    unknown : float or None
        Out-of-distribution score from which an image is unknown.
    quantiles : array or None
        float64 (classes,): conformity scores up to which a class is in a prediction set.
    note : str
        A sentence for the user on a target of the training that has no threshold.
    """

    threshold: float | None = None
    unknown: float | None = None
    quantiles: NDArray[np.float64] | None = None
    note: str = ""

    @property
    def withholds(self) -> bool:
        """Whether a prediction may have no label."""
        return self.threshold is not None or self.unknown is not None

    @classmethod
    def load(
        cls,
        bundle: Bundle,
        *,
        always: bool = False,
        target_accuracy: float | None = None,
        target_coverage: float | None = None,
        sets: float | None = None,
        sets_per_class: bool | None = None,
    ) -> Decisions:
        """Return the rules of a bundle; arguments as of :class:`kindsight.Predictor`."""
        asked = target_accuracy is not None or target_coverage is not None
        if always and asked:
            raise SettingsError(
                "`always`, which labels every image, excludes `target_accuracy` and "
                "`target_coverage`. Leave one of them out."
            )
        parts = bundle.uncertainty
        try:
            quantiles = _quantiles(bundle, parts, sets, sets_per_class)
            if always:
                return cls(quantiles=quantiles)
            unknown = _number(parts.get("unknown", {}), "threshold")
            if asked:
                threshold, note = _new_threshold(bundle, parts, target_accuracy, target_coverage)
            else:
                threshold, note = _stored_threshold(parts.get("unsure", {}))
        except UsageError as error:
            if isinstance(error, SettingsError):
                raise
            raise BundleError(f"{bundle.folder / JSON_FILE} is invalid: {error}") from error
        return cls(threshold, unknown, quantiles, note)

    def decide(self, prediction: Prediction) -> Prediction:
        """Return a prediction with its reason and its set, where there are rules for them."""
        reason: Reason = ""
        score, confidence = prediction.ood_score, prediction.confidence
        if self.unknown is not None and score is not None and score > self.unknown:
            reason = "unknown"
        elif self.threshold is not None and confidence is not None and confidence < self.threshold:
            reason = "unsure"
        found = None if self.quantiles is None else self._set(prediction, self.quantiles)
        if not reason and found is None:
            return prediction
        return replace(prediction, reason=reason, prediction_set=found)

    def _set(self, prediction: Prediction, quantiles: NDArray[np.float64]) -> tuple[str, ...]:
        # Imported here so that predicting without sets starts quickly.
        from kindsight.evaluation.conformal import ConformalSets

        assert prediction.probabilities is not None
        inside = ConformalSets.contains(prediction.probabilities, quantiles)
        order = np.argsort(-prediction.probabilities, kind="stable")
        return tuple(prediction.classes[index] for index in order if inside[index])


def _quantiles(
    bundle: Bundle, parts: dict[str, Any], level: float | None, per_class: bool | None
) -> NDArray[np.float64] | None:
    """Return the quantiles of a level from the bundle's held-out scores."""
    if level is None:
        return None
    from kindsight.evaluation.conformal import check_level
    from kindsight.uncertainty.stored import StoredSets

    check_level(level, "sets")
    if "sets" not in parts:
        use = ", or use ImageClassifier.conformalize and predict_set with labelled images"
        raise SettingsError(_missing(bundle, "prediction sets", use))
    stored = StoredSets.from_dict(parts["sets"], len(bundle.classes)).sets
    if per_class is not None:
        stored = replace(stored, per_class=per_class)
    return stored.quantiles(level)


def _new_threshold(
    bundle: Bundle, parts: dict[str, Any], accuracy: float | None, coverage: float | None
) -> tuple[float | None, str]:
    """Return the threshold for a target other than the training's; SettingsError without one."""
    from kindsight.uncertainty.stored import Unsure

    if "unsure" not in parts:
        raise SettingsError(_missing(bundle, "a threshold of confidence"))
    unsure = Unsure.from_dict(parts["unsure"]).with_target(accuracy, coverage)
    if fault := unsure.fault():
        raise SettingsError(fault)
    return unsure.threshold, ""


def _stored_threshold(part: dict[str, Any]) -> tuple[float | None, str]:
    """Return the training's threshold; a note where its target has none."""
    threshold = _number(part, "threshold")
    if threshold is not None or _number(part, "target_accuracy") is None:
        return threshold, ""
    from kindsight.uncertainty.stored import Unsure

    return None, f"{Unsure.from_dict(part).fault()} Every image gets a label."


def _number(part: dict[str, Any], name: str) -> float | None:
    value = part.get(name)
    if value is None:
        return None
    if type(value) not in (int, float) or not np.isfinite(value):
        raise UsageError(f"{name!r} must be a number or null; got {str(value)[:80]!r}.")
    return float(value)


def _missing(bundle: Bundle, what: str, use: str = "") -> str:
    return (
        f"{bundle.folder} has no held-out predictions, which {what} are measured on: it was "
        f"trained by an older kindsight, or without validation images. Train again{use}."
    )
