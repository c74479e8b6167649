"""ImageClassifier: an image classifier that follows scikit-learn's contract."""

from __future__ import annotations

from kindsight.classifier.image_classifier import ImageClassifier

__all__ = ["ImageClassifier"]
