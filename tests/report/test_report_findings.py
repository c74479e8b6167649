"""The HTML report of a check: escaped, self-contained, bounded."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from kindsight.report.sheets import (
    MAX_IMAGES,
    CheckState,
    FindingsData,
    FindingsSection,
    ShownFinding,
    ShownImage,
    render_findings,
)

IMAGE = "data:image/jpeg;base64,AAAA"


def section(findings, **options):
    given = {
        "code": "KS203", "title": "Dark images", "severity": "warning", "description": "Dark.",
        "advice": "Look.", "count": len(findings),
    }  # fmt: skip
    return FindingsSection(findings=tuple(findings), **{**given, **options})


def data(sections=(), **options):
    given = {
        "source": "photos", "created": "2026-01-02 03:04", "images": 10, "readable": 9,
        "classes": {"cat": 5, "dog": 5}, "counts": {"error": 0, "warning": 3, "note": 0},
        "other_checks": (CheckState("KS101", "Unreadable images", "passed"),),
    }  # fmt: skip
    return FindingsData(sections=tuple(sections), **{**given, **options})


def card(name, image=IMAGE, **options):
    return ShownFinding("It is dark.", "warning", (ShownImage(name, image, **options),))


def test_single_images_are_cards_and_groups_are_side_by_side():
    group = ShownFinding(
        "The same.", "warning", tuple(ShownImage(f"{n}.jpg", IMAGE) for n in range(3)), count=5
    )
    page = render_findings(data([section([card("a.jpg", label="cat"), card("b.jpg"), group])]))
    assert page.count('<ul class="cards">') == 2 and page.count("<img ") == 5
    assert "and 2 more, in <code>findings.csv</code>" in page
    assert "3 findings" in page and "1 image unreadable." in page


def test_an_unreadable_image_is_listed_without_thumbnail():
    page = render_findings(data([section([card("gone.jpg", image="")])]))
    assert "<img" not in page and "gone.jpg" in page and '<ul class="plain">' in page


def test_a_suggestion_is_shown():
    finding = ShownFinding(
        "It looks like a dog.", "warning", (ShownImage("a.jpg", IMAGE, "cat"),), suggestion="dog"
    )
    page = render_findings(data([section([finding])]))
    assert "→ <bdi>dog</bdi>" in page and "<bdi>cat</bdi>" in page


def test_names_are_listed():
    finding = ShownFinding("One class.", "error", names=("Cat", "cat "), count=2)
    page = render_findings(data([section([finding], severity="error")]))
    assert "<bdi>Cat</bdi>" in page and "<bdi>cat </bdi>" in page


def test_no_findings():
    page = render_findings(data(counts={"error": 0, "warning": 0, "note": 0}, readable=10))
    assert "No findings" in page and "All images are readable." in page


def test_the_page_loads_nothing_and_has_no_script():
    page = render_findings(data([section([card("a.jpg")])]))
    assert "default-src 'none'" in page
    assert "<script" not in page and "://" not in page
    for address in re.findall(r'(?:src|href)="([^"]*)"', page):
        assert address.startswith(("data:image/", "#"))


def test_invalid_thumbnails_are_removed_and_their_number_is_limited():
    page = render_findings(data([section([card("a.jpg", image="https://example.com/x.png")])]))
    assert "example.com" not in page
    many = [card(f"{n}.jpg") for n in range(MAX_IMAGES + 50)]
    assert render_findings(data([section(many)])).count("<img ") == MAX_IMAGES


@settings(max_examples=20, deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_escaped(text):
    finding = ShownFinding(
        text or "x", "warning", (ShownImage(text, IMAGE, text, text, text),), suggestion=text
    )
    names = ShownFinding(text, "note", names=(text,), count=1)
    whole = data(
        [section([finding, names], title=text, description=text, advice=text, limitation=text)],
        source=text, classes={text: 1}, notes=(text,),
    )  # fmt: skip
    page = render_findings(whole)
    page.encode("utf-8")
    plain = render_findings(data([section([card("n"), ShownFinding("n", "note", names=("n",))])]))
    assert page.count("<section") == plain.count("<section")
    assert not re.search(r"[\x00-\x08\u202e\ud800-\udfff]", page)
