"""Every error that kindsight raises on purpose.

::

    KindsightError
    ├── UsageError (ValueError)      asked for something that cannot be done: exit code 2
    │   ├── SettingsError            an option's name or value
    │   ├── DatasetError             the folder, table or arrays given as data
    │   │   └── ColumnTypeError (TypeError)  a table's column holds the wrong type
    │   └── MissingExtraError        an optional package is not installed
    ├── ImageError                 one image that cannot be used; has a code and a reason
    ├── WeightsError                 a weights file that is absent, damaged or hostile
    ├── BundleError                  a bundle that is absent, damaged or of a newer format
    ├── CacheError                   the cache folder cannot be used
    └── ParityError               two forms of the same network give different answers

A message states the rule, what was received, and how to mend it. This module imports nothing.
"""

from __future__ import annotations

__all__ = [
    "BundleError",
    "CacheError",
    "ColumnTypeError",
    "DatasetError",
    "ImageError",
    "KindsightError",
    "MissingExtraError",
    "ParityError",
    "SettingsError",
    "UsageError",
    "WeightsError",
]


class KindsightError(Exception):
    """The root of all errors that kindsight raises on purpose."""


class UsageError(KindsightError, ValueError):
    """Something was asked for that cannot be done; the command line exits with 2."""


class SettingsError(UsageError):
    """An option that does not exist, or a value outside what the option takes."""


class DatasetError(UsageError):
    """Data that no classifier can be made of: an empty folder, a single class, a missing column."""


class ColumnTypeError(DatasetError, TypeError):
    """A column of a table holds values of the wrong type."""


class MissingExtraError(UsageError):
    """An optional package is not installed; the message holds the command that installs it.

    Parameters
    ----------
    what : str
        What the user asked for, as the start of a sentence: ``"the demo"``.
    extra : str
        The extra that holds the package, as in ``pip install 'kindsight[extra]'``.
    """

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an optional package: pip install 'kindsight[{extra}]'")
        self.extra = extra


class ImageError(KindsightError):
    """One image that cannot be used.

    Parameters
    ----------
    code : str
        A stable word for machines, one of :data:`ImageError.CODES`.
    reason : str
        One sentence for people, without the path.
    path : str, optional
        Which image; filled in by whoever knows it.
    """

    CODES = (
        "missing",
        "no-permission",
        "empty",
        "not-an-image",
        "unsupported",
        "truncated",
        "corrupt",
        "too-large",
    )

    def __init__(self, code: str, reason: str, path: str | None = None) -> None:
        if code not in self.CODES:
            raise ValueError(f"code must be one of {', '.join(self.CODES)}. Received: {code!r}")
        super().__init__(f"{path}: {reason}" if path else reason)
        self.code = code
        self.reason = reason
        self.path = path

    def at(self, path: str) -> ImageError:
        """Return the same error with the image's path in its message."""
        return ImageError(self.code, self.reason, path)


class WeightsError(KindsightError):
    """A weights file that is absent, damaged, or holds anything but tensors."""


class BundleError(KindsightError):
    """A bundle that is absent, damaged, or written by a newer kindsight."""


class CacheError(KindsightError):
    """The cache folder cannot be written or holds something that is not a cache."""


class ParityError(KindsightError):
    """Two forms of the same network (Keras, LiteRT, an export) give different answers."""
