"""On composed images with the object in a known quarter, the maps are there: a trained network."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from kindsight.bundle import load_bundle
from kindsight.explain.saliency import class_weights, make_method

SIDE = 48


COLOURS = {"blue": (40, 60, 220), "green": (40, 190, 60), "red": (220, 50, 40)}


def composed(kind: str, seed: int) -> tuple[np.ndarray, int]:
    """Return noise with a coloured disc in one quarter, a grey one in others, and the quarter."""
    random = np.random.default_rng([seed, list(COLOURS).index(kind)])
    image = random.normal(110, 25, (SIDE, SIDE, 3))
    chosen = int(random.integers(4))
    for quarter in range(4):
        y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 4
        y = y - quarter // 2 * SIDE / 2 + random.uniform(-3, 3)
        x = x - quarter % 2 * SIDE / 2 + random.uniform(-3, 3)
        inside = np.hypot(x, y) < random.uniform(5, 8)
        colour = COLOURS[kind] if quarter == chosen else [random.uniform(40, 220)] * 3
        image[inside] = 0.4 * image[inside] + 0.6 * np.array(colour)
    return image.clip(0, 255).round().astype(np.uint8), chosen


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return the run of a small CNN on 240 composed images."""
    from kindsight.runs.train import TrainSettings, train

    folder = tmp_path_factory.mktemp("quarters")
    for kind in COLOURS:
        (folder / "data" / kind).mkdir(parents=True)
        for seed in range(80):
            pixels, _ = composed(kind, seed)
            Image.fromarray(pixels).save(folder / "data" / kind / f"{seed}.png")
    return train(
        TrainSettings(
            str(folder / "data"),
            runs=str(folder / "runs"),
            model="small-cnn",
            size=SIDE,
            epochs=12,
            pooling="average",
            filters=(16, 32, 64),
            dense=(),
            seed=1,
            leakage="keep",
        )
    ).run


@pytest.mark.slow
@pytest.mark.parametrize("name", ["grad-cam", "occlusion"])
def test_the_map_is_in_the_quarter_of_the_object(run, name):
    bundle = load_bundle(run)
    method, hits, shares = make_method(name, bundle), 0, []
    for number in range(40):
        kind = bundle.classes[number % 3]
        pixels, quarter = composed(kind, 1000 + number)
        weights = class_weights(bundle.classes, bundle.classes.index(kind))
        found = method.map(pixels, weights)
        half = found.shape[0] // 2, found.shape[1] // 2
        found = found[: 2 * half[0], : 2 * half[1]]
        sums = found.reshape(2, half[0], 2, half[1]).sum(axis=(1, 3)).ravel()
        hits += int(sums.argmax() == quarter)
        shares.append(sums[quarter] / max(sums.sum(), 1e-9))
    assert hits >= 32
    assert np.mean(shares) > 0.4
