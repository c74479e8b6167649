"""EfficientNet-Lite against the reference implementation in PyTorch.

``tests/golden/make_golden.py`` writes the golden files. The images come from a formula.
"""

import runpy
from pathlib import Path

import numpy as np
import pytest

from kindsight.models.backbones.efficientnet_lite import build_efficientnet_lite
from kindsight.models.backbones.table import BACKBONES
from kindsight.models.backbones.weights import load_state

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
NATIVE = {"efficientnet-lite0": 224, "efficientnet-lite1": 240, "efficientnet-lite2": 260}
ODD_SIZE = (171, 246)
STAGES = [f"stage{number}" for number in range(1, 8)]
# Largest difference as a fraction of the largest value.
TOLERANCE = 1e-3

CASES = [
    ("efficientnet-lite0", None, "own"),
    ("efficientnet-lite0", ODD_SIZE, "odd"),
    pytest.param("efficientnet-lite1", None, "own", marks=pytest.mark.slow),
    pytest.param("efficientnet-lite2", ODD_SIZE, "odd", marks=pytest.mark.slow),
]


def golden(name):
    return np.load(GOLDEN / f"{name.replace('-', '_')}.npz", allow_pickle=False)


def outputs(name, size):
    """Return logits, features and stage means of the Keras model, as named in the golden file."""
    import keras

    model = build_efficientnet_lite(name, size=size, weights=load_state(name), classes=1000)
    classifier = 1281 * 1000
    assert model.count_params() - classifier == BACKBONES[name].parameters
    ends = [model.get_layer(f"{stage}_out").output for stage in STAGES]
    features = model.get_layer("top_mean").output
    probe = keras.Model(model.input, [model.output, features, *ends])
    height, width = size or (NATIVE[name], NATIVE[name])
    images = runpy.run_path(str(GOLDEN / "patterns.py"))["make_images"](2, (height, width))
    logits, features, *maps = probe(images.astype(np.float32), training=False)
    means = [np.asarray(values).mean(axis=(1, 2)) for values in maps]
    return {
        "logits": np.asarray(logits),
        "features": np.asarray(features),
        **dict(zip(STAGES, means, strict=True)),
    }


@pytest.mark.parametrize(("name", "size", "prefix"), CASES)
def test_network_agrees_with_the_reference(name, size, prefix):
    expected = golden(name)
    got = outputs(name, size)
    assert set(got) == {key[4:] for key in expected.files if key.startswith(prefix)}
    for key, values in got.items():
        reference = expected[f"{prefix}_{key}"]
        assert values.shape == reference.shape
        difference = np.abs(values - reference).max() / np.abs(reference).max()
        assert difference < TOLERANCE, (key, difference)
        # The images differ, so a network that ignored its input would be noticed.
        assert np.abs(reference[0] - reference[1]).max() > 0.01 * np.abs(reference).max()
    if (name, prefix) == ("efficientnet-lite0", "own"):
        # Both images show a bright disk: ballpoint (418) and balloon (417).
        assert got["logits"].argmax(axis=1).tolist() == [418, 417]


def test_golden_files_are_small():
    sizes = [path.stat().st_size for path in GOLDEN.glob("*.np[yz]")]
    assert len(sizes) == 6
    assert max(sizes) < 200_000
