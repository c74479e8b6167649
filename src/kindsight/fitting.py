"""What an estimator's parameters mean, and which pictures it learns from and is judged by."""

from __future__ import annotations

from typing import Any

from kindsight.catalog import Catalog
from kindsight.catalog.split import split_catalog
from kindsight.errors import SettingsError
from kindsight.training.by_epochs import EpochTraining
from kindsight.training.frozen import FrozenTraining
from kindsight.training.kinds import Training, foreign_options, make_training
from kindsight.training.rules import number_fault

__all__ = ["chosen_training", "learned_from", "parted"]

VALIDATION = 0.1
"""The share of the pictures by which a network is judged, where nothing else is said."""

# What the model has no use for is ignored where it says nothing: "auto" is no choice.
_SAYS_NOTHING = {"head": "auto", "weights": "imagenet", "views": 1, "crops": 1}


def chosen_training(params: dict[str, Any]) -> Training:
    """Return the training that an estimator's parameters describe.

    Parameters
    ----------
    params : dict
        As ``ImageClassifier.get_params`` returns them.

    Raises
    ------
    SettingsError
        For parameters outside what they take, or that the model has no use for.
    """
    validation = params["validation"]
    params = {name: value for name, value in params.items() if name != "validation"}
    if isinstance(make_training(params), EpochTraining):
        said = {name: value for name, value in params.items() if _SAYS_NOTHING.get(name) != value}
        params = {**dict.fromkeys(params), **said}
    faults = foreign_options(params)
    training = make_training(params)
    frozen = isinstance(training, FrozenTraining) and training.tunes == "off"
    if validation is not None and frozen:
        faults.append(
            "validation is a setting of a network that learns. Received: it "
            f"with the model {params['model']}. A backbone's head is chosen by cross-validation; "
            "fine_tune, or a budget, needs a validation part."
        )
    if validation is not None:
        faults += filter(None, [number_fault("validation", validation, 0, 1)])
    if faults:
        raise SettingsError("\n".join([*faults, *training.faults()]))
    return training


def learned_from(catalog: Catalog, network: bool) -> Catalog:
    """Leave out the parts of a catalog that a training has no use for.

    Parameters
    ----------
    catalog : Catalog
        With or without splits; without, all of it is learned from.
    network : bool
        Whether it is a network that learns, which a validation part is of use for.
    """
    if all(split is None for split in catalog.split):
        return catalog
    wanted = ("train", "validation") if network else ("train",)
    return catalog[[split in wanted for split in catalog.split]]


def parted(catalog: Catalog, validation: float | None, seed: int) -> Catalog:
    """Keep a part of what a network learns from for its validation.

    Parameters
    ----------
    catalog : Catalog
        One with splits stays as it is.
    validation : float or None
        The part's share, 0 for none; :data:`VALIDATION` if None.
    seed : int
        Of the drawing.
    """
    share = VALIDATION if validation is None else validation
    if any(catalog.split) or not share:
        return catalog
    return split_catalog(catalog, validation=share, seed=seed)
