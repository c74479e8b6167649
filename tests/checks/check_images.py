"""Images and contexts for the tests of checks."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from kindsight.cache.folder import Cache
from kindsight.checks import (
    SEVERITIES,
    STATES,
    Check,
    CheckContext,
    CheckResult,
    OutOfFoldPredictions,
    RowFeatures,
    all_checks,
    measure_dataset,
    scan_folder,
)
from kindsight.dataset import ImageDataset


def scene(seed: int = 0, height: int = 120, width: int = 160) -> np.ndarray:
    """Return an image like a photograph: smooth gradients, edges, a little noise."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    image = np.zeros((height, width, 3))
    for scale in (2, 4, 8, 16):
        for _ in range(3):
            angle, phase = random.uniform(0, 2 * np.pi, 2)
            wave = np.sin(2 * np.pi * scale * (x * np.cos(angle) + y * np.sin(angle)) + phase)
            image += wave[..., None] * random.uniform(-60, 60, 3) / scale**0.5
    top, left = random.uniform(0.1, 0.5, 2)
    inside = (y > top) & (y < top + 0.2) & (x > left) & (x < left + 0.3)
    image[inside] += random.uniform(-80, 80, 3)
    image += random.normal(0, 6, image.shape) + random.uniform(100, 150, 3)
    return image.clip(0, 255).round().astype(np.uint8)


def file_of(image: np.ndarray, ending: str = "jpg", **options: object) -> bytes:
    """Return the image encoded in the format of that extension."""
    file = io.BytesIO()
    name = {"jpg": "JPEG", "tif": "TIFF"}.get(ending, ending.upper())
    if ending == "jpg":
        options = {"quality": 90, **options}
    Image.fromarray(image).save(file, name, **options)
    return file.getvalue()


def write_files(folder: Path, files: Mapping[str, bytes | np.ndarray]) -> Path:
    """Write files by their relative paths; arrays are encoded by extension."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content
        if isinstance(data, np.ndarray):
            data = file_of(data, name.rpartition(".")[2].lower())
        path.write_bytes(data)
    return folder


def context_of(
    folder: Path, cache: Path, files: Mapping[str, bytes | np.ndarray] | None = None
) -> CheckContext:
    """Write files into class folders and return their measured context."""
    write_files(folder, files or {})
    dataset = ImageDataset.from_folder(folder, min_classes=1)
    dataset, measurements = measure_dataset(dataset, Cache(cache), workers=2)
    return CheckContext(dataset, measurements, scan_folder(folder, dataset.path))


def run(code: str, context: CheckContext) -> CheckResult:
    """Return the result of the check of that code."""
    (check,) = (check for check in all_checks() if check.code == code)
    return check.run(context)


def with_features(context: CheckContext) -> CheckContext:
    """Return the context with random, reproducible features and predictions."""
    rows = context.readable_rows
    labelled = rows[context.dataset.targets[rows] >= 0]

    def features() -> RowFeatures:
        random = np.random.default_rng(0)
        return RowFeatures(rows, random.normal(size=(len(rows), 16)).astype(np.float32))

    def out_of_fold() -> OutOfFoldPredictions:
        random = np.random.default_rng(1)
        k = max(1, len(context.dataset.classes))
        return OutOfFoldPredictions(labelled, random.dirichlet(np.ones(k), len(labelled)))

    return CheckContext(
        context.dataset, context.measurements, context.folder_contents, features, out_of_fold
    )


def assert_contract(check: Check, context: CheckContext) -> None:
    """Assert what holds for the result of every check on every dataset."""
    before = context.dataset, context.measurements.numeric.tobytes()
    result = check.run(context)
    assert result.code == check.code and result.state in STATES
    assert result.reason or result.state in ("found", "passed")
    assert result.state != "skipped"
    for finding in result.findings:
        assert finding.code == check.code
        assert SEVERITIES.index(finding.severity) >= SEVERITIES.index(check.severity)
        assert (
            finding.message[0].isupper() or finding.message[0].isdigit()
        ) and finding.message.endswith(".")
        assert "\n" not in finding.message
        assert len(set(finding.rows)) == len(finding.rows)
        assert finding.paths or finding.rows == ()
        if finding.rows:
            assert finding.paths == tuple(context.dataset.path[row] for row in finding.rows)
        assert finding.value is None or np.isfinite(finding.value)
    assert check.run(context) == result, "a check must be deterministic"
    assert (context.dataset, context.measurements.numeric.tobytes()) == before
