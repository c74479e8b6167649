"""The model bundle: everything needed to use a classifier, in one folder, without a pickle.

``bundle.json`` describes the classifier; ``model.tflite`` and ``model.keras`` are the same network:
pixels 0-255 in, logits out. Dividing the logits by the temperature and applying the softmax gives
probabilities. A run folder is a bundle with the records of its training.
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
from kindsight.storage.address import is_address, shown

__all__ = ["FORMAT", "KERAS_FILE", "TFLITE_FILE", "Bundle", "check_model_file", "load_bundle"]

FORMAT = 1
JSON_FILE = "bundle.json"
TFLITE_FILE = "model.tflite"
KERAS_FILE = "model.keras"

# Limits on untrusted files.
MAX_JSON_BYTES = 64 * 1024**2
MAX_MODEL_BYTES = 4 * 1024**3
MAX_CLASSES = 100_000


@dataclass(frozen=True)
class Bundle:
    """The contents of ``bundle.json``.

    Parameters
    ----------
    folder : pathlib.Path
    classes : tuple of str
        Class names in the order of the logits.
    spec : InputSpec
        How images are resized.
    temperature : float
        Divides the logits before the softmax.
    backbone : str
        The network's name.
    facts : dict
        The other entries: versions, seed, data, head, metrics, parity, digests of files.
    """

    folder: Path
    classes: tuple[str, ...]
    spec: InputSpec
    temperature: float
    backbone: str
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def uncertainty(self) -> dict[str, Any]:
        """The parts of ``"uncertainty"`` by name: unsure, sets, unknown; those that are there."""
        found = self.facts.get("uncertainty")
        parts = found.items() if isinstance(found, dict) else ()
        return {name: part for name, part in parts if isinstance(part, dict)}

    @property
    def tflite(self) -> Path:
        """The LiteRT file."""
        return self.folder / TFLITE_FILE

    @property
    def keras(self) -> Path:
        """The Keras file."""
        return self.folder / KERAS_FILE

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``bundle.json``."""
        return {
            "format": FORMAT, "classes": list(self.classes), "input": self.spec.to_dict(),
            "temperature": self.temperature, "backbone": self.backbone, **self.facts,
        }  # fmt: skip

    def write(self) -> None:
        """Write ``bundle.json``. It is written last: a bundle that has it is complete."""
        write_json(self.folder / JSON_FILE, self.to_dict())


def load_bundle(folder: str | os.PathLike[str]) -> Bundle:
    """Load a bundle and check that it is complete.

    Parameters
    ----------
    folder : path
        A bundle's or a run's folder.

    Raises
    ------
    BundleError
        If there is no bundle, or it is incomplete, damaged or of a newer format.
    """
    if is_address(os.fspath(folder)):
        raise BundleError(
            f"A model bundle must be on a local disk; got {shown(os.fspath(folder))}. Copy its "
            "folder to this machine first."
        )
    path = Path(folder)
    facts = _read_json(path)
    version = facts.pop("format", None)
    if type(version) is not int or version < 1:
        raise _invalid(path, "format", "a whole number from 1", version)
    if version > FORMAT:
        raise BundleError(
            f"{path} has bundle format {version}; this kindsight reads formats up to {FORMAT}. "
            "Install a newer kindsight: pip install -U kindsight"
        )
    bundle = Bundle(
        path, _classes(path, facts.pop("classes", None)), _spec(path, facts.pop("input", None)),
        _temperature(path, facts.pop("temperature", None)), str(facts.pop("backbone", "")), facts,
    )  # fmt: skip
    check_model_file(
        bundle,
        bundle.tflite,
        f"{TFLITE_FILE} is missing from {bundle.folder}, or too large. Restore it, or train again.",
    )
    return bundle


def check_model_file(bundle: Bundle, path: Path, missing: str) -> None:
    """Compare a network's file with its recorded digest; BundleError if it differs.

    `missing` is the error's message where the file is missing or too large.
    """
    if not path.is_file() or path.stat().st_size > MAX_MODEL_BYTES:
        raise BundleError(missing)
    files = bundle.facts.get("files")
    expected = files.get(path.name) if isinstance(files, Mapping) else None
    if expected is not None and expected != file_digest(path):
        raise BundleError(
            f"{path} has changed since {JSON_FILE} was written. Restore it, or train again."
        )


def _read_json(folder: Path) -> dict[str, Any]:
    path = folder / JSON_FILE
    if not path.is_file():
        hint = "Give the folder of a run or another bundle."
        if (folder / "settings.toml").is_file():
            hint = "Its training did not finish: run the same train command to continue it."
        if not folder.exists():
            raise BundleError(f"{folder} does not exist. {hint}")
        raise BundleError(f"{folder} is not a bundle: it has no {JSON_FILE}. {hint}")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise BundleError(f"Could not read {path}: {error.strerror}.") from error
    if len(content) > MAX_JSON_BYTES:
        raise BundleError(f"{path} is larger than {MAX_JSON_BYTES // 1024**2} MB, the limit.")
    try:
        facts = json.loads(content.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(facts, dict):
        raise _invalid(folder, "the content", "an object", facts)
    return facts


def _invalid(folder: Path, name: str, rule: str, received: object) -> BundleError:
    return BundleError(
        f"{folder / JSON_FILE} is invalid: {name} must be {rule}; got {str(received)[:80]!r}."
    )


def _classes(folder: Path, value: object) -> tuple[str, ...]:
    valid = (
        isinstance(value, list)
        and 2 <= len(value) <= MAX_CLASSES
        and all(isinstance(name, str) for name in value)
        and len(set(value)) == len(value)
    )
    if not valid:
        raise _invalid(folder, "classes", "a list of two or more different names", value)
    return tuple(value)  # type: ignore[arg-type]


def _spec(folder: Path, value: object) -> InputSpec:
    if not isinstance(value, Mapping):
        raise _invalid(folder, "input", "an object", value)
    try:
        return InputSpec.from_dict(value)
    except SettingsError as error:
        raise BundleError(f"{folder / JSON_FILE} is invalid: {error}") from error


def _temperature(folder: Path, value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < 1e6:
        raise _invalid(folder, "temperature", "a number above 0", value)
    return float(value)
