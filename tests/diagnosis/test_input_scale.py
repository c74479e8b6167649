"""What a network multiplies its pixels by, from the config of a user's file."""

from __future__ import annotations

import pytest

from kindsight.runs.diagnosing import evidence


def layer(name, **config):
    return {"class_name": name, "config": config}


@pytest.mark.parametrize(
    ("layers", "scale"),
    [
        ([layer("Rescaling", scale=1 / 255)], 1 / 255),
        ([layer("Rescaling", scale=0.5), layer("Normalization", variance=[16384.0] * 3)], 1 / 256),
        ([layer("Functional", layers=[layer("Rescaling", scale=0.25)])], 0.25),
        ([layer("Normalization", variance=None)], None),
        ([layer("Rescaling", scale="x")], None),
        ([], 1.0),
    ],
)
def test_the_scale_of_the_input(layers, scale, monkeypatch):
    config = {"config": {"layers": [layer("InputLayer"), *layers, layer("Conv2D")]}}
    monkeypatch.setattr(evidence, "read_keras_config", lambda path: config)
    found = evidence._input_scale(None)
    assert found == (None if scale is None else pytest.approx(scale))
