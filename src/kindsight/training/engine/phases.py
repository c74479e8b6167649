"""Phases of the user's own: what each says, and what it takes from the training as a whole."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from kindsight.augment import Augment, parse_augment
from kindsight.augment.policy import RECIPES
from kindsight.errors import SettingsError
from kindsight.training.common import choice_fault
from kindsight.training.engine.plan import Phase

__all__ = ["MIXES", "SHARED", "make_phases", "make_policy", "plain_phases", "read_phase"]

MIXES = ("none", "mixup", "cutmix")
"""Ways to mix the images of a batch, each with the strength that its authors took."""

MIXUP, CUTMIX = 0.2, 1.0

MOST_PHASES = 20
LONGEST_NAME = 60

# What only the phases of a backbone have.
_OF_BACKBONES = ("freeze", "cached_copies")
SHARED = tuple(item.name for item in fields(Phase) if item.name not in ("name", *_OF_BACKBONES))
"""What a training says once for all phases that say nothing of their own."""

_KNOWN = ("name", "mix", *_OF_BACKBONES, *SHARED)
_WHOLE = ("epochs", "batch_size", "patience", "cached_copies")
_NUMBERS = ("learning_rate", "momentum", "weight_decay", "warmup", "label_smoothing")


def read_phase(text: str) -> dict[str, Any]:
    """Read a phase from a line such as ``freeze=all epochs=3 learning-rate=1e-3``.

    Raises
    ------
    SettingsError
        For what is no ``name=value``, and for values that are no numbers where they must be.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise SettingsError(
            f"A phase must have its quotes closed. Received: {text!r} ({error})."
        ) from None
    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        name = key.replace("-", "_")
        if not equals or not value or name in found:
            raise SettingsError(
                "A phase must be name=value once for each of its settings, with spaces between, "
                f"such as freeze=all epochs=3 learning-rate=1e-3. Received: {word!r} in {text!r}."
            )
        found[name] = _value(name, value)
    return found


def _value(name: str, text: str) -> Any:
    kind = int if name in _WHOLE else float if name in _NUMBERS else str
    try:
        return kind(text)
    except ValueError:
        word = "a whole number" if kind is int else "a number"
        raise SettingsError(f"A phase's {name} must be {word}. Received: {text!r}.") from None


def make_policy(augment: Any, mix: str) -> Augment:
    """Return the augmentation policy that is meant.

    Parameters
    ----------
    augment : str, mapping or Augment
        A recipe's name, a TOML file, settings by name, or a policy.
    mix : str
        One of :data:`MIXES`; ``"none"`` leaves what the policy says of mixing.

    Raises
    ------
    SettingsError
        Where there is no such policy.
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
    phases: Any, shared: Mapping[str, Any], freeze: str | int, named: Any
) -> tuple[list[Phase], list[str]]:
    """Make the phases of a training.

    Parameters
    ----------
    phases : sequence of (mapping or Phase)
        What a phase says by itself; none for one phase that says nothing. A :class:`.plan.Phase`
        is whole: it takes nothing from the training.
    shared : mapping
        What the training says, by the names of :data:`SHARED`, and ``"mix"``; of a
        backbone ``"cached_copies"``, too.
    freeze : str or int
        What is frozen in phases that do not say.
    named : callable
        From what a phase freezes, and its number from 1, to a name for it.

    Returns
    -------
    phases : list of Phase
    faults : list of str
        A sentence for each setting that cannot be, but for those that a plan finds itself.
    """
    if not isinstance(phases, Sequence) or isinstance(phases, str) or len(phases) > MOST_PHASES:
        return [], [f"phases must be a list of {MOST_PHASES} at most. Received: {phases!r}."]
    if not phases:
        made, faults = _make({}, shared, freeze, lambda what: "training")
        return [made], faults
    found: list[Phase] = []
    said: list[str] = []
    for number, given in enumerate(phases, 1):

        def name(what: Any, number: int = number) -> str:
            own = str(named(what, number))
            taken = {phase.name for phase in found}
            return own if own not in taken else f"{own}, phase {number}"

        if isinstance(given, Phase):
            found.append(given)
        elif isinstance(given, Mapping):
            phase, faults = _make(given, shared, freeze, name)
            found.append(phase)
            said += [f"phase {number}: {fault}" for fault in faults]
        else:
            said.append(f"phase {number} must be settings by name. Received: {given!r}.")
    return found, said


def _make(
    given: Mapping[str, Any], shared: Mapping[str, Any], freeze: str | int, named: Any
) -> tuple[Phase, list[str]]:
    faults = []
    for name in given:
        if name not in _KNOWN:
            near = difflib.get_close_matches(str(name), _KNOWN, 1)
            hint = f" Did you mean {near[0]!r}?" if near else f" There are: {', '.join(_KNOWN)}."
            faults.append(f"there is no setting {name!r}.{hint}")
    values = {**shared, **{k: v for k, v in given.items() if k in _KNOWN}}
    # A phase with a policy of its own says by that whether batches are mixed.
    mix = values.pop("mix")
    if "augment" in given and "mix" not in given:
        mix = "none"
    policy = Augment()
    try:
        policy = make_policy(values["augment"], mix)
    except SettingsError as error:
        faults.append(f"augment: {error}")
    if fault := choice_fault("mix", mix, MIXES):
        faults.append(fault)
    what = values.pop("freeze", freeze)
    name = values.pop("name", None)
    if name is None:
        name = named(what)
    elif not isinstance(name, str) or not 0 < len(name.strip()) <= LONGEST_NAME:
        faults.append(f"name must be a few words. Received: {name!r}.")
        name = "phase"
    return Phase(**{**values, "name": name, "augment": policy, "freeze": what}), faults


def plain_phases(phases: Sequence[Any]) -> list[dict[str, Any]]:
    """Return what phases say as TOML can hold it, None left out."""
    found = []
    for given in phases:
        values = given.to_dict() if isinstance(given, Phase) else dict(given)
        if "augment" in values and values["augment"] not in list(RECIPES):
            values["augment"] = make_policy(values["augment"], "none").to_dict()
        found.append({name: value for name, value in values.items() if value is not None})
    return found
