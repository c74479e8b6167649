"""The table of trainers, and which settings select which.

A new way of training is one package with its settings and its ``prepare`` function, and one line in
:data:`KINDS`. Runs, reports and classifiers know the protocols in :mod:`.protocols` alone.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from kindsight.dataset import ImageDataset
from kindsight.models.backbones.table import BACKBONES
from kindsight.models.networks.small_cnn import NETWORKS
from kindsight.models.worker.process import KerasProcess, require_training_packages
from kindsight.options import OPTIONS
from kindsight.training.common import Progress
from kindsight.training.frozen.prepared import prepare_frozen
from kindsight.training.frozen.settings import FrozenTrainer
from kindsight.training.network.settings import preset_settings, without_preset
from kindsight.training.protocols import Prepared, Trainer

if TYPE_CHECKING:
    from kindsight.models.networks.small_cnn import LayerRow
    from kindsight.training.engine.learning_rate_finder import RateSweep
    from kindsight.training.network.settings import NetworkTrainer
    from kindsight.training.transfer.settings import TransferTrainer

__all__ = ["Kind", "foreign_options", "kind_of", "make_training", "of_use", "prepare"]

MODELS = (*BACKBONES, *NETWORKS)
"""Names that ``model`` accepts, in addition to ``.keras`` files."""

Settings: TypeAlias = "FrozenTrainer | NetworkTrainer | TransferTrainer"


class Code(NamedTuple):
    """The code of one kind of training.

    - `settings`: the dataclass of its settings, a :class:`.protocols.Trainer`.
    - `prepare`: from (trainer, dataset, progress, keras) to :class:`.protocols.Prepared`.
    - `layers`: from (trainer, classes, keras, progress) to the table of layers; None where no layer
      is trained by gradient.
    - `find_rate`: from (prepared, classes, rows, keras, progress) to the result of the
      learning-rate finder; None where there is none.
    """

    settings: type[Settings]
    prepare: Callable[..., Prepared]
    layers: Callable[..., tuple[LayerRow, ...]] | None = None
    find_rate: Callable[..., RateSweep] | None = None


@dataclass(frozen=True)
class Kind:
    """One kind of training.

    Parameters
    ----------
    name : str
        As in :attr:`kindsight.options.Option.trainers`.
    description : str
        What it trains, for messages.
    load : callable
        Imports and returns its code: forty modules for a network, which no other kind needs.
    """

    name: str
    description: str
    load: Callable[[], Code]

    @cached_property
    def code(self) -> Code:
        """Its code, imported on first use."""
        return self.load()

    @property
    def options(self) -> tuple[str, ...]:
        """The names of its options."""
        return tuple(name for name, option in OPTIONS.items() if self.name in option.trainers)


def _frozen() -> Code:
    return Code(FrozenTrainer, _prepare_backbone)


def _prepare_backbone(training: FrozenTrainer, *arguments: Any) -> Prepared:
    """Return frozen features, from which the backbone is then fine-tuned where that is wanted."""
    if training.fine_tune_mode == "off":
        return prepare_frozen(training, *arguments)
    from kindsight.training.budget.run import prepare_fine_tuning

    return prepare_fine_tuning(training, *arguments)


def _network() -> Code:
    from kindsight.training.network.fit import NetworkImages, network_layers, prepare_network
    from kindsight.training.network.settings import NetworkTrainer

    return Code(NetworkTrainer, prepare_network, network_layers, NetworkImages.find_rate)


def _transfer() -> Code:
    from kindsight.training.network.fit import NetworkImages
    from kindsight.training.transfer.fit import describe_layers, prepare_transfer
    from kindsight.training.transfer.settings import TransferTrainer

    return Code(TransferTrainer, prepare_transfer, describe_layers, NetworkImages.find_rate)


FROZEN = Kind("frozen", "a frozen backbone", _frozen)
NETWORK = Kind("network", f"a network from scratch ({', '.join(NETWORKS)})", _network)
TRANSFER = Kind(
    "transfer",
    "a backbone trained by epochs (with freeze, cut, dense or dropout)",
    _transfer,
)
KINDS = (FROZEN, NETWORK, TRANSFER)
"""Every way of training."""

# The options of any kind; the others are of the run as a whole.
_OF_TRAINERS = {name for name, option in OPTIONS.items() if option.trainers}


def prepare(
    trainer: Trainer,
    dataset: ImageDataset,
    progress: Progress | None = None,
    keras: KerasProcess | None = None,
) -> Prepared:
    """Compute or load from the cache what a trainer needs of a dataset.

    Parameters
    ----------
    trainer : Trainer
    dataset : ImageDataset
    progress : callable, optional
        Called with (stage, done, total).
    keras : KerasProcess, optional
        Worker process for a backbone that has to be built.

    Raises
    ------
    MissingExtraError
        If packages that training needs are not installed.
    """
    require_training_packages()
    kind = next(kind for kind in KINDS if type(trainer) is kind.code.settings)
    if dataset.value_range is not None:
        trainer = replace(trainer, value_range=dataset.value_range)  # type: ignore[type-var]
    return kind.code.prepare(trainer, dataset, progress, keras)


def make_training(options: Mapping[str, Any]) -> Settings:
    """Return the trainer that the options select; options of other kinds and None are ignored.

    A network's name selects its own kind. A backbone is trained by gradient where any option with
    :attr:`~kindsight.options.Option.selects` is given, and is frozen otherwise.
    """
    kind = kind_of(options)
    given = {name: value for name, value in options.items() if value is not None}
    if kind is NETWORK:
        given = preset_settings(given)
    return kind.code.settings(
        **{name: value for name, value in given.items() if name in kind.options}
    )


def foreign_options(options: Mapping[str, Any]) -> list[str]:
    """Return one sentence for the given options that the selected kind does not take."""
    kind = kind_of(options)
    foreign = [
        name
        for name, value in options.items()
        if value is not None and name in _OF_TRAINERS and name not in kind.options
    ]
    if not foreign:
        return []
    takers = [
        other.description
        for other in KINDS
        if other is not kind and not set(other.options).isdisjoint(foreign)
    ]
    verb, them = ("applies", "it") if len(foreign) == 1 else ("apply", "them")
    cure = "or choose another model"
    if kind is FROZEN:
        cure = "or choose another model"
        if set(foreign) <= set(TRANSFER.options):
            cure = 'choose another model, or train the backbone by epochs (such as `freeze="all"`)'
    elif kind is TRANSFER:
        taken_by_frozen = set(foreign) <= set(FROZEN.options)
        cure = "or leave out `freeze`, `cut` and the other options of training by epochs"
        cure = cure if taken_by_frozen else "or choose another model"
    names = ", ".join(f"`{name}`" for name in foreign)
    return [
        f"{names} {verb} only to {' or '.join(takers)}; the model is "
        f"{options.get('model')!r}, {kind.description}. Leave {them} out, {cure}."
    ]


def of_use(values: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a file's settings without those that the given ones make inapplicable.

    With a model of another kind, the file's settings for its own kind are dropped; with another
    preset, those that the preset decides.
    """
    values = without_preset(values, given)
    if "model" not in given:
        return values
    network = kind_of({"model": given["model"]}) is NETWORK
    same = network == (kind_of({"model": values.get("model")}) is NETWORK)
    kind = kind_of({**values, **given} if same else given)
    return {k: v for k, v in values.items() if k not in _OF_TRAINERS or k in kind.options}


def kind_of(options: Mapping[str, Any]) -> Kind:
    """Return the way of training that the options select."""
    model = options.get("model")
    if model in NETWORKS:
        return NETWORK
    if isinstance(model, str) and model not in BACKBONES and not model.endswith(".keras"):
        # A misspelled network name is checked against, and refused with, a network's settings.
        near = difflib.get_close_matches(model, MODELS, 1)
        if near and near[0] in NETWORKS:
            return NETWORK
    trainable = any(
        options.get(name) is not None
        for name, option in OPTIONS.items()
        if option.selects and name != "phases"
    )
    return TRANSFER if trainable or options.get("phases") else FROZEN
