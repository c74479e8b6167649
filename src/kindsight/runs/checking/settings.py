"""What a check is told, by options or by a file."""

from __future__ import annotations

import dataclasses
import difflib
import os
from dataclasses import dataclass

from kindsight.checks.runner import validate_codes
from kindsight.errors import SettingsError
from kindsight.files import read_toml

__all__ = ["CheckSettings"]


@dataclass(frozen=True)
class CheckSettings:
    """How data are checked.

    Parameters
    ----------
    ignore : tuple of str
        Codes of checks that are ignored, such as ``KS203``. The report says that they were.
    full : bool
        Whether checks run that need features of all images.
    model : str
        The backbone that features are taken from.
    size : int, optional
        Height and width of the images it is given; its own size if omitted.
    workers : int, optional
        How many images are worked on at once; the number of cores if omitted.

    Raises
    ------
    SettingsError
        Naming every setting that cannot be.
    """

    ignore: tuple[str, ...] = ()
    full: bool = False
    model: str = "efficientnet-lite0"
    size: int | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        given: object = self.ignore
        if not isinstance(given, (tuple, list)) or not all(isinstance(c, str) for c in given):
            raise SettingsError(
                f'ignore must be codes of checks, such as ["KS203"]. Received: {given!r}.'
            )
        object.__setattr__(self, "ignore", tuple(sorted(set(self.ignore))))
        validate_codes(self.ignore)
        if not isinstance(self.full, bool):
            raise SettingsError(f"full must be true or false. Received: {self.full!r}.")

    @classmethod
    def from_toml(
        cls, path: str | os.PathLike[str], *, ignore: tuple[str, ...] = (), full: bool = False
    ) -> CheckSettings:
        """Read settings from a TOML file.

        Parameters
        ----------
        path : path
            Such as holds ``ignore = ["KS203"]`` and ``full = true``.
        ignore : tuple of str
            Further codes.
        full : bool
            True wins over the file.

        Raises
        ------
        SettingsError
            For a file that cannot be read, unknown names, and values that cannot be.
        """
        source, values = os.fspath(path), read_toml(path, "The settings")
        known = [field.name for field in dataclasses.fields(cls)]
        faults = []
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, 1)
                hint = f" Did you mean {near[0]!r}?" if near else f" There are: {', '.join(known)}."
                faults.append(f"{source}: there is no setting {name!r}.{hint}")
        listed = values.get("ignore", [])
        if not isinstance(listed, list):
            faults.append(f'{source}: ignore must be a list, such as ["KS203"].')
        if faults:
            raise SettingsError("\n".join(faults))
        values["ignore"] = (*listed, *ignore)
        values["full"] = values.get("full", False) or full
        return cls(**values)
