"""The declarations of options agree with the trainers, and reject what they should."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import numpy as np
import pytest

from kindsight import ImageClassifier
from kindsight.options import CLASSIFIER_OPTIONS, OPTIONS, PANELS
from kindsight.training.option_rules import option_faults, read_option, unknown_name_fault
from kindsight.training.trainer import FROZEN, NETWORK, TRANSFER

TRAINERS = {"frozen": FROZEN, "network": NETWORK, "transfer": TRANSFER}


@pytest.mark.parametrize("name", TRAINERS)
def test_each_trainer_takes_the_options_declared_for_it(name):
    settings = TRAINERS[name].code.settings
    fields = {field.name: field.default for field in dataclasses.fields(settings)}
    declared = {key for key, option in OPTIONS.items() if name in option.trainers}
    assert declared == set(fields) & set(OPTIONS)
    for key in declared:
        default = OPTIONS[key].default
        if key != "model" and default is not None and fields[key] is not None:
            assert fields[key] == default, key


def test_the_classifier_has_a_parameter_for_each_option():
    parameters = inspect.signature(ImageClassifier).parameters
    assert list(parameters) == list(CLASSIFIER_OPTIONS) == list(ImageClassifier().get_params())
    for name in CLASSIFIER_OPTIONS:
        assert f"\n{name} : " in ImageClassifier.__doc__
    with pytest.raises(TypeError, match="Did you mean 'head'"):
        ImageClassifier(heads="rbf")


@pytest.mark.parametrize("option", OPTIONS.values(), ids=OPTIONS)
def test_a_help_text_is_one_noun_phrase(option):
    assert option.panel in PANELS
    text = option.help.removesuffix(" *")
    assert text[0].isupper() and text.endswith(".") and len(text) < 200
    words = text.split()
    assert words[0] not in {"The", "A", "An", "How", "What", "Whether", "Which", "Of", "Let", "To"}


WRONG = {
    "model": 3, "size": (0, 2), "resize": "crp", "epochs": 0, "dropout": 1.0, "l2": float("nan"),
    "dense": [1, "a"], "filters": (), "freeze": 1.5, "batch_norm": 1, "seed": -1, "validation": 1,
    "fold": 3, "label_names": "abc", "columns": [1], "run": "../..", "learning_rate": "x",
    "warmup": True, "layer_decay": 0, "phases": "x", "budget": [1], "cache": 3, "data": "",
    "tta_flips": 5, "momentum": 1, "patience": 0, "mix": "blend", "verify": "none",
}  # fmt: skip


def test_all_wrong_values_are_reported_at_once():
    faults = option_faults(WRONG)
    assert set(faults) == set(WRONG)
    assert all(text.startswith(f"`{name}` must be ") for name, text in faults.items())
    assert faults["epochs"] == "`epochs` must be a whole number from 1 to 100,000; got 0."
    assert faults["resize"] == (
        "`resize` must be one of crop, stretch, pad; got 'crp'. Did you mean 'crop'?"
    )


def test_right_values_of_any_type():
    values = {
        "size": [64, 48], "epochs": np.int64(3), "dropout": 0, "dense": 3, "filters": [1, 2],
        "freeze": 2, "validation": 30, "phases": [{}], "columns": {"label": "b"}, "budget": 3.0,
        "cache": Path("x"), "augment": object(), "learning_rate": np.float32(0.1), "patience": None,
    }  # fmt: skip
    assert option_faults(values) == {}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("epochs", "3", 3),
        ("validation", "0.2", 0.2),
        ("validation", "30", 30),
        ("dense", "none", ()),
        ("filters", "1, 2", (1, 2)),
        ("freeze", "3", "3"),
        ("label_names", "a,b", ("a", "b")),
        ("learning_rate", "1e-3", 1e-3),
        ("learning_rate", "fast", "fast"),
        ("filters", "1,x", "1,x"),
    ],
)
def test_text_of_the_command_line_becomes_a_value(name, text, value):
    assert read_option(OPTIONS[name], text) == value


def test_unknown_names_get_the_nearest_known_one():
    assert unknown_name_fault("sede", OPTIONS) == "Unknown setting 'sede'. Did you mean 'seed'?"
    assert "Known: a, b." in unknown_name_fault("xyz", ["a", "b"])
