"""The kinds of training, and which model is of which kind.

Two kinds stand: a frozen backbone with a head (:mod:`.frozen`), and a network that is trained from
its first weights (:mod:`.network`). Each is a frozen dataclass of settings, from which come the
prepared pictures, and from these what was fitted; a run and a classifier use all three without
knowing the kind.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeAlias

from kindsight.catalog import Catalog
from kindsight.models.backbones import BACKBONES
from kindsight.models.keras_process import KerasProcess
from kindsight.training.common import Progress
from kindsight.training.frozen import FittedFrozen, FrozenTraining
from kindsight.training.frozen_pictures import FrozenPictures, prepare_frozen
from kindsight.training.network import NETWORKS, NetworkTraining
from kindsight.training.network_fit import FittedNetwork, NetworkPictures, prepare_network
from kindsight.training.tuning import FittedTuned

__all__ = [
    "LOGS",
    "MODELS",
    "OPTIONS",
    "Fitted",
    "Pictures",
    "Training",
    "coming_download",
    "foreign_options",
    "make_training",
    "prepare",
]

Training: TypeAlias = FrozenTraining | NetworkTraining
Pictures: TypeAlias = FrozenPictures | NetworkPictures
Fitted: TypeAlias = FittedFrozen | FittedNetwork | FittedTuned

MODELS = (*BACKBONES, *NETWORKS)
"""What ``model`` may be."""

_KINDS: tuple[type[FrozenTraining] | type[NetworkTraining], ...] = (FrozenTraining, NetworkTraining)
_NAMES = {kind: tuple(item.name for item in fields(kind)) for kind in _KINDS}

LOGS = ("tensorboard", "mlflow")
"""What a run of a network can be told besides."""

OPTIONS = tuple(dict.fromkeys(name for names in _NAMES.values() for name in names))
"""The settings of all kinds."""


def make_training(options: Mapping[str, Any]) -> Training:
    """Make the settings of the kind that the model is of; those that are None as if left out.

    Parameters
    ----------
    options : mapping
        By name; those of another kind are left out: :func:`foreign_options` tells of them.
    """
    kind = _kind(options.get("model"))
    given = {name: value for name, value in options.items() if value is not None}
    return kind(**{name: value for name, value in given.items() if name in _NAMES[kind]})


def foreign_options(options: Mapping[str, Any]) -> list[str]:
    """Return one sentence for all options that are not of the chosen model's kind."""
    model = options.get("model")
    frozen = _kind(model) is FrozenTraining
    others = {*OPTIONS, *LOGS} - {*_NAMES[_kind(model)], *(() if frozen else LOGS)}
    foreign = [name for name, value in options.items() if value is not None and name in others]
    if not foreign:
        return []
    which = f"a network trained from its first weights ({', '.join(NETWORKS)})"
    takers = which if frozen else "a frozen backbone"
    verb, them = ("is a setting", "it") if len(foreign) == 1 else ("are settings", "them")
    return [
        f"{', '.join(foreign)} {verb} of {takers}. Received: {them} with the model {model}. Leave "
        f"{them} out, or choose another model."
    ]


def _kind(model: object) -> type[FrozenTraining] | type[NetworkTraining]:
    if model in NETWORKS:
        return NetworkTraining
    if not isinstance(model, str) or model in BACKBONES or model.endswith(".keras"):
        return FrozenTraining
    # A name that is nearest to a network's is held to the network's settings, and refused there.
    near = difflib.get_close_matches(model, MODELS, 1)
    return NetworkTraining if near and near[0] in NETWORKS else FrozenTraining


def coming_download(training: Training) -> str | None:
    """Say what a training would download, from whom and how large; None for nothing."""
    return training.download() if isinstance(training, FrozenTraining) else None


def prepare(
    training: Training,
    catalog: Catalog,
    progress: Progress | None = None,
    keras: KerasProcess | None = None,
) -> Pictures:
    """Read a catalog's pictures as a kind of training needs them.

    Parameters
    ----------
    training : Training
    catalog : Catalog
    progress : callable, optional
    keras : KerasProcess, optional
        Where a backbone is built, if it has to be.
    """
    if isinstance(training, NetworkTraining):
        return prepare_network(training, catalog, progress)
    return prepare_frozen(training, catalog, progress, keras)
