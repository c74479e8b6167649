"""Formatting of numbers and names."""

from __future__ import annotations

import math

import pytest

from kindsight.report.format import amount, duration, elide, interval, listing, percent


@pytest.mark.parametrize(
    ("fraction", "text"),
    [
        (0.98912, "98.9%"),
        (1.0, "100%"),
        (0.0, "0%"),
        (0.99999, "99.9%"),
        (0.00001, "0.1%"),
        (math.nan, "\u2013"),
        (None, "\u2013"),
    ],
)
def test_percent(fraction, text):
    assert percent(fraction) == text


def test_percent_digits():
    assert percent(0.88421, 2) == "88.42%"
    assert percent(0.8, 0) == "80%"


def test_interval():
    assert interval((0.969, 0.9961)) == "96.9\u201399.6%"
    assert interval((0.9, 1.0)) == "90.0\u2013100%"


def test_amount():
    assert amount(1, "image") == "1 image"
    assert amount(1120, "image") == "1,120 images"
    assert amount(2, "class", "classes") == "2 classes"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.414, "0.41 s"),
        (12.34, "12.3 s"),
        (99.94, "99.9 s"),
        (185.2, "3 min 05 s"),
        (3599.6, "1 h 00 min"),
        (7800, "2 h 10 min"),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_elide_keeps_both_ends():
    text = "folder/" + "x" * 200 + "/name.jpg"
    short = elide(text, 30)
    assert len(short) == 30
    assert short.startswith("folder/")
    assert short.endswith("/name.jpg")
    assert elide("short", 30) == "short"


def test_listing():
    assert listing([]) == ""
    assert listing(["a"]) == "a"
    assert listing(["a", "b"]) == "a and b"
    assert listing(["a", "b", "c"]) == "a, b and c"
    assert listing(list("abcdefg"), 3) == "a, b, …, g"
