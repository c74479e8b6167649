"""The settings of a run: validated together, saved as TOML so that the run can be repeated."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kindsight.dataset import DataOptions
from kindsight.dataset.splits.settings import SplitSettings
from kindsight.encoding import escape_name, unescape_name
from kindsight.errors import SettingsError
from kindsight.files import read_toml, write_text
from kindsight.options import OPTIONS
from kindsight.training.network.settings import without_preset
from kindsight.training.option_rules import option_faults, plain_value, unknown_name_fault
from kindsight.training.protocols import Trainer
from kindsight.training.trainer import foreign_options, make_training, of_use
from kindsight.uncertainty.stored import check_targets

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from kindsight.options import TrainOptions

__all__ = ["TrainSettings"]

_KNOWN = tuple(name for name in OPTIONS if name != "cache")
_DEFAULTS: Mapping[str, Any] = {
    **{name: OPTIONS[name].default for name in _KNOWN if not OPTIONS[name].trainers},
    "columns": {},
    "label_names": (),
    **{name: OPTIONS[name].default for name in ("model", "resize", "class_weight", "seed")},
}
"""Defaults that do not depend on the trainer; those of the trainer are added by its settings."""


class TrainSettings:
    """The settings of ``kindsight train``.

    Each is an attribute; omitted ones have their default, or None if the model does not use them.

    Parameters
    ----------
    data : str
        The data: a folder of class folders, or other data for
        :func:`kindsight.dataset.open_dataset`.
    **options
        The options of ``kindsight train`` by name, with underscores; see
        :class:`kindsight.options.TrainOptions`.

    Raises
    ------
    SettingsError
        If settings are wrong; the message names each.
    """

    def __init__(self, data: str | None = None, /, **options: Unpack[TrainOptions]) -> None:
        given: dict[str, Any] = {
            name: plain_value(value) for name, value in options.items() if value is not None
        }
        if data is not None:
            given["data"] = data
        unknown = [unknown_name_fault(name, _KNOWN) for name in given if name not in _KNOWN]
        wrong = option_faults(given)
        self._values = dict(_DEFAULTS)
        self._values |= {k: v for k, v in given.items() if k in _KNOWN and k not in wrong}
        faults = [
            *unknown,
            *wrong.values(),
            *foreign_options({**given, "model": given.get("model", self.model)}),
            *self.training().faults(),
            *self.data_options().faults(),
            *self.split_settings().faults(),
        ]
        if "data" not in given:
            faults.append("`data` must name a folder or a file; got none.")
        faults += self._fold_faults()
        if self.test_data is not None and self.test:
            faults.append(
                f"`test` and `test_data` cannot be combined; got {self.test} and "
                f"{self.test_data!r}. Leave one of them out."
            )
        try:
            check_targets(self.target_accuracy, self.target_coverage)
        except SettingsError as error:
            faults.append(str(error))
        if faults:
            raise SettingsError("\n".join(dict.fromkeys(faults)))
        # The trainer's defaults and the content of an augmentation file are saved, too, so that the
        # run can be repeated after the defaults of a later version, or the file, have changed.
        self._values |= self.training().to_dict()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in OPTIONS:
            raise AttributeError(name)
        return self._values.get(name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TrainSettings) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"TrainSettings({', '.join(f'{k}={v!r}' for k, v in self.to_dict().items())})"

    def split_settings(self, fold: int = 0) -> SplitSettings:
        """Return the settings of the split.

        With `folds`, these are the settings of one fold, from 1, or for 0 those without a
        validation split.
        """
        several = self.folds is not None
        return SplitSettings(
            0.0 if several else self.validation,
            self.test,
            seed=self.seed,
            by=self.split_by,
            fold=f"{fold}/{self.folds}" if fold else self.fold,
            file=self.split,
            group_near_duplicates=self.group_near_duplicates or several,
            leakage=self.leakage,
        )

    def _fold_faults(self) -> list[str]:
        if self.folds is None:
            return []
        found = [
            f"`folds` and `{name}` cannot be combined; got {self.folds} and "
            f"{getattr(self, name)!r}. Leave one of them out."
            for name in ("fold", "validation_data")
            if getattr(self, name) is not None
        ]
        if self.split_by == "date":
            found.append('`folds` cannot be combined with `split_by="date"`: folds are random.')
        return found

    def data_options(self) -> DataOptions:
        """Return the options for reading the data."""
        names = (item.name for item in dataclasses.fields(DataOptions))
        values: dict[str, Any] = {name: self._values.get(name) for name in names}
        return DataOptions(**values)

    def training(self) -> Trainer:
        """Return the trainer."""
        return make_training(self._values)

    def to_dict(self) -> dict[str, Any]:
        """Return all settings that have a value, as TOML values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name in _KNOWN
            if (value := self._values.get(name)) is not None
            and value not in ({}, ())
            and (value is not False or OPTIONS[name].trainers or OPTIONS[name].default)
        }

    def with_options(self, **changes: Any) -> TrainSettings:
        """Return these settings with some changed."""
        return TrainSettings(**{**without_preset(self.to_dict(), changes), **changes})

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the settings as TOML."""
        import tomli_w

        write_text(path, tomli_w.dumps(_with_paths(self.to_dict(), escape_name)))

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str], **given: Any) -> TrainSettings:
        """Read settings from a TOML file.

        Parameters
        ----------
        path : path
            Written by :meth:`write` or by hand.
        **given
            Settings that override the file's. With another kind of model, settings of the file
            that do not apply to it are ignored.

        Raises
        ------
        SettingsError
            If the file cannot be read, or settings are unknown or wrong; the message names each.
        """
        values = of_use(_with_paths(read_toml(path, "The settings"), unescape_name), given)
        try:
            return cls(**{**values, **given})
        except SettingsError as error:
            raise SettingsError(f"{Path(path)}: {_as_in_file(str(error), given)}") from None


def _with_paths(values: Mapping[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """Return settings whose paths were escaped for a file, or unescaped."""
    return {
        name: change(value)
        if isinstance(value, str) and name in OPTIONS and OPTIONS[name].path
        else value
        for name, value in values.items()
    }


def _as_in_file(text: str, given: Collection[str]) -> str:
    """Return a message that names settings as in the file, except for the given ones."""
    return re.sub(r"`(\w+)`", lambda found: found[0] if found[1] in given else found[1], text)
