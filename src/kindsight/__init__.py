"""kindsight: point it at a folder of pictures; get a classifier you can trust.

The names below are imported when they are first used, so that ``import kindsight`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kindsight.lazy import lazy_names

if TYPE_CHECKING:
    from kindsight.augment import Augment as Augment
    from kindsight.bundle import Bundle as Bundle
    from kindsight.bundle import load_bundle as load_bundle
    from kindsight.catalog import Catalog as Catalog
    from kindsight.catalog.dividing import divide_catalog as divide_catalog
    from kindsight.catalog.split import split_catalog as split_catalog
    from kindsight.classifier import ImageClassifier as ImageClassifier
    from kindsight.evaluation import Evaluation as Evaluation
    from kindsight.evaluation import evaluate as evaluate
    from kindsight.pictures import InputSpec as InputSpec
    from kindsight.pictures import read_picture as read_picture
    from kindsight.pictures import resize_picture as resize_picture
    from kindsight.predictor import Prediction as Prediction
    from kindsight.predictor import Predictor as Predictor

__version__ = "0.1.0"

_HOMES = {
    "Augment": "augment",
    "Bundle": "bundle",
    "Catalog": "catalog",
    "Evaluation": "evaluation",
    "ImageClassifier": "classifier",
    "InputSpec": "pictures",
    "Prediction": "predictor",
    "Predictor": "predictor",
    "divide_catalog": "catalog.dividing",
    "evaluate": "evaluation",
    "load_bundle": "bundle",
    "read_picture": "pictures",
    "resize_picture": "pictures",
    "split_catalog": "catalog.split",
}

__all__ = [*sorted(_HOMES), "__version__"]  # noqa: PLE0604


__getattr__, _ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return list(__all__)
