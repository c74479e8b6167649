"""Read the phases of a training from settings: own values of a phase over shared ones."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from kindsight.augment import Augment, parse_augment
from kindsight.augment.policy import RECIPES
from kindsight.errors import SettingsError
from kindsight.training.engine.plan import Phase
from kindsight.training.option_rules import option_faults

__all__ = ["MIXES", "SHARED", "make_phases", "make_policy", "plain_phases", "read_phase"]

MIXES = ("none", "mixup", "cutmix")
"""Mixing of the images of a batch, each with the strength that its authors used."""

MIXUP, CUTMIX = 0.2, 1.0

MAX_PHASES = 20
MAX_NAME = 60  # characters

_BACKBONE_SETTINGS = ("freeze", "cached_copies")
SHARED = tuple(f.name for f in fields(Phase) if f.name not in ("name", *_BACKBONE_SETTINGS))
"""Settings that a training gives once for all phases without their own."""

_KNOWN = ("name", "mix", *_BACKBONE_SETTINGS, *SHARED)
_WHOLE = ("epochs", "batch_size", "patience", "cached_copies")
_NUMBERS = ("learning_rate", "momentum", "weight_decay", "warmup", "label_smoothing")


def read_phase(text: str) -> dict[str, Any]:
    """Read a phase from a line such as ``freeze=all epochs=3 learning-rate=1e-3``.

    SettingsError for anything but ``name=value``, and for values that are not numbers where they
    must be.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise SettingsError(
            f"The quotes of a phase must be closed; got {text!r} ({error})."
        ) from None
    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        name = key.replace("-", "_")
        if not equals or not value or name in found:
            raise SettingsError(
                "A phase must be settings name=value, each once, separated by spaces, such as "
                f"freeze=all epochs=3 learning-rate=1e-3; got {word!r} in {text!r}."
            )
        found[name] = _value(name, value)
    return found


def _value(name: str, text: str) -> Any:
    kind = int if name in _WHOLE else float if name in _NUMBERS else str
    try:
        return kind(text)
    except ValueError:
        word = "a whole number" if kind is int else "a number"
        raise SettingsError(f"A phase's {name} must be {word}; got {text!r}.") from None


def make_policy(augment: Any, mix: str) -> Augment:
    """Return the augmentation policy of a recipe, a TOML file, settings by name, or a policy.

    `mix` is one of :data:`MIXES`; ``"none"`` leaves the policy's own mixing. SettingsError for an
    unknown recipe or invalid settings.
    """
    if isinstance(augment, Augment):
        policy = augment
    elif isinstance(augment, Mapping):
        policy = Augment.from_dict(augment)
    else:
        policy = parse_augment(str(augment))
    if mix == "mixup":
        return replace(policy, mixup=MIXUP)
    return replace(policy, cutmix=CUTMIX) if mix == "cutmix" else policy


def make_phases(
    phases: Any, shared: Mapping[str, Any], freeze: str | int, default_name: Any
) -> tuple[list[Phase], list[str]]:
    """Return the phases of a training, and a sentence for each invalid setting.

    Parameters
    ----------
    phases : sequence of (mapping or Phase)
        Own settings of each phase; empty for a single phase of shared settings. A
        :class:`.plan.Phase` takes no shared settings.
    shared : mapping
        Values of :data:`SHARED`, and ``"mix"``; of a backbone also ``"cached_copies"``.
    freeze : str or int
        Frozen layers of phases without their own.
    default_name : callable
        Called with a phase's frozen layers and its number from 1.
    """
    if not isinstance(phases, Sequence) or isinstance(phases, str) or len(phases) > MAX_PHASES:
        return [], [f"phases must be a list of at most {MAX_PHASES}; got {phases!r}."]
    if not phases:
        phase, faults = _make_phase({}, shared, freeze, lambda frozen: "training")
        return [phase], faults
    found: list[Phase] = []
    all_faults: list[str] = []
    for number, given in enumerate(phases, 1):

        def unique_name(frozen: Any, number: int = number) -> str:
            name = str(default_name(frozen, number))
            taken = {phase.name for phase in found}
            return name if name not in taken else f"{name}, phase {number}"

        if isinstance(given, Phase):
            found.append(given)
        elif isinstance(given, Mapping):
            phase, faults = _make_phase(given, shared, freeze, unique_name)
            found.append(phase)
            all_faults += [f"phase {number}: {fault}" for fault in faults]
        else:
            all_faults.append(f"phase {number} must be settings by name; got {given!r}.")
    return found, all_faults


def _make_phase(
    given: Mapping[str, Any], shared: Mapping[str, Any], freeze: str | int, default_name: Any
) -> tuple[Phase, list[str]]:
    faults = []
    for name in given:
        if name not in _KNOWN:
            near = difflib.get_close_matches(str(name), _KNOWN, 1)
            hint = (
                f" Did you mean {near[0]!r}?"
                if near
                else f" Settings of a phase: {', '.join(_KNOWN)}."
            )
            faults.append(f"there is no setting {name!r}.{hint}")
    values = {**shared, **{k: v for k, v in given.items() if k in _KNOWN and v is not None}}
    # A phase with its own augmentation policy takes the mixing from that.
    mix = values.pop("mix")
    if "augment" in given and "mix" not in given:
        mix = "none"
    policy = Augment()
    try:
        policy = make_policy(values["augment"], mix)
    except SettingsError as error:
        faults.append(f"augment: {error}")
    faults += option_faults({"mix": mix}).values()
    frozen = values.pop("freeze", freeze)
    name = values.pop("name", None)
    if name is None:
        name = default_name(frozen)
    elif not isinstance(name, str) or not 0 < len(name.strip()) <= MAX_NAME:
        faults.append(f"name must be 1 to {MAX_NAME} characters; got {name!r}.")
        name = "phase"
    return Phase(**{**values, "name": name, "augment": policy, "freeze": frozen}), faults


def plain_phases(phases: Sequence[Any]) -> list[dict[str, Any]]:
    """Return phases as TOML values, None left out."""
    found = []
    for given in phases:
        values = given.to_dict() if isinstance(given, Phase) else dict(given)
        if "augment" in values and values["augment"] not in list(RECIPES):
            values["augment"] = make_policy(values["augment"], "none").to_dict()
        found.append({name: value for name, value in values.items() if value is not None})
    return found
