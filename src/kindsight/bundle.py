"""The bundle: everything that a classifier needs to be used, in one folder without a pickle.

``bundle.json`` says what the classifier is, ``model.tflite`` and ``model.keras`` are the same
network twice: pixels 0-255 in, logits out. Dividing the logits by the temperature and taking the
softmax gives probabilities. A run folder is a bundle with the story of its training beside it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kindsight.digest import file_digest
from kindsight.errors import BundleError, SettingsError
from kindsight.files import write_json
from kindsight.images import InputSpec

__all__ = ["FORMAT", "KERAS_FILE", "TFLITE_FILE", "Bundle", "load_bundle"]

FORMAT = 1
JSON_FILE = "bundle.json"
TFLITE_FILE = "model.tflite"
KERAS_FILE = "model.keras"

# Bounds on what is read: a bundle may come from anywhere.
MAX_JSON_BYTES = 64 * 1024**2
MAX_MODEL_BYTES = 4 * 1024**3
MAX_CLASSES = 100_000


@dataclass(frozen=True)
class Bundle:
    """What ``bundle.json`` says.

    Parameters
    ----------
    folder : pathlib.Path
        Where it is.
    classes : tuple of str
        Class names in the order of the logits.
    spec : InputSpec
        How images are resized.
    temperature : float
        Divides the logits before the softmax.
    backbone : str
        The network's name.
    facts : dict
        The rest, as JSON has it: versions, seed, data, head, metrics, agreement, digests of files.
    """

    folder: Path
    classes: tuple[str, ...]
    spec: InputSpec
    temperature: float
    backbone: str
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def tflite(self) -> Path:
        """The LiteRT file."""
        return self.folder / TFLITE_FILE

    @property
    def keras(self) -> Path:
        """The Keras file."""
        return self.folder / KERAS_FILE

    def to_dict(self) -> dict[str, Any]:
        """Return what is written to ``bundle.json``."""
        return {
            "format": FORMAT,
            "classes": list(self.classes),
            "input": self.spec.to_dict(),
            "temperature": self.temperature,
            "backbone": self.backbone,
            **self.facts,
        }

    def write(self) -> None:
        """Write ``bundle.json``, the last file of a bundle: where it is, the bundle is whole."""
        write_json(self.folder / JSON_FILE, self.to_dict())


def load_bundle(folder: str | os.PathLike[str]) -> Bundle:
    """Read a bundle and check that it is whole.

    Parameters
    ----------
    folder : path
        A bundle's folder, or a run's.

    Raises
    ------
    BundleError
        Where there is no bundle, an unfinished or a damaged one, or one of a newer format.
    """
    path = Path(folder)
    facts = _read_json(path)
    version = facts.pop("format", None)
    if type(version) is not int or version < 1:
        raise _damaged(path, "format", "a whole number from 1", version)
    if version > FORMAT:
        raise BundleError(
            f"{path}: this kindsight reads bundles up to format {FORMAT}. Received: format "
            f"{version}. Install a newer kindsight: pip install -U kindsight"
        )
    bundle = Bundle(
        path,
        _classes(path, facts.pop("classes", None)),
        _spec(path, facts.pop("input", None)),
        _temperature(path, facts.pop("temperature", None)),
        str(facts.pop("backbone", "")),
        facts,
    )
    _check_model(bundle)
    return bundle


def _read_json(folder: Path) -> dict[str, Any]:
    path = folder / JSON_FILE
    if not path.is_file():
        hint = ""
        if (folder / "settings.toml").is_file():
            hint = " Its training did not finish: the same train command continues it."
        raise BundleError(f"A bundle must hold {JSON_FILE}. Received: {folder}, without it.{hint}")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise BundleError(
            f"{path} must be a file that can be read. Received: {error.strerror}."
        ) from error
    if len(content) > MAX_JSON_BYTES:
        raise BundleError(f"{path} must not be larger than {MAX_JSON_BYTES // 1024**2} MB.")
    try:
        facts = json.loads(content.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} must be valid JSON. It is not: {error}.") from error
    if not isinstance(facts, dict):
        raise _damaged(folder, "content", "an object", facts)
    return facts


def _damaged(folder: Path, name: str, rule: str, received: object) -> BundleError:
    return BundleError(
        f"{folder / JSON_FILE}: {name} must be {rule}. Received: {str(received)[:80]!r}."
    )


def _classes(folder: Path, value: object) -> tuple[str, ...]:
    good = (
        isinstance(value, list)
        and 2 <= len(value) <= MAX_CLASSES
        and all(isinstance(name, str) for name in value)
        and len(set(value)) == len(value)
    )
    if not good:
        raise _damaged(folder, "classes", "a list of two or more different names", value)
    return tuple(value)  # type: ignore[arg-type]


def _spec(folder: Path, value: object) -> InputSpec:
    if not isinstance(value, Mapping):
        raise _damaged(folder, "input", "an object", value)
    try:
        return InputSpec.from_dict(value)
    except SettingsError as error:
        raise BundleError(f"{folder / JSON_FILE}: {error}") from error


def _temperature(folder: Path, value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < 1e6:
        raise _damaged(folder, "temperature", "a number above 0", value)
    return float(value)


def _check_model(bundle: Bundle) -> None:
    """Hold the LiteRT file to the digest that was noted when it was written."""
    path = bundle.tflite
    if not path.is_file() or path.stat().st_size > MAX_MODEL_BYTES:
        raise BundleError(f"{bundle.folder} must hold {TFLITE_FILE}; it is missing or too large.")
    files = bundle.facts.get("files")
    noted = files.get(TFLITE_FILE) if isinstance(files, Mapping) else None
    if noted is not None and noted != file_digest(path):
        raise BundleError(
            f"{path} must be the file that {JSON_FILE} was written for; its content has changed. "
            "Restore it, or train again."
        )
