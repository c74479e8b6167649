"""The images that a report shows: each confusion has one before another has a second."""

from __future__ import annotations

import numpy as np

from kindsight.report.data import Predictions
from kindsight.report.gallery import Cell, choose_images


def predictions(cells: list[tuple[int, int, float]], classes: int = 3) -> Predictions:
    """Return one image for each (label, prediction, confidence)."""
    rows = np.zeros((len(cells), classes))
    for row, (_, predicted, confidence) in enumerate(cells):
        rows[row] = (1 - confidence) / (classes - 1)
        rows[row, predicted] = confidence
    paths = tuple(f"{row}.jpg" for row in range(len(cells)))
    return Predictions(paths, np.array([label for label, _, _ in cells]), rows)


def found(cells: tuple[Cell, ...]) -> dict[tuple[int, int], tuple[int, ...]]:
    return {(cell.label, cell.prediction): cell.rows for cell in cells}


def test_mistakes_come_most_confident_first_and_correct_ones_least():
    gallery = choose_images(
        predictions([(0, 1, 0.6), (0, 1, 0.9), (0, 0, 0.95), (0, 0, 0.5), (2, 2, 0.99)])
    )
    assert found(gallery.cells) == {(0, 0): (3, 2), (0, 1): (1, 0), (2, 2): (4,)}
    assert gallery.mistakes == (1, 0)
    assert [cell.images for cell in gallery.cells] == [2, 2, 1]


def test_every_confusion_has_an_image_before_another_has_a_second():
    many = [(0, 1, 0.9 - 0.01 * number) for number in range(20)]
    cells = [*many, (1, 2, 0.7), (2, 0, 0.8), (1, 1, 0.9)]
    assert found(choose_images(predictions(cells), 3).cells) == {
        (0, 1): (0,), (1, 2): (20,), (2, 0): (21,), (1, 1): ()
    }  # fmt: skip
    assert found(choose_images(predictions(cells), 5).cells)[0, 1] == (0, 1, 2)
    shown = found(choose_images(predictions(cells)).cells)
    assert len(shown[0, 1]) == 12
    assert shown[1, 1] == (22,)


def test_the_number_of_images_is_bounded():
    generator = np.random.default_rng(0)
    k, n = 50, 5_000
    cells = list(
        zip(*(generator.integers(k, size=n).tolist() for _ in "ab"), [0.9] * n, strict=True)
    )
    gallery = choose_images(predictions(cells, k))
    assert len(gallery.small) == 480
    assert len(gallery.mistakes) == 24
    assert len(gallery.uncertain) <= 12
