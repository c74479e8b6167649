"""The exceptions that kindsight raises.

::

    KindsightError
    ├── UsageError (ValueError)          invalid input from the user; exit code 2
    │   ├── SettingsError                an unknown option or an invalid value
    │   ├── DatasetError                 unusable data: folder, table or arrays
    │   │   └── ColumnTypeError (TypeError)  a table column of the wrong type
    │   └── MissingExtraError            an optional package is not installed
    ├── ImageError                       one unreadable image; has a code and a reason
    ├── WeightsError                     a weights file that is missing, damaged or unsafe
    ├── BundleError                      a model bundle that is missing, damaged or too new
    ├── CacheError                       the cache folder cannot be used
    ├── StorageError                     storage at an address cannot be reached or refuses access
    ├── DivergedError                    a training whose loss became NaN or infinite
    └── ParityError                      two formats of one model give different predictions

A message for invalid input states the rule, the value received and the cure. It names options in
backticks, as in Python; the command line shows them as they are typed. A message for a failure says
what happened, to what, and what to do. This module imports no other of kindsight.
"""

from __future__ import annotations

import importlib.util
from typing import Any

__all__ = [
    "BundleError", "CacheError", "ColumnTypeError", "DatasetError", "DivergedError", "ImageError",
    "KindsightError", "MissingExtraError", "ParityError", "SettingsError", "StorageError",
    "UsageError", "WeightsError",
]  # fmt: skip


class KindsightError(Exception):
    """Base class of all kindsight exceptions."""

    def __reduce__(self) -> tuple[Any, ...]:
        # By default, an exception is read back by calling its class with the message.
        return _restored, (type(self), self.args, self.__dict__)


def _restored(
    kind: type[KindsightError], arguments: tuple[object, ...], attributes: dict[str, object]
) -> KindsightError:
    """Return an exception that another process pickled."""
    error = kind.__new__(kind)
    error.args = arguments
    error.__dict__.update(attributes)
    return error


class UsageError(KindsightError, ValueError):
    """Invalid input from the user; the command line exits with code 2."""


class SettingsError(UsageError):
    """An unknown option, or an invalid value for an option."""


class DatasetError(UsageError):
    """Data that cannot train a classifier: an empty folder, a single class, a missing column."""


class ColumnTypeError(DatasetError, TypeError):
    """A table column that holds values of the wrong type."""


class MissingExtraError(UsageError):
    """An optional package is not installed; the message has the command that installs it.

    Parameters
    ----------
    what : str
        The feature that needs it, as the start of a sentence: ``"the demo"``.
    extra : str
        The extra to install, as in ``pip install 'kindsight[extra]'``. Where TensorFlow is
        installed, ``"train"`` becomes ``"own-tensorflow"``, which installs no other over it.
    package : str, optional
        A package to install besides.
    """

    def __init__(self, what: str, extra: str, package: str = "") -> None:
        if extra == "train" and importlib.util.find_spec("tensorflow") is not None:
            extra = "own-tensorflow"
        command = f"pip install 'kindsight[{extra}]' {package}".rstrip()
        super().__init__(f"{what} needs an optional package: {command}")
        self.extra = extra


class ImageError(KindsightError):
    """One image that cannot be read.

    Parameters
    ----------
    code : str
        The kind of failure, one of :data:`ImageError.CODES`.
    reason : str
        One sentence for people, without the path.
    path : str, optional
        The image's path.
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
        "unreachable",
    )

    def __init__(self, code: str, reason: str, path: str | None = None) -> None:
        if code not in self.CODES:
            raise ValueError(f"code must be one of {', '.join(self.CODES)}; got {code!r}")
        super().__init__(f"{path}: {reason}" if path else reason)
        self.code = code
        self.reason = reason
        self.path = path

    def at(self, path: str) -> ImageError:
        """Return the same error with `path` in its message."""
        return ImageError(self.code, self.reason, path)


class WeightsError(KindsightError):
    """A weights file that is missing, damaged, or contains anything but tensors."""


class BundleError(KindsightError):
    """A model bundle that is missing, damaged, or written by a newer kindsight."""


class CacheError(KindsightError):
    """The cache folder is not writable, or contains something other than a cache."""


class StorageError(KindsightError):
    """Storage at an address that cannot be reached, or that refuses access or does not exist."""


class ClusterError(KindsightError):
    """A Ray cluster that cannot be reached, has no free processor, or cannot do the work."""


class DivergedError(KindsightError):
    """A training whose loss became NaN or infinite before an epoch was complete."""


class ParityError(KindsightError):
    """Two formats of one model (Keras, LiteRT, an export) give different predictions."""
