"""kindsight: an image classifier from a folder of images.

The public names are imported on first use, so that ``import kindsight`` stays fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kindsight.lazy import lazy_names

if TYPE_CHECKING:
    from kindsight.augment import Augment as Augment
    from kindsight.bundle import Bundle as Bundle
    from kindsight.bundle import load_bundle as load_bundle
    from kindsight.checks.split import split_dataset as split_dataset
    from kindsight.classifier import ImageClassifier as ImageClassifier
    from kindsight.dataset import ImageDataset as ImageDataset
    from kindsight.dataset.splits.stratified import random_split as random_split
    from kindsight.diagnosis import Diagnosis as Diagnosis
    from kindsight.evaluation import Evaluation as Evaluation
    from kindsight.evaluation import evaluate as evaluate
    from kindsight.images import InputSpec as InputSpec
    from kindsight.images import read_image as read_image
    from kindsight.images import resize_image as resize_image
    from kindsight.predictor import Prediction as Prediction
    from kindsight.predictor import Predictor as Predictor
    from kindsight.runs.compare import compare as compare
    from kindsight.runs.diagnosing import diagnose as diagnose
    from kindsight.runs.improve import improve as improve
    from kindsight.runs.more_images.learning_curve import learning_curve as learning_curve
    from kindsight.runs.more_images.suggest import suggest as suggest
    from kindsight.runs.reporting.make import make_report as make_report

__version__ = "0.1.0"

_MODULES = {
    "Augment": "augment",
    "Bundle": "bundle",
    "ImageDataset": "dataset",
    "Diagnosis": "diagnosis",
    "Evaluation": "evaluation",
    "ImageClassifier": "classifier",
    "InputSpec": "images",
    "Prediction": "predictor",
    "Predictor": "predictor",
    "split_dataset": "checks.split",
    "compare": "runs.compare",
    "diagnose": "runs.diagnosing",
    "evaluate": "evaluation",
    "improve": "runs.improve",
    "learning_curve": "runs.more_images.learning_curve",
    "load_bundle": "bundle",
    "make_report": "runs.reporting.make",
    "read_image": "images",
    "suggest": "runs.more_images.suggest",
    "resize_image": "images",
    "random_split": "dataset.splits.stratified",
}

__all__ = [*sorted(_MODULES), "__version__"]  # noqa: PLE0604


__getattr__, _ = lazy_names(__name__, _MODULES)


def __dir__() -> list[str]:
    return list(__all__)
