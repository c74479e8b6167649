"""What values show in a notebook: self-contained HTML, every name escaped."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from kindsight import ImageClassifier, ImageDataset, evaluate
from kindsight.checks import CheckResult, Finding
from kindsight.diagnosis import Diagnosis
from kindsight.notebook import pieces
from kindsight.training.engine.history import EpochRow, History
from shapes import CLASSES, shape

HOSTILE = '<script>alert("x")</script>\u202e&\udce9'


class Checked(HTMLParser):
    """Collects tags, and refuses a page whose elements do not nest."""

    VOID = frozenset({"img", "line", "polyline", "br"})

    def __init__(self, page):
        super().__init__()
        self.tags, self.open, self.texts = [], [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def shown(value):
    page = value._repr_html_()
    page.encode("utf-8")  # no half of a surrogate pair
    checked = Checked(page)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in checked.tags}
    for _, attributes in checked.tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href"):
            assert attributes.get(name, "data:image/jpeg;base64,").startswith("data:image/")
    assert "\u202e" not in page
    assert "url(" not in page
    return page, " ".join(checked.texts)


def history(epochs=4, validated=True):
    return History(
        [
            EpochRow(
                n, "train", 1.0, 0.001, 1 / n, 1 - 0.5 / n,
                *((0.9 / n, 1 - 0.6 / n) if validated else ()),
            )
            for n in range(1, epochs + 1)
        ]
    )  # fmt: skip


def dataset(names=CLASSES, count=3):
    arrays = [shape(kind, number) for kind in CLASSES for number in range(count)]
    return ImageDataset.from_arrays(arrays, [name for name in names for _ in range(count)])


def test_a_dataset_shows_classes_splits_and_images():
    images = dataset().with_columns(split=["train", "train", "validation"] * 3)
    page, text = shown(images)
    assert page.count("data:image/jpeg;base64,") == 9
    assert "9 images, 3 classes" in text
    assert all(name in text for name in (*CLASSES, "train", "validation"))
    assert len(page) < 100_000


def test_an_unreadable_image_is_left_out_of_the_thumbnails(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(b"no image")
    page, _ = shown(ImageDataset.from_folder(tmp_path, min_classes=1))
    assert "data:image" not in page


def test_an_evaluation_shows_its_interval_and_matrix():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6]])
    _, text = shown(evaluate(probabilities, np.array([0, 1, 1, 1]), ("cat", "dog")))
    assert "75.0% accuracy" in text
    assert "95% CI 30.1% to 95.4%" in text  # Wilson's interval of 3 of 4
    assert "66.7%" in text  # the recall of dog


@pytest.mark.parametrize("validated", [True, False])
def test_a_history_shows_its_curves(validated):
    page, text = shown(history(validated=validated))
    assert page.count("<polyline") == (4 if validated else 2)
    assert "4 epochs" in text
    assert ("validation" in text) == validated


@pytest.mark.parametrize("epochs", [0, 1])
def test_short_histories_are_shown(epochs):
    shown(history(epochs))


def test_values_that_are_not_finite_leave_a_gap():
    page = pieces.line_chart("loss", {"a": [1.0, float("nan"), 2.0, 3.0, None]})
    assert page.count("<polyline") == 2
    assert "nan" not in page
    assert pieces.line_chart("loss", {"a": [None, float("inf")]}) == ""


def test_a_classifier_shows_what_was_changed():
    _, text = shown(ImageClassifier(seed=3, size=96))
    assert "not fitted" in text
    assert "seed" in text
    assert "96" in text
    assert "resize" not in text


def test_findings_and_diagnoses_show_message_and_commands():
    finding = Finding("KS302", "warning", "Two images are alike.", (1, 2), ("a.png", "b.png"))
    for value in (finding, CheckResult("KS302", "found", (finding,))):
        _, text = shown(value)
        assert "Two images are alike." in text
        assert "a.png, b.png" in text
    found = Diagnosis("KD101", "Overfitting", "warning", "It memorises.", {"gap": 0.2}, "Epoch 5.",
                      ("kindsight train a --augment classic",))  # fmt: skip
    _, text = shown(found)
    assert "kindsight train a --augment classic" in text
    assert "KD101 Overfitting (warning)" in text


def test_hostile_names_are_escaped_everywhere():
    names = tuple(f"{HOSTILE}{number}" for number in range(3))
    finding = Finding("KS1", "error", HOSTILE, (0,), (HOSTILE,))
    values = [
        dataset(names).with_notes(HOSTILE),
        evaluate(np.eye(3), np.arange(3), names),
        ImageClassifier(model=HOSTILE),
        finding,
        CheckResult("KS1", "found", (finding,), HOSTILE),
        Diagnosis("KD1", HOSTILE, "error", HOSTILE, {}, HOSTILE, (HOSTILE,)),
    ]
    for value in values:
        page, _ = shown(value)
        assert "<script" not in page
        assert "&lt;script&gt;" in page


def test_colours_are_readable_on_light_and_dark():
    def luminance(colour):
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for colour in pieces.COLOURS:
        assert 1.05 / (luminance(colour) + 0.05) >= 3
        assert (luminance(colour) + 0.05) / 0.05 >= 3
    page = history()._repr_html_()
    # Text takes the page's own colour.
    assert not re.search(r"(?<![-\w])color:", page)


def test_long_tables_are_cut(tmp_path):
    labels = [f"class {number:03d}" for number in range(300)]
    page, text = shown(ImageDataset.from_files([f"{name}.png" for name in labels], labels))
    assert "and 280 more classes" in text
    assert len(page) < 30_000
