"""What a training is told, checked all at once, and kept as TOML so that it can be repeated."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kindsight.dataset import DataOptions
from kindsight.dataset.splits.settings import SplitSettings
from kindsight.errors import SettingsError
from kindsight.files import read_toml, write_text
from kindsight.training.protocols import Trainer
from kindsight.training.trainer import (
    LOGS,
    OPTIONS,
    foreign_options,
    make_training,
    of_use,
)

__all__ = ["TrainSettings"]

CHECKS = ("cheap", "full")
"""What is looked for before a training."""


@dataclass(frozen=True)
class TrainSettings:
    """The settings of ``kindsight train``.

    Parameters
    ----------
    data : str
        A folder of class folders, or of train / validation / test folders of class folders; or
        what else :func:`kindsight.dataset.open_dataset` takes: a table, arrays in a file.
    runs : str
        Where run folders are made.
    run : str, optional
        The run folder's name, in place of the data's name and a number.
    model : str
        A backbone, which is frozen: then the settings are those of
        :class:`kindsight.training.frozen.settings.FrozenTrainer`. Or a network to train from its
        first
        weights, with the settings of :class:`kindsight.training.network.settings.NetworkTrainer`.
    size, resize, class_weight, seed, workers
        As all have them.
    weights
        Of a backbone only.
    head, tta_flips, tta_crops, fine_tune, budget
        Of a frozen backbone only.
    cut, freeze, train_batch_norm, dense, dropout, batch_norm, l2, pooling, phases, cached_copies
        Given with a backbone, any of them means that it learns, with the settings of
        :class:`kindsight.training.transfer.settings.TransferTrainer`.
    filters, dense, dropout, batch_norm, l2, pooling
        The parts of a network.
    epochs, batch_size, augment, mix, optimizer, learning_rate, momentum, weight_decay, schedule,
    warmup, label_smoothing, patience, phases, layer_decay, ema_decay, final_weights, compute_dtype
        Of a network, and of a backbone that learns.
    tensorboard : str, optional
        A folder for TensorBoard's logs of a training of epochs.
    mlflow : bool, optional
        Whether a training of epochs is logged to MLflow.
    validation, test : float
        The share of the images (below 1) or their number (from 1 on) kept for validation and
        for the test, where the folder does not say.
    validation_data, test_data : str, optional
        Data all of whose images are the validation or the test part.
    split, split_by, fold, group_near_duplicates, leakage : optional
        As in :class:`kindsight.dataset.SplitSettings`; `split` is its `file` (such as the
        ``split.csv`` of another run) and `split_by` its `by`.
    check : str, optional
        ``"cheap"``, as it is if omitted, or ``"full"``: all that ``kindsight check`` finds is
        written into the run folder.
    label_from, group_from, columns, label_names, pixel_shape, root
        As in :class:`kindsight.dataset.DataOptions`.

    Raises
    ------
    SettingsError
        Naming every setting that cannot be.
    """

    data: str
    runs: str = "runs"
    run: str | None = None
    model: str = "efficientnet-lite0"
    weights: str | None = None
    cut: str | None = None
    freeze: str | int | None = None
    train_batch_norm: bool | None = None
    size: int | None = None
    resize: str = "crop"
    head: str | None = None
    tta_flips: int | None = None
    tta_crops: int | None = None
    class_weight: str = "none"
    validation: float = 0.2
    test: float = 0.0
    seed: int = 0
    workers: int | None = None
    validation_data: str | None = None
    test_data: str | None = None
    split: str | None = None
    split_by: str | None = None
    fold: str | None = None
    group_near_duplicates: bool | None = None
    leakage: str | None = None
    check: str | None = None
    verify: str | None = None
    label_from: str | None = None
    group_from: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    label_names: Sequence[str] = ()
    pixel_shape: str | None = None
    root: str | None = None
    filters: Sequence[int] | None = None
    dense: Sequence[int] | int | None = None
    dropout: float | None = None
    batch_norm: bool | None = None
    l2: float | None = None
    pooling: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    augment: str | Mapping[str, Any] | None = None
    mix: str | None = None
    cached_copies: int | None = None
    optimizer: str | None = None
    learning_rate: float | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    schedule: str | None = None
    warmup: float | None = None
    label_smoothing: float | None = None
    patience: int | None = None
    phases: Sequence[Mapping[str, Any]] | None = None
    layer_decay: float | None = None
    ema_decay: float | None = None
    final_weights: str | None = None
    compute_dtype: str | None = None
    fine_tune: str | None = None
    budget: str | float | None = None
    tensorboard: str | None = None
    mlflow: bool | None = None

    def __post_init__(self) -> None:
        for name, kind in (("columns", dict), ("label_names", tuple)):
            with contextlib.suppress(TypeError, ValueError):  # said below
                if not isinstance(getattr(self, name), str):
                    object.__setattr__(self, name, kind(getattr(self, name)))
        faults = [
            *foreign_options(self._options()),
            *self.training().faults(),
            *self.data_options().faults(),
            *self.division().faults(),
        ]
        for name in ("data", "runs"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value or "\0" in value:
                faults.append(f"{name} must be a folder. Received: {value!r}.")
        for name in ("validation_data", "test_data"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value or "\0" in value):
                faults.append(f"{name} must be a folder or a file. Received: {value!r}.")
        if self.test_data is not None and self.test:
            faults.append(
                "A test part must be given once. Received: both "
                f"test={self.test} and test_data={self.test_data!r}."
            )
        if self.check not in (None, *CHECKS):
            faults.append(f"check must be one of {', '.join(CHECKS)}. Received: {self.check!r}.")
        if self.run is not None and (
            not isinstance(self.run, str) or Path(self.run).name in ("", "..") or "\0" in self.run
        ):
            faults.append(f"run must be a folder's name. Received: {self.run!r}.")
        if faults:
            raise SettingsError("\n".join(faults))
        # Written out, the defaults of the model's kind mean the same where a later version has
        # others; and so does a policy whose file may change.
        for name, value in self.training().to_dict().items():
            object.__setattr__(self, name, value)

    def division(self) -> SplitSettings:
        """Return the part of the settings that says how the images are divided."""
        return SplitSettings(
            self.validation,
            self.test,
            seed=self.seed,
            by="random" if self.split_by is None else self.split_by,
            fold=self.fold,
            file=self.split,
            group_near_duplicates=False
            if self.group_near_duplicates is None
            else self.group_near_duplicates,
            leakage="drop" if self.leakage is None else self.leakage,
        )

    def data_options(self) -> DataOptions:
        """Return the part of the settings that says how the data are to be read."""
        names = (item.name for item in dataclasses.fields(DataOptions))
        return DataOptions(**{name: getattr(self, name) for name in names})

    def training(self) -> Trainer:
        """Return the part of the settings that says how to train."""
        return make_training({k: v for k, v in self._options().items() if k not in LOGS})

    def _options(self) -> dict[str, Any]:
        """Return the settings that depend on the model, and the model."""
        names = [name for name in (*OPTIONS, *LOGS) if hasattr(self, name)]
        return {name: getattr(self, name) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """Return the settings that are set, as TOML can hold them."""
        given = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in given.items()
            if value is not None and value not in ({}, ())
        }

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the settings as TOML."""
        import tomli_w

        write_text(path, tomli_w.dumps(self.to_dict()))

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str], **given: Any) -> TrainSettings:
        """Read settings from a TOML file.

        Parameters
        ----------
        path : path
            As :meth:`write` writes it, or by hand.
        **given
            Settings that win over the file's. With a model of another kind, the file's settings
            that are of no use to it are left out.

        Raises
        ------
        SettingsError
            For a file that cannot be read, unknown names, and values that cannot be.
        """
        values = read_toml(path, "The settings")
        values = of_use(values, given)
        return cls.from_dict({**values, **given}, os.fspath(path))

    @classmethod
    def from_dict(cls, values: dict[str, Any], source: str = "settings") -> TrainSettings:
        """Make settings of a mapping, naming unknown keys with the nearest right ones."""
        known = [item.name for item in dataclasses.fields(cls)]
        faults = []
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, 1)
                hint = f" Did you mean {near[0]!r}?" if near else f" There are: {', '.join(known)}."
                faults.append(f"{source}: there is no setting {name!r}.{hint}")
        if "data" not in values:
            faults.append(f"{source}: data must say which folder to train on.")
        if faults:
            raise SettingsError("\n".join(faults))
        return cls(**values)
