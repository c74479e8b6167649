"""The settings of ``kindsight check``, from options or a TOML file."""

from __future__ import annotations

import dataclasses
import difflib
import os
from dataclasses import dataclass

from kindsight.checks.apply import RELABEL_CONFIDENCE
from kindsight.checks.rules import validate_codes
from kindsight.errors import SettingsError
from kindsight.files import read_toml

__all__ = ["CheckSettings"]


@dataclass(frozen=True)
class CheckSettings:
    """Settings of a check.

    Parameters
    ----------
    ignore : tuple of str
        Codes of checks to skip, such as ``KS203``; the report lists them.
    full : bool
        Run the checks that need features of all images, too.
    model : str
        Backbone that computes the features.
    size : int, optional
        Height and width of the backbone's input in pixels. Default: that of the backbone, or for
        small images the one that a training chooses.
    workers : int, optional
        Images processed at once. Default: the number of cores.
    relabel_confidence : float
        Least probability of a suggested label for the corrected table to have it, 0-1.

    Raises
    ------
    SettingsError
        If `ignore`, `full` or `relabel_confidence` is invalid.
    """

    ignore: tuple[str, ...] = ()
    full: bool = False
    model: str = "efficientnet-lite0"
    size: int | None = None
    workers: int | None = None
    relabel_confidence: float = RELABEL_CONFIDENCE

    def __post_init__(self) -> None:
        given: object = self.ignore
        if not isinstance(given, (tuple, list)) or not all(isinstance(c, str) for c in given):
            raise SettingsError(
                f'`ignore` must be a list of check codes, such as ["KS203"]; got {given!r}.'
            )
        object.__setattr__(self, "ignore", tuple(sorted(set(self.ignore))))
        validate_codes(self.ignore)
        if not isinstance(self.full, bool):
            raise SettingsError(f"`full` must be true or false; got {self.full!r}.")
        least: object = self.relabel_confidence
        if isinstance(least, bool) or not isinstance(least, (int, float)) or not 0 < least <= 1:
            raise SettingsError(
                "`relabel_confidence` must be a probability above 0 and at most 1, such as 0.9; "
                f"got {least!r}."
            )

    @classmethod
    def from_toml(
        cls, path: str | os.PathLike[str], *, ignore: tuple[str, ...] = (), full: bool = False
    ) -> CheckSettings:
        """Read settings from a TOML file, such as ``ignore = ["KS203"]`` and ``full = true``.

        Parameters
        ----------
        path : path
        ignore : tuple of str
            Codes to add to those of the file.
        full : bool
            True overrides the file.

        Raises
        ------
        SettingsError
            If the file cannot be read or contains unknown or invalid settings.
        """
        source, values = os.fspath(path), read_toml(path, "The settings")
        known = [field.name for field in dataclasses.fields(cls)]
        faults = []
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, 1)
                hint = f"Did you mean {near[0]!r}?" if near else f"Settings: {', '.join(known)}."
                faults.append(f"{source}: unknown setting {name!r}. {hint}")
        listed = values.get("ignore", [])
        if not isinstance(listed, list):
            faults.append(
                f'{source}: ignore must be a list of codes, such as ["KS203"]; got {listed!r}.'
            )
        if faults:
            raise SettingsError("\n".join(faults))
        values["ignore"] = (*listed, *ignore)
        values["full"] = values.get("full", False) or full
        return cls(**values)
