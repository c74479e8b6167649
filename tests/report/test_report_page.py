"""The report page: escaped, self-contained, bounded, with the values of the evaluation."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from html_page import HOSTILE, Page
from kindsight.errors import UsageError
from kindsight.evaluation import evaluate
from kindsight.models.networks.small_cnn import LayerRow
from kindsight.report.data import (
    AccuracyAtSize,
    ClassOutlook,
    FeatureMap,
    HeadCandidateRow,
    LearningCurve,
    MappedImage,
    Overlay,
    Predictions,
    PredictionSets,
    Reference,
    ReportData,
    RiskCoverage,
    RiskPoint,
    SkippedImage,
    Slice,
    SplitResult,
    TrainingSummary,
    UnknownScore,
)
from kindsight.report.gallery import choose_images, thumbnail_uri
from kindsight.report.page import render_report

ALLOWED = r"data:image/jpeg;base64,|#|left:[\d.]+%;top:[\d.]+%;width:[\d.]+%$"
FETCHING = {"src", "srcset", "href", "data", "poster", "action", "xlink:href", "style"}


def predictions_of(k: int, n: int, seed: int = 0, right: float = 4.0) -> Predictions:
    generator = np.random.default_rng(seed)
    targets = np.arange(n) % k
    logits = generator.normal(size=(n, k))
    logits[np.arange(n), targets] += right
    powers = np.exp(logits)
    paths = tuple(f"class/{i}.jpg" for i in range(n))
    return Predictions(paths, targets, powers / powers.sum(axis=1, keepdims=True))


def training_summary(classes, **changes) -> TrainingSummary:
    facts = {
        "source": "photos",
        "classes": {name: {"train": 40, "validation": 10} for name in classes},
        "details": {"Backbone": "EfficientNet-Lite0", "Head": "softmax regression"},
        "temperature_source": "out-of-fold predictions",
        "input_size": (224, 256),
        "temperature": 1.25,
        "seed": 7,
        "seconds": {"read": 1.0, "features": 2.0, "fit": 0.5, "total": 4.0},
        "candidates": (
            HeadCandidateRow("weak", 0.9, 0.02, 0.3, 0.2),
            HeadCandidateRow("strong", 0.95, None, 0.2, None, selected=True),
        ),
    }
    return TrainingSummary(**(facts | changes))


def report(k: int = 3, n: int = 90, *, right: float = 2.0, names=None, **changes) -> ReportData:
    names = names or [f"kind {i}" for i in range(k)]
    predictions = predictions_of(k, n, right=right)
    image = thumbnail_uri(np.full((30, 40, 3), 128, np.uint8))
    evaluation = evaluate(predictions.probabilities, predictions.targets, names)
    facts = {
        "title": "A report",
        "run": "photos-1",
        "created": "2025-01-02 03:04",
        "training": training_summary(names),
        "results": (SplitResult("validation", evaluation, predictions),),
        "large_images": dict.fromkeys(predictions.paths, image),
        "small_images": dict.fromkeys(predictions.paths, image),
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
    """Return a report with every section."""
    data = report()
    return dataclasses.replace(
        data,
        history=(Epoch(1, "head"), Epoch(2, "head", val_accuracy=0.9), Epoch(3, "all")),
        best_epoch=2,
        reference=(Reference("theirs", 0.8244, "a paper"),),
        skipped=(SkippedImage("a.jpg", "truncated", "It ends early."),),
        notes=("A note.",),
        warnings=("A warning.",),
        run_folder="runs/my photos-1",
        **trust(data),
    )


def trust(data: ReportData, text: str = "photos") -> dict:
    """Return the sections on diagnosis, uncertainty, slices, features and more images."""
    predictions = data.results[0].predictions
    scores = np.linspace(0, 3, len(predictions))
    image = thumbnail_uri(np.full((30, 40, 3), 128, np.uint8))
    found = dataclasses.replace(predictions, ood_scores=scores)
    places = tuple(MappedImage(path, 0.1, 0.9) for path in predictions.paths[:20])
    jpeg = base64.b64decode(thumbnail_uri(np.zeros((20, 20, 3), np.uint8)).partition(",")[2])
    return {
        "results": (data.results[0]._replace(name="test", predictions=found), *data.results),
        "diagnoses": (Finding(message=text, title=text, evidence=text, commands=(text, text)),),
        "risk_coverage": RiskCoverage(
            (RiskPoint(0.9, 0.5, 0.99), RiskPoint(0.6, 0.8, 0.95), RiskPoint(0.0, 1.0, 0.9)),
            0.6, 0.95, None, 90, text,
        ),
        "prediction_sets": PredictionSets(0.9, text, 90, text, 1.2, 0.91),
        "unknown": UnknownScore(text, 2.5, 0.95, 90, text),
        "slices": (Slice(text, text, 30, 0.5, 0.3, 0.7, 0.95, 0.001),),
        "overlays": (Overlay(text, jpeg, jpeg, text, text, 0.9, text),),
        "feature_map": FeatureMap("validation", text, places, 0.5),
        "map_images": dict.fromkeys(predictions.paths, image),
        "learning_curve": LearningCurve(
            (AccuracyAtSize(10, 0.7, 0.6, 0.8), AccuracyAtSize(100, 0.9, 0.85, 0.95)),
            (AccuracyAtSize(10, 0.7, 0.65, 0.75), AccuracyAtSize(400, 0.95, 0.9, 0.98)),
            text, (ClassOutlook(text, text),),
        ),
        "settings": {"data": text},
    }  # fmt: skip


class Finding(NamedTuple):
    code: str = "KD101"
    title: str = "Overfitting"
    severity: str = "warning"
    message: str = "The network has learned the training images by heart."
    figure: dict = {"validation_accuracy": 0.6}  # noqa: RUF012
    evidence: str = "20 epochs."
    commands: tuple = ("kindsight train photos --augment classic", "kindsight train photos")


@pytest.mark.parametrize(
    "data",
    [
        report(2, 40),
        report(12, 240),
        report(40, 400),
        report(2, 40, right=50.0),
        report(results=()),
        report(results=(report().results[0]._replace(predictions=None),)),
        report(large_images={}, small_images={}),
        report(training=training_summary(["a", "b", "c"], seconds={}, candidates=())),
        everything(),
    ],
    ids=[
        "two",
        "twelve",
        "forty",
        "perfect",
        "no results",
        "no predictions",
        "no images",
        "no candidates",
        "everything",
    ],
)
def test_page_is_well_formed_and_self_contained(data):
    text = render_report(data)
    page = Page(text)
    assert page.unbalanced == []
    assert page.open == []
    assert page.names.count("script") == 1
    assert not {"link", "iframe", "object", "embed", "base", "form"} & set(page.names)
    assert "http://" not in text
    assert "https://" not in text
    assert "url(" not in text
    assert "@import" not in text
    for _, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in FETCHING & set(attributes):
            assert re.match(
                r"data:image/jpeg;base64,|#|left:[\d.]+%;top:[\d.]+%;width:[\d.]+%$",
                attributes[name],
            )
    texts = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    # The map is one image to a screen reader.
    mapped = 0 if data.feature_map is None else len(data.feature_map.images)
    assert texts.count("") == mapped
    assert all(
        attributes.get("aria-label") or attributes.get("aria-hidden") == "true"
        for tag, attributes in page.tags
        if tag == "svg"
    )
    identities = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(identities)) == len(identities)
    wanted = {a["href"][1:] for tag, a in page.tags if tag == "a"}
    assert wanted <= set(identities)


def test_policy_allows_the_script_of_the_page_and_nothing_else():
    text = render_report(everything())
    (policy,) = (
        attributes["content"]
        for tag, attributes in Page(text).tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    (script,) = re.findall(r"<script>(.*?)</script>", text, flags=re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def test_text_from_outside_is_escaped():
    data = report(3, 60, names=[HOSTILE, "b", "c"])
    (result,) = data.results
    paths = tuple(f"{HOSTILE}{number}" for number in range(60))
    predictions = dataclasses.replace(result.predictions, paths=paths)
    images = dict.fromkeys(paths, next(iter(data.small_images.values())))
    data = dataclasses.replace(
        data,
        results=(result._replace(predictions=predictions),),
        small_images=images,
        large_images=images,
    )
    data = dataclasses.replace(
        data,
        title=HOSTILE,
        run=HOSTILE,
        created=HOSTILE,
        training=training_summary(
            [HOSTILE, "b"],
            source=HOSTILE,
            details={HOSTILE: HOSTILE},
            temperature_source=HOSTILE,
            layers=(LayerRow(HOSTILE, HOSTILE, (1, 2), 3),),
            seconds={HOSTILE: 1.0},
            candidates=(HeadCandidateRow(HOSTILE, 0.9, 0.1, 0.2),),
            versions={HOSTILE: HOSTILE},
            machine=HOSTILE,
        ),
        reference=(Reference(HOSTILE, 0.5, HOSTILE),),
        **trust(data, HOSTILE),
        skipped=(SkippedImage(HOSTILE, HOSTILE, HOSTILE),),
        notes=(HOSTILE,),
        warnings=(HOSTILE,),
        run_folder=HOSTILE,
        history=(Epoch(1, HOSTILE), Epoch(2, HOSTILE + "!")),
        best_epoch=1,
    )
    text = render_report(data)
    page = Page(text)
    assert text.lower().count("<script") == 1
    sources = [attributes.get("src") or "" for tag, attributes in page.tags if tag == "img"]
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
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
    data = report()
    images = dict.fromkeys(data.large_images, image)
    text = render_report(dataclasses.replace(data, large_images=images, small_images=images))
    assert "img" not in Page(text).names
    assert "image not available" in text


def test_control_characters_are_replaced_and_bytes_that_are_not_utf8_escaped():
    path = "a\x00\x1b[31m\u202egpj.exe\udc80\u2066.jpg"
    text = render_report(report(skipped=(SkippedImage(path, "corrupt", "Broken."),)))
    assert text.encode("utf-8")
    assert not re.search("[\x00\x1b\u202e\u2066\ud800-\udfff]", text)
    assert "a\ufffd\ufffd[31m\ufffdgpj.exe\\x80\ufffd.jpg" in text


@settings(max_examples=10, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=300), min_size=2, max_size=4, unique=True))
def test_any_class_names_give_a_well_formed_page(names):
    text = render_report(report(len(names), 24, names=names))
    assert text.encode("utf-8")
    assert Page(text).unbalanced == []
    assert Page(text).names.count("script") == 1


def test_headline_gives_accuracy_and_interval():
    data = report(4, 200)
    page = Page(render_report(data))
    found = data.results[0].evaluation
    shown = re.fullmatch(r"Validation accuracy ([\d.]+)%", page.text_of("strong"))
    assert float(shown[1]) == pytest.approx(100 * found.accuracy, abs=0.05)
    low, high, images = re.search(
        "95% CI ([\\d.]+)\u2013([\\d.]+)%, (\\d+) images", page.text_of("span")
    ).groups()
    assert float(low) == pytest.approx(100 * found.accuracy_interval[0], abs=0.05)
    assert float(high) == pytest.approx(100 * found.accuracy_interval[1], abs=0.05)
    assert int(images) == found.images == 200
    lead = " ".join(page.text_of("p").split())
    assert "sorts images into 4 classes" in lead
    assert "was trained on 160 labelled images" in lead


def test_tiles_show_the_metrics():
    data = report(4, 200)
    tiles = re.findall(r"<dt>([^<]+)</dt><dd><b>([\d.]+)%?</b>", render_report(data))
    shown = {name: float(value) for name, value in tiles}
    found = data.results[0].evaluation
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


def test_tables_show_the_confusion_matrix_and_class_metrics():
    data = report(4, 200)
    rows = Page(render_report(data)).rows
    corner = next(i for i, row in enumerate(rows) if row and row[0].startswith("label"))
    cells = [row[1:] for row in rows[corner + 1 : corner + 5]]
    matrix = [[int(cell.removeprefix("·")) for cell in row] for row in cells]
    assert matrix == data.results[0].evaluation.confusion.tolist()
    # A dot, and 0 for a screen reader, for mistakes that do not occur.
    for i, row in enumerate(cells):
        assert [cell == "·0" for cell in row] == [
            number == 0 and i != j for j, number in enumerate(matrix[i])
        ]
    assert "·0" in cells[0] + cells[1] + cells[2] + cells[3]
    head = next(i for i, row in enumerate(rows) if row[:2] == ["Class", "Recall"])
    for score, row in zip(
        data.results[0].evaluation.classes, rows[head + 1 : head + 5], strict=True
    ):
        assert row[0] == score.name
        assert float(row[1].rstrip("%")) == pytest.approx(100 * score.recall, abs=0.051)
        assert float(row[3].rstrip("%")) == pytest.approx(100 * score.precision, abs=0.051)
        assert float(row[4].rstrip("%")) == pytest.approx(100 * score.f1, abs=0.051)
        assert float(row[5].rstrip("%")) == pytest.approx(100 * score.roc_auc, abs=0.051)
        assert float(row[6].rstrip("%")) == pytest.approx(100 * score.average_precision, abs=0.051)
        assert int(row[7]) == score.support
        assert int(row[8]) == round((1 - score.recall) * score.support)


def test_test_split_comes_before_validation():
    page = Page(render_report(everything()))
    assert page.text_of("strong").startswith("Test accuracy")
    assert "Results on the validation images" in page.text_of("summary")


def test_references_are_listed_by_accuracy():
    data = dataclasses.replace(everything(), reference=(Reference("top", 0.9999, "x"),))
    rows = Page(render_report(data)).rows
    head = next(i for i, row in enumerate(rows) if row[:2] == ["Classifier", "Accuracy"])
    assert rows[head + 1][:2] == ["topx", "99.99%"]
    assert rows[head + 2][0].startswith("this classifier")
    assert float(rows[head + 2][1].rstrip("%")) == pytest.approx(
        100 * data.results[0].evaluation.accuracy, abs=0.0051
    )


def test_missing_results_are_reported():
    text = render_report(report(results=()))
    page = Page(text)
    assert "Accuracy not measured" in page.text_of("strong")
    assert "Cross-validation accuracy on the training images: 95.0%" in " ".join(text.split())
    assert "confusion" not in [attributes.get("id") for _, attributes in page.tags]


def test_perfect_accuracy_comes_with_a_caution():
    page = Page(render_report(report(2, 40, right=50.0)))
    assert page.text_of("strong") == "Validation accuracy 100%"
    assert "No mistakes" in page.text_of("h2")
    # The lower end of Wilson's interval for 40 of 40 is 40 / (40 + 1.96^2) = 91.2%.
    assert "an error rate of up to 8.8% on new images cannot be ruled out" in page.text_of("p")


def test_training_details_are_shown():
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


def test_epochs_are_drawn_and_described():
    data = everything()
    page = Page(render_report(data))
    drawn = [a["aria-label"] for tag, a in page.tags if tag == "svg" and "curve" in a["class"]]
    assert [label.split(" by epoch")[0] for label in drawn] == ["Accuracy", "Loss"]
    assert "90.0% in the best (2)" in drawn[0]
    head = next(i for i, row in enumerate(page.rows) if row[:2] == ["Epoch", "Phase"])
    assert page.rows[head + 2] == [
        "best2", "head", "75.0%", "90.0%", "0.4321", "0.5000", "0.001", "2.50 s"
    ]  # fmt: skip
    assert "Best epoch: 2 of 3, with 90.0% validation accuracy" in page.text_of("p")
    assert "head (epochs 1\u20132), all (epoch 3)" in " ".join(page.text_of("figcaption").split())
    assert "Training curves" in page.text_of("a")


def test_epochs_without_validation_or_phases_leave_their_columns_out():
    rows = tuple(Epoch(i, val_loss=None, val_accuracy=None) for i in (1, 2))
    text = render_report(report(history=rows, best_epoch=1))
    head = next(row for row in Page(text).rows if row[:1] == ["Epoch"])
    assert head == ["Epoch", "Training accuracy", "Training loss", "Learning rate", "Time"]
    assert "Phases" not in text
    assert "history" not in Page(render_report(report())).text_of("figcaption")


def test_page_size_is_bounded():
    k, n = 100, 10_000
    names = ["n" * 60 + str(i) for i in range(k)]
    predictions = predictions_of(k, n, right=3.0)
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    gallery = choose_images(predictions)
    large, small = thumbnail_uri(noise, 128), thumbnail_uri(noise, 88, 72)
    found = evaluate(predictions.probabilities, predictions.targets, names)
    data = ReportData(
        title="t",
        run="r",
        created="c",
        training=training_summary(names),
        results=tuple(SplitResult(name, found, predictions) for name in ("test", "validation")),
        large_images={predictions.paths[row]: large for row in gallery.large},
        small_images={predictions.paths[row]: small for row in gallery.small},
        skipped=(SkippedImage("p" * 3000, "corrupt", "r" * 3000),) * 5000,
        notes=("n" * 5000,) * 500,
        history=tuple(Epoch(i, "p" * 60 + str(i % 2)) for i in range(1, 20_001)),
        best_epoch=777,
    )
    text = render_report(data)
    assert "100 of 20,000 epochs" in text
    assert len(gallery.small) == 480
    assert Page(text).names.count("img") == 480 + 24 + 12
    assert len(text.encode()) < 5e6
    assert "The first 100 are shown" in text


def test_predictions_need_one_row_per_image():
    with pytest.raises(UsageError, match="one row for each image"):
        Predictions(("a",), np.array([0, 1]), np.full((2, 2), 0.5))
    assert predictions_of(3, 9, right=9.0).predicted.tolist() == [0, 1, 2] * 3
