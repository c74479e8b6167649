from __future__ import annotations

import io
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kindsight.cli.terminal.text import (
    Paint,
    cells,
    hanging,
    pad,
    printable,
    table,
    to_json,
)
from kindsight.encoding import unescape_name


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a cat.jpg", "a cat.jpg"),
        ("élan 写", "élan 写"),
        ("a\nb\x1b[31m", "a\\nb\\x1b[31m"),
        ("\udcff", "\\xff"),
        ("\u202egnp.a", "\\u202egnp.a"),  # text from right to left disguises an ending
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text, shown):
    assert printable(text) == shown


@given(st.text(st.characters(exclude_categories=())))
def test_whatever_is_printed_is_printable_and_can_be_encoded(text):
    assert printable(text).isprintable()
    printable(text).encode("utf-8")


@given(st.text(st.characters(exclude_categories=())))
def test_json_is_one_line_of_unicode_that_gives_the_text_back(text):
    line = to_json({"path": text})
    line.encode("utf-8")
    assert "\n" not in line
    if os.name == "posix":
        assert unescape_name(json.loads(line)["path"]) == text


def test_json_has_no_nan():
    with pytest.raises(ValueError, match="JSON"):
        to_json({"log_loss": float("nan")})


@pytest.mark.parametrize(
    ("text", "width"), [("abc", 3), ("写真", 4), ("e\u0301", 1), ("é", 1), ("", 0), ("\uff57", 2)]
)
def test_the_columns_that_a_text_takes(text, width):
    assert cells(text) == width


def test_filling_up_counts_columns_and_never_cuts():
    assert pad("写", 4) == "写  "
    assert pad("写", 4, right=True) == "  写"
    assert pad("abcdef", 3) == "abcdef"


def test_a_table_lines_its_columns_up():
    lines = table(("class", "n"), [("写", "1"), ("dog", "1,000")], paint=Paint.none())
    assert lines == ["  class      n", "  写         1", "  dog    1,000"]


def test_a_long_fact_goes_on_below_its_beginning():
    lines = hanging("head", "one two three four five", indent=8, paint=Paint.none(), width=28)
    assert lines == ["  head  one two three four", "        five"]


def test_a_long_path_is_never_broken():
    path = "runs/" + "very-long-" * 9
    assert hanging("run", path, indent=8, paint=Paint.none(), width=40) == [f"  run   {path}"]


def test_colours_are_for_terminals_that_want_them(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert Paint(Terminal())("x", "bold", "red") == "\x1b[1;31mx\x1b[0m"
    assert Paint(io.StringIO())("x", "bold") == "x"
    monkeypatch.setenv("NO_COLOR", "1")
    assert Paint(Terminal())("x", "bold") == "x"
