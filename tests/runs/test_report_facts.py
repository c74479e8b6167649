"""report.json: written and read back, bounded, and refused where it is damaged."""

from __future__ import annotations

import json

import pytest

from kindsight.errors import BundleError
from kindsight.models.networks.small_cnn import LayerRow
from kindsight.report.data import FeatureMap, HeadCandidateRow, MappedImage, Overlay, Reference
from kindsight.runs.reporting.facts import REPORT_FACTS_FILE, ReportFacts

FACTS = ReportFacts(
    notes=("One.", "Two."),
    seconds={"read": 0.1, "total": 2.5},
    machine="Linux x86_64, 2 cores",
    details={"Head": "softmax"},
    temperature_source="out-of-fold predictions",
    candidates=(HeadCandidateRow("linear", 0.9, None, 0.3, selected=True),),
    layers=(LayerRow("conv", "convolution", (3, 4, 5), 7, "frozen"),),
    reference=(Reference("theirs", 0.9, "a paper"),),
    features_file="features/a.sqlite",
    overlays=(Overlay("a.jpg", b"\xff\xd8a", b"\x89PNG", None, "cat", 0.9, "Grad-CAM"),),
    feature_map=FeatureMap("validation", "PCA", (MappedImage("a.jpg", 0.25, 1.0),), 0.6),
)


def test_facts_are_read_back(tmp_path):
    FACTS.write(tmp_path)
    found = ReportFacts.read(tmp_path)
    assert found.to_dict() == FACTS.to_dict()
    assert found.overlays[0].image == b"\xff\xd8a"
    assert found.layers == FACTS.layers


def test_a_folder_without_the_file_has_empty_facts(tmp_path):
    assert ReportFacts.read(tmp_path).to_dict() == ReportFacts().to_dict()


@pytest.mark.parametrize(
    "change",
    [
        {"notes": "text"},
        {"notes": [1]},
        {"seconds": {"read": "long"}},
        {"seconds": {"read": 1e999}},
        {"layers": [{"name": "a"}]},
        {"overlays": [{"path": "a", "image": "!", "overlay": "!"}]},
        {"feature_map": []},
        {"notes": ["a"] * 10_001},
    ],
    ids=lambda change: str(change)[:40],
)
def test_damaged_facts_are_refused(tmp_path, change):
    text = json.dumps({"format": 1, **FACTS.to_dict(), **change})
    (tmp_path / REPORT_FACTS_FILE).write_text(text)
    with pytest.raises(BundleError, match=r"report\.json is damaged"):
        ReportFacts.read(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, "\xff"])
def test_other_files_are_refused(tmp_path, text):
    (tmp_path / REPORT_FACTS_FILE).write_bytes(text.encode("latin-1"))
    with pytest.raises(BundleError, match=r"report\.json is damaged"):
        ReportFacts.read(tmp_path)


def test_a_newer_format_names_the_cure(tmp_path):
    (tmp_path / REPORT_FACTS_FILE).write_text('{"format": 2}')
    with pytest.raises(BundleError, match="newer kindsight"):
        ReportFacts.read(tmp_path)
