"""Presets of the small CNN: its architecture, and defaults of the other settings.

A setting that is given takes precedence over the preset's.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from kindsight.dataset import ImageDataset
from kindsight.dataset.properties import typical_sides

__all__ = [
    "COURSE", "MODERN", "OF_PRESETS", "PRESETS", "input_size", "preset_settings", "without_preset",
]  # fmt: skip

COURSE, MODERN = "course", "modern"

# Usual values. Learning rates of 0.002, 0.004 and 0.008 were compared: after four epochs on
# 1,600 images of cifar10's training split the validation log losses were 1.761, 1.745 and 1.698.
# The preset's is a little below the best, since longer trainings need a lower one.
_MODERN: dict[str, Any] = {
    "filters": None,  # by the input size
    "dense": (),
    "dropout": 0.2,
    "batch_norm": True,
    "pooling": "max",
    "epochs": 30,
    "batch_size": 64,
    "optimizer": "adamw",
    "learning_rate": 6e-3,
    "weight_decay": 0.02,
    "schedule": "one-cycle",
    "label_smoothing": 0.1,
    # No flips: a mirrored 2 is not a 2. A budget adds those that keep an image's class.
    "augment": {"shift": 0.1, "scale": 0.1, "rotation": 8.0, "brightness": 0.2, "contrast": 0.2},
}

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType({COURSE: {}, MODERN: _MODERN})
"""The settings of each preset by name; those of ``"course"`` are the trainer's own defaults."""

OF_PRESETS = frozenset(_MODERN)
"""The settings for which a preset may have defaults."""

# Learning rate and weight decay belong to the optimizer of the preset.
_OF_OPTIMIZER = ("learning_rate", "weight_decay")

# Sides in pixels that images are trained at: their own within LOWEST and OWN; larger images at
# MIDDLE below LARGE pixels, at HIGHEST from there on.
LOWEST, OWN, MIDDLE, LARGE, HIGHEST = 16, 64, 64, 128, 96


def preset_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given settings with those of their preset where they have none."""
    preset = PRESETS.get(str(given.get("preset", COURSE)), {})
    if given.get("optimizer", preset.get("optimizer")) != preset.get("optimizer"):
        preset = {name: value for name, value in preset.items() if name not in _OF_OPTIMIZER}
    return {**preset, **given}


def without_preset(values: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return stored settings without those of their preset where another preset is given.

    Where another optimizer is given, those that the preset chose for its own are left out.
    """
    stored = values.get("preset", COURSE)
    if given.get("preset") in (None, stored):
        own = PRESETS.get(str(stored), {})
        if given.get("optimizer") in (None, own.get("optimizer")):
            return dict(values)
        chosen = {name: own[name] for name in _OF_OPTIMIZER if name in own}
        return {
            name: value
            for name, value in values.items()
            if name not in chosen or value != chosen[name]
        }
    decided = {*_MODERN, "preset", "size"}
    return {name: value for name, value in values.items() if name not in decided}


def input_size(dataset: ImageDataset) -> int:
    """Return the side in pixels at which the modern preset trains the images of a dataset."""
    sides = typical_sides(dataset)
    shorter = HIGHEST if sides is None else sides[0]
    if shorter <= OWN:
        return max(LOWEST, round(shorter))
    return MIDDLE if shorter < LARGE else HIGHEST
