"""The example on each check's page: the check finds what the page shows, and nothing else."""

from __future__ import annotations

import importlib
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from check_images import write_files
from PIL import Image

from kindsight.cache.folder import Cache
from kindsight.checks import CheckContext, RowFeatures, all_checks, measure_dataset
from kindsight.images import read_image
from kindsight.models.backbones.backbone import FeatureBlock, FeatureLayout
from kindsight.runs.checking.out_of_fold import out_of_fold_predictions
from kindsight.runs.checking.run import open_for_checking

DOCS = Path(__file__).resolve().parents[2] / "docs"
CODES = [check.code for check in all_checks()]
each_code = pytest.mark.parametrize("code", CODES)

# Mean difference in levels that another version's fonts or rounding may cause.
CLOSE = 6.0


@pytest.fixture(scope="module")
def examples() -> Iterator[Any]:
    """The module of examples, imported as the script that draws the sheets imports it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        yield importlib.import_module("check_examples")
    for name in [name for name in sys.modules if name.partition(".")[0] == "check_examples"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def made(examples: Any) -> dict[str, Any]:
    """Each example, made once."""
    return {code: make() for code, make in examples.EXAMPLES.items()}


def colours(context: CheckContext, folder: Path) -> RowFeatures:
    """Return simple features: a colour histogram, a small image and edge quantiles."""
    rows = context.readable_rows
    vectors = []
    for row in rows.tolist():
        pixels = read_image(folder / context.dataset.path[row])
        counts = cv2.calcHist([pixels], [0, 1, 2], None, [4, 4, 4], [0, 256] * 3).ravel()
        small = cv2.resize(pixels, (4, 4), interpolation=cv2.INTER_AREA).ravel() / 255
        edges = cv2.Laplacian(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.CV_32F)
        steps = np.quantile(np.abs(edges), np.linspace(0.5, 1, 32)) / 255
        vectors.append(np.concatenate([np.sqrt(counts / counts.sum()), small, steps]))
    return RowFeatures(rows, np.array(vectors, np.float32))


@each_code
def test_a_check_finds_its_example(code: str, made: dict[str, Any], tmp_path: Path) -> None:
    example = made[code]
    folder = write_files(tmp_path / "photos", example.files)
    if len({path.name for path in folder.rglob("*") if path.is_file()}) < len(
        {name.rpartition("/")[2] for name in example.files}
    ):
        pytest.skip("this file system ignores case")
    dataset, contents = open_for_checking(folder)
    context = CheckContext(*measure_dataset(dataset, Cache(tmp_path / "cache")), contents)
    vectors = []

    def features() -> RowFeatures:
        vectors.append(colours(context, folder))
        return vectors[-1]

    context.compute_features = features
    layout = FeatureLayout((FeatureBlock("colours", 0, 144),))
    context.compute_out_of_fold = lambda: out_of_fold_predictions(
        context, context.features or features(), layout
    )
    (check,) = (check for check in all_checks() if check.code == code)
    result = check.run(context)
    found = [path for finding in result.findings for path in finding.paths]
    assert sorted(found) == sorted(example.found)
    assert bool(vectors) == (check.cost == "full")


@each_code
def test_the_page_of_a_check_shows_its_example(code: str, made: dict[str, Any]) -> None:
    example = made[code]
    text = (DOCS / "checks" / f"{code}.md").read_text("utf-8")
    assert f"](../images/checks/{code}.webp)" in text
    assert " ".join(example.caption.split()) in " ".join(text.split())
    names = {*example.files, *example.found}
    assert {*example.shown, *example.notes, *example.faces} <= names


@each_code
def test_the_image_of_a_page_matches_its_drawing(code: str, made: dict[str, Any]) -> None:
    drawn = np.asarray(runpy.run_path(str(DOCS / "make_check_examples.py"))["sheet"](made[code]))
    file = DOCS / "images" / "checks" / f"{code}.webp"
    saved = np.asarray(Image.open(file).convert("RGB"))
    assert saved.shape == drawn.shape, "run: python docs/make_check_examples.py"
    assert np.abs(saved.astype(int) - drawn).mean() < CLOSE


def test_the_images_of_the_pages_are_small(made: dict[str, Any]) -> None:
    files = list((DOCS / "images" / "checks").iterdir())
    assert sorted(file.stem for file in files) == sorted(made) == sorted(CODES)
    assert sum(file.stat().st_size for file in files) < 1_000_000
