"""The page itself: escaped, self-contained, bounded, and saying what the evaluation says."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from html.parser import HTMLParser
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kindsight.errors import UsageError
from kindsight.evaluation import evaluate
from kindsight.models.networks.small_cnn import LayerRow
from kindsight.report import (
    HeadChoice,
    Predictions,
    Problem,
    Reference,
    ReportData,
    ThumbnailCard,
    TrainedOn,
    make_cards,
    most_doubtful,
    render_report,
    thumbnail_uri,
    worst_mistakes,
)

VOID = {"meta", "img", "line", "rect", "circle", "path", "br"}
FETCHING = {"src", "srcset", "href", "data", "poster", "action", "xlink:href", "style"}


class Page(HTMLParser):
    """Everything in a page that the tests ask about, from an independent parser."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.unbalanced: list[str] = []
        self.rows: list[list[str]] = []
        self.pieces: list[tuple[str, str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data):
        if self.open:
            self.pieces.append((self.open[-1], data))
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data.strip()

    def text_of(self, tag: str) -> str:
        return "".join(data for name, data in self.pieces if name == tag)

    @property
    def names(self) -> list[str]:
        return [tag for tag, _ in self.tags]


def said(k: int, n: int, seed: int = 0, right: float = 4.0) -> Predictions:
    generator = np.random.default_rng(seed)
    targets = np.arange(n) % k
    logits = generator.normal(size=(n, k))
    logits[np.arange(n), targets] += right
    powers = np.exp(logits)
    paths = tuple(f"class/{i}.jpg" for i in range(n))
    return Predictions(paths, targets, powers / powers.sum(axis=1, keepdims=True))


def trained_on(classes, **changes) -> TrainedOn:
    facts = {
        "source": "photos",
        "classes": {name: {"train": 40, "validation": 10} for name in classes},
        "made": {
            "Backbone": "EfficientNet-Lite0",
            "Features": "the last mean",
            "Head": "softmax regression",
        },
        "temperature_from": "out-of-fold predictions",
        "input_size": (224, 256),
        "temperature": 1.25,
        "seed": 7,
        "seconds": {"read": 1.0, "features": 2.0, "fit": 0.5, "total": 4.0},
        "choices": (
            HeadChoice("weak", 0.9, 0.02, 0.3, 0.2),
            HeadChoice("strong", 0.95, None, 0.2, None, chosen=True),
        ),
    }
    return TrainedOn(**(facts | changes))


def report(k: int = 3, n: int = 90, *, right: float = 2.0, names=None, **changes) -> ReportData:
    names = names or [f"kind {i}" for i in range(k)]
    predictions = said(k, n, right=right)
    rows = worst_mistakes(predictions)
    image = np.full((30, 40, 3), 128, np.uint8)
    facts = {
        "title": "A report",
        "run": "photos-1",
        "created": "2025-01-02 03:04",
        "trained_on": trained_on(names),
        "evaluation": evaluate(predictions.probabilities, predictions.targets, names),
        "predictions": predictions,
        "mistakes": make_cards(rows, predictions, names, lambda row: image),
        "doubtful": make_cards(
            most_doubtful(predictions, exclude=rows), predictions, names, lambda row: image
        ),
    }
    return ReportData(**(facts | changes))


class Epoch(NamedTuple):
    epoch: int
    phase: str = "train"
    seconds: float = 2.5
    learning_rate: float = 1e-3
    loss: float = 0.4321
    accuracy: float = 0.75
    val_loss: float | None = 0.5
    val_accuracy: float | None = 0.875


def everything() -> ReportData:
    """A report in which every section is there."""
    data = report()
    return dataclasses.replace(
        data,
        history=(Epoch(1, "head"), Epoch(2, "head", val_accuracy=0.9), Epoch(3, "all")),
        best_epoch=2,
        test=data.evaluation,
        test_predictions=data.predictions,
        reference=(Reference("theirs", 0.8244, "a paper"),),
        problems=(Problem("a.jpg", "truncated", "It ends early."),),
        notes=("A note.",),
        warnings=("A warning.",),
        run_folder="runs/my photos-1",
    )


@pytest.mark.parametrize(
    "data",
    [
        report(2, 40),
        report(12, 240),
        report(40, 400),
        report(2, 40, right=50.0),
        report(evaluation=None, predictions=None, mistakes=(), doubtful=()),
        report(predictions=None),
        report(trained_on=trained_on(["a", "b", "c"], seconds={}, choices=())),
        everything(),
    ],
    ids=["two", "twelve", "forty", "perfect", "unmeasured", "without", "bare", "everything"],
)
def test_every_kind_of_page_is_whole_and_fetches_nothing(data):
    text = render_report(data)
    page = Page(text)
    assert page.unbalanced == []
    assert page.open == []
    assert "script" not in page.names
    assert not {"link", "iframe", "object", "embed", "base", "form"} & set(page.names)
    assert "http://" not in text
    assert "https://" not in text
    assert "url(" not in text
    assert "@import" not in text
    for _, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in FETCHING & set(attributes):
            assert re.match(r"data:image/jpeg;base64,|#", attributes[name] or "")
    assert all(attributes.get("alt") for tag, attributes in page.tags if tag == "img")
    assert all(attributes.get("aria-label") for tag, attributes in page.tags if tag == "svg")
    identities = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(identities)) == len(identities)
    wanted = {a["href"][1:] for tag, a in page.tags if tag == "a"}
    assert wanted <= set(identities)


def test_policy_forbids_scripts_and_fetches():
    policies = [
        attributes["content"]
        for tag, attributes in Page(render_report(report())).tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)></title></style>{{ 7*7 }}"


def test_everything_from_outside_is_escaped():
    data = report(3, 60, names=[HOSTILE, "b", "c"])
    card = ThumbnailCard(HOSTILE, None, HOSTILE, HOSTILE + "!", 0.9, HOSTILE)
    data = dataclasses.replace(
        data,
        title=HOSTILE,
        run=HOSTILE,
        created=HOSTILE,
        trained_on=trained_on(
            [HOSTILE, "b"],
            source=HOSTILE,
            made={HOSTILE: HOSTILE},
            temperature_from=HOSTILE,
            layers=(LayerRow(HOSTILE, HOSTILE, (1, 2), 3),),
            seconds={HOSTILE: 1.0},
            choices=(HeadChoice(HOSTILE, 0.9, 0.1, 0.2),),
            versions={HOSTILE: HOSTILE},
            machine=HOSTILE,
            facts={HOSTILE: HOSTILE},
        ),
        reference=(Reference(HOSTILE, 0.5, HOSTILE),),
        mistakes=(card,),
        doubtful=(card,),
        cards_from=HOSTILE,
        problems=(Problem(HOSTILE, HOSTILE, HOSTILE),),
        notes=(HOSTILE,),
        warnings=(HOSTILE,),
        run_folder=HOSTILE,
        history=(Epoch(1, HOSTILE), Epoch(2, HOSTILE + "!")),
        best_epoch=1,
    )
    text = render_report(data)
    page = Page(text)
    assert "<script" not in text.lower()
    assert "img" not in page.names
    assert page.names.count("title") == 1 + text.count("<g><title>")
    assert page.names.count("style") == 1
    assert page.unbalanced == []
    assert "49" not in page.text_of("h1")
    assert HOSTILE in page.text_of("bdi")


@pytest.mark.parametrize(
    "image",
    [
        "javascript:alert(1)",
        "https://example.org/a.jpg",
        "data:text/html;base64,AAAA",
        "data:image/svg+xml;base64,AAAA",
        'data:image/jpeg;base64,AAAA" onload="x',
        "data:image/jpeg;base64," + "A" * (1 << 16),
    ],
)
def test_only_small_data_images_are_shown(image):
    card = ThumbnailCard("a.jpg", image, "kind 0", "kind 1", 0.9)
    text = render_report(report(mistakes=(card,), doubtful=()))
    assert "img" not in Page(text).names
    assert "cannot be shown" in text


def test_control_characters_and_undecodable_bytes_leave_a_writable_page():
    path = "a\x00\x1b[31m\u202egpj.exe\udc80\u2066.jpg"
    text = render_report(report(problems=(Problem(path, "corrupt", "Broken."),)))
    assert text.encode("utf-8")
    assert not re.search("[\x00\x1b\u202e\u2066\ud800-\udfff]", text)
    assert "a\ufffd\ufffd[31m\ufffdgpj.exe\ufffd\ufffd.jpg" in text


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=300), min_size=2, max_size=4, unique=True))
def test_any_names_give_a_whole_page(names):
    text = render_report(report(len(names), 24, names=names, mistakes=(), doubtful=()))
    assert text.encode("utf-8")
    assert Page(text).unbalanced == []
    assert "script" not in Page(text).names


def test_headline_says_what_the_evaluation_says():
    data = report(4, 200)
    page = Page(render_report(data))
    found = data.evaluation
    shown = re.match(r"([\d.]+)% of (\d+) validation images right", page.text_of("strong"))
    assert shown is not None
    assert float(shown[1]) == pytest.approx(100 * found.accuracy, abs=0.05)
    assert int(shown[2]) == found.images == 200
    low, high = re.search("interval ([\\d.]+)\u2013([\\d.]+)%", page.text_of("span")).groups()
    assert float(low) == pytest.approx(100 * found.accuracy_interval[0], abs=0.05)
    assert float(high) == pytest.approx(100 * found.accuracy_interval[1], abs=0.05)
    assert "Trained on 160 images of 4 classes" in page.text_of("h1")


def test_tiles_say_what_the_evaluation_says():
    data = report(4, 200)
    tiles = re.findall(r"<dt>([^<]+)</dt><dd><b>([\d.]+)%?</b>", render_report(data))
    shown = {name: float(value) for name, value in tiles}
    found = data.evaluation
    assert shown == pytest.approx(
        {
            "Accuracy": 100 * found.accuracy,
            "Balanced accuracy": 100 * found.balanced_accuracy,
            "Macro F1": 100 * found.macro_f1,
            "Log loss": found.log_loss,
            "Calibration error": 100 * found.ece,
        },
        abs=0.0501,
    )


def test_tables_say_what_the_evaluation_says():
    data = report(4, 200)
    rows = Page(render_report(data)).rows
    corner = next(i for i, row in enumerate(rows) if row and row[0].startswith("label"))
    matrix = [[int(cell) for cell in row[1:]] for row in rows[corner + 1 : corner + 5]]
    assert matrix == data.evaluation.confusion.tolist()
    head = next(i for i, row in enumerate(rows) if row[:2] == ["Class", "Recall"])
    for score, row in zip(data.evaluation.classes, rows[head + 1 : head + 5], strict=True):
        assert row[0] == score.name
        assert float(row[1].rstrip("%")) == pytest.approx(100 * score.recall, abs=0.051)
        assert float(row[3].rstrip("%")) == pytest.approx(100 * score.precision, abs=0.051)
        assert float(row[4].rstrip("%")) == pytest.approx(100 * score.f1, abs=0.051)
        assert int(row[5]) == score.support


def test_test_images_stand_before_validation():
    data = everything()
    page = Page(render_report(data))
    assert "of 90 test images right" in page.text_of("strong")
    assert "The same for the validation images" in page.text_of("summary")


def test_references_stand_beside_ours_best_first():
    data = dataclasses.replace(everything(), reference=(Reference("top", 0.9999, "x"),))
    rows = Page(render_report(data)).rows
    head = next(i for i, row in enumerate(rows) if row[:2] == ["Classifier", "Accuracy"])
    assert rows[head + 1][:2] == ["topx", "99.99%"]
    assert rows[head + 2][0].startswith("this classifier")
    assert float(rows[head + 2][1].rstrip("%")) == pytest.approx(
        100 * data.test.accuracy, abs=0.0051
    )


def test_what_was_not_measured_is_said_so():
    text = render_report(report(evaluation=None, predictions=None, mistakes=(), doubtful=()))
    page = Page(text)
    assert "how good it is has not been measured" in page.text_of("strong")
    assert "cross-validation on the training images 95.0% were right" in " ".join(text.split())
    assert "confusion" not in [attributes.get("id") for _, attributes in page.tags]


def test_a_perfect_result_is_doubted():
    page = Page(render_report(report(2, 40, right=50.0)))
    assert "100% of 40 validation images right" in page.text_of("strong")
    assert "No mistakes" in page.text_of("h2")
    # Wilson's lower end for 40 of 40 is 40 / (40 + 1.96^2) = 91.2%
    assert "cannot rule out that up to 8.8% of new ones will be" in page.text_of("p")


def test_facts_of_the_training_are_there():
    text = render_report(everything())
    for fact in (
        "224 \u00d7 256",
        "1.250",
        "EfficientNet-Lite0",
        "truncated",
        "A note.",
        "A warning.",
    ):
        assert fact in text
    assert "kindsight predict &#39;runs/my photos-1&#39; new/*.jpg" in text


def test_epochs_are_drawn_and_told():
    data = everything()
    page = Page(render_report(data))
    drawn = [a["aria-label"] for tag, a in page.tags if tag == "svg" and "curve" in a["class"]]
    assert [label.split(" by epoch")[0] for label in drawn] == ["Accuracy", "Loss"]
    assert "90.0% at the best, 2" in drawn[0]
    head = next(i for i, row in enumerate(page.rows) if row[:2] == ["Epoch", "Phase"])
    assert page.rows[head + 2] == [
        "best2", "head", "75.0%", "90.0%", "0.4321", "0.5000", "0.001", "2.50 s"
    ]  # fmt: skip
    assert "The best of 3 epochs was epoch 2: 90.0%" in page.text_of("p")
    assert "head (epochs 1\u20132), all (epoch 3)" in " ".join(page.text_of("figcaption").split())
    assert "Learning" in page.text_of("a")


def test_epochs_without_validation_or_phases_leave_their_columns_out():
    rows = tuple(Epoch(i, val_loss=None, val_accuracy=None) for i in (1, 2))
    text = render_report(report(history=rows, best_epoch=1))
    head = next(row for row in Page(text).rows if row[:1] == ["Epoch"])
    assert head == ["Epoch", "Training accuracy", "Training loss", "Learning rate", "Time"]
    assert "Phases" not in text
    assert "history" not in Page(render_report(report())).text_of("figcaption")


def test_page_stays_under_its_bound():
    k, n = 600, 6000
    names = ["n" * 60 + str(i) for i in range(k)]
    predictions = said(k, n, right=3.0)
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    cards = make_cards(worst_mistakes(predictions, 40), predictions, names, lambda row: noise)
    found = evaluate(predictions.probabilities, predictions.targets, names)
    data = ReportData(
        title="t",
        run="r",
        created="c",
        trained_on=trained_on(names),
        evaluation=found,
        test=found,
        predictions=predictions,
        test_predictions=predictions,
        mistakes=cards,
        doubtful=cards,
        problems=(Problem("p" * 3000, "corrupt", "r" * 3000),) * 5000,
        notes=("n" * 5000,) * 500,
        history=tuple(Epoch(i, "p" * 60 + str(i % 2)) for i in range(1, 20_001)),
        best_epoch=777,
    )
    text = render_report(data)
    assert "100 of 20,000 epochs" in text
    assert Page(text).names.count("img") == 48
    assert len(text.encode()) < 1.5e6
    assert "The first 100 are shown" in text
    assert "the 100 weakest of 600" in text


def test_predictions_must_fit_together():
    with pytest.raises(UsageError, match="one row for each image"):
        Predictions(("a",), np.array([0, 1]), np.full((2, 2), 0.5))
    assert said(3, 9, right=9.0).predicted.tolist() == [0, 1, 2] * 3


def test_thumbnails_are_inside_the_page():
    uri = thumbnail_uri(np.zeros((20, 20, 3), np.uint8))
    card = ThumbnailCard("x/a.jpg", uri, "kind 0", "kind 1", 0.987, "then kind 0 (1.3%)")
    text = render_report(report(mistakes=(card,), doubtful=()))
    images = [attributes for tag, attributes in Page(text).tags if tag == "img"]
    assert [image["src"] for image in images] == [uri]
    assert images[0]["alt"] == "Image labelled kind 0, answered kind 1"
    assert "98.7% sure" in text


def test_import_is_light():
    code = (
        "import sys, kindsight.report;"
        "bad = ('tensorflow', 'keras', 'scipy', 'sklearn', 'matplotlib', 'pandas');"
        "print([m for m in bad if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
