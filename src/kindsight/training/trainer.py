"""The kinds of training, and which settings mean which.

Three kinds stand: a frozen backbone with a head (:mod:`.frozen`), a network that is trained from
its first weights (:mod:`.network`), and a backbone whose layers learn as the user says
(:mod:`.transfer`). Each is a frozen dataclass of settings, from which come the prepared images,
and from these what was fitted; a run and a classifier use all of them without knowing the kind.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeAlias

from kindsight.dataset import ImageDataset
from kindsight.models.backbones.table import BACKBONES
from kindsight.models.worker.process import KerasProcess
from kindsight.training.common import Progress
from kindsight.training.fine_tuning.settings import FittedFineTuned
from kindsight.training.frozen.fitted import FittedFrozenHead
from kindsight.training.frozen.prepared import FrozenImages, prepare_frozen
from kindsight.training.frozen.settings import FrozenTrainer
from kindsight.training.network.fit import NetworkImages, prepare_network
from kindsight.training.network.fitted import FittedNetwork
from kindsight.training.network.settings import NETWORKS, NetworkTrainer
from kindsight.training.transfer.fit import TransferImages, prepare_transfer
from kindsight.training.transfer.settings import CHOICES, TransferTrainer

__all__ = [
    "LOGS",
    "MODELS",
    "OPTIONS",
    "Fitted",
    "Images",
    "Training",
    "coming_download",
    "foreign_options",
    "make_training",
    "of_use",
    "prepare",
]

Training: TypeAlias = FrozenTrainer | NetworkTrainer | TransferTrainer
Images: TypeAlias = FrozenImages | NetworkImages | TransferImages
Fitted: TypeAlias = FittedFrozenHead | FittedNetwork | FittedFineTuned

MODELS = (*BACKBONES, *NETWORKS)
"""What ``model`` may be."""

LOGS = ("tensorboard", "mlflow")
"""What a run of epochs can be told besides."""

_Kind: TypeAlias = type[FrozenTrainer] | type[NetworkTrainer] | type[TransferTrainer]
_KINDS: tuple[_Kind, ...] = (FrozenTrainer, NetworkTrainer, TransferTrainer)
_NAMES = {kind: tuple(item.name for item in fields(kind)) for kind in _KINDS}
_WORDS: dict[_Kind, str] = {
    FrozenTrainer: "a frozen backbone",
    NetworkTrainer: f"a network trained from its first weights ({', '.join(NETWORKS)})",
    TransferTrainer: "a backbone that learns (with freeze, cut, or a head of your own)",
}

OPTIONS = tuple(dict.fromkeys(name for names in _NAMES.values() for name in names))
"""The settings of all kinds."""


def make_training(options: Mapping[str, Any]) -> Training:
    """Make the settings of the kind that is meant; those that are None as if left out.

    Parameters
    ----------
    options : mapping
        By name. A network's model is of its own kind. A backbone learns where any of
        :data:`.transfer.CHOICES` is among them, and is frozen where none is. Options of another
        kind are left out: :func:`foreign_options` tells of them.
    """
    kind = _kind(options)
    given = {name: value for name, value in options.items() if value is not None}
    return kind(**{name: value for name, value in given.items() if name in _NAMES[kind]})


def foreign_options(options: Mapping[str, Any]) -> list[str]:
    """Return one sentence for all options that are not of the kind that is meant."""
    kind, every = _kind(options), {*OPTIONS, *LOGS}
    taken = _taken(kind, options)
    foreign = [
        name
        for name, value in options.items()
        if value is not None and name in every and name not in taken
    ]
    if not foreign:
        return []
    takers = [other for other in _KINDS if not {*_NAMES[other], *LOGS}.isdisjoint(foreign)]
    takers = [other for other in takers if other is not kind]
    verb, them = ("is a setting", "it") if len(foreign) == 1 else ("are settings", "them")
    way = "or choose another model"
    if kind is FrozenTrainer:
        way = "choose another model, or say what of the backbone learns (freeze all, for one)"
    return [
        f"{', '.join(foreign)} {verb} of {' or '.join(_WORDS[other] for other in takers)}. "
        f"Received: {them} with the model {options.get('model')}. Leave {them} out, {way}."
    ]


def _taken(kind: _Kind, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the options of a kind; a frozen backbone has epochs to log where it is fine-tuned."""
    if kind is not FrozenTrainer:
        return (*_NAMES[kind], *LOGS)
    tunes = options.get("fine_tune") not in (None, "off") or options.get("budget") is not None
    return (*_NAMES[kind], *(LOGS if tunes else ()))


def of_use(values: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a file's settings that are of use where others are given besides.

    Parameters
    ----------
    values : mapping
        The file's.
    given : mapping
        Those that win. With a model of another kind the file's choices for its own are left out.
    """
    if "model" not in given:
        return dict(values)
    model = given["model"]
    network = _kind({"model": model}) is NetworkTrainer
    same = network == (_kind({"model": values.get("model")}) is NetworkTrainer)
    kind = _kind({**values, **given} if same else given)
    known, taken = {*OPTIONS, *LOGS}, _taken(kind, {**values, **given})
    return {k: v for k, v in values.items() if k not in known or k in taken}


def _kind(options: Mapping[str, Any]) -> _Kind:
    model = options.get("model")
    if model in NETWORKS:
        return NetworkTrainer
    if isinstance(model, str) and model not in BACKBONES and not model.endswith(".keras"):
        # A name that is nearest to a network's is held to the network's settings, and refused.
        near = difflib.get_close_matches(model, MODELS, 1)
        if near and near[0] in NETWORKS:
            return NetworkTrainer
    learns = any(options.get(name) is not None for name in CHOICES if name != "phases")
    return TransferTrainer if learns or options.get("phases") else FrozenTrainer


def coming_download(training: Training) -> str | None:
    """Say what a training would download, from whom and how large; None for nothing."""
    return None if isinstance(training, NetworkTrainer) else training.download()


def prepare(
    training: Training,
    dataset: ImageDataset,
    progress: Progress | None = None,
    keras: KerasProcess | None = None,
) -> Images:
    """Read a dataset's images as a kind of training needs them.

    Parameters
    ----------
    training : Training
    dataset : ImageDataset
    progress : callable, optional
    keras : KerasProcess, optional
        Where a backbone is built, if it has to be.
    """
    if isinstance(training, TransferTrainer):
        return prepare_transfer(training, dataset, progress, keras)
    if isinstance(training, NetworkTrainer):
        return prepare_network(training, dataset, progress)
    return prepare_frozen(training, dataset, progress, keras)
