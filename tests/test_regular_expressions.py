"""Regular expressions run in linear time, except those of the user, which have a time limit."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kindsight
from kindsight.dataset import DataOptions, open_dataset, search_names
from kindsight.dataset.loaders.pixel_rows import _unpacked
from kindsight.errors import ImageError, SettingsError
from kindsight.images.formats import detect_format
from kindsight.images.netpbm import read_netpbm_header
from work_limit import seconds_of_work

if sys.version_info >= (3, 11):
    from re import _parser as parser
else:
    import sre_parse as parser

SOURCE = Path(kindsight.__file__).parent


def literal_patterns() -> Iterator[tuple[str, str | bytes]]:
    """Yield the patterns of calls such as ``re.sub(PATTERN, ...)`` and of modules' constants."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "re"
                and node.args
                and isinstance(node.args[0], ast.Constant)
            ):
                yield f"{path.name}:{node.lineno}", node.args[0].value
    for module in pkgutil.walk_packages([str(SOURCE)], "kindsight."):
        if "keras" in module.name or "worker" in module.name or module.name.endswith("__main__"):
            continue
        try:
            found = vars(importlib.import_module(module.name))
        except ImportError:
            continue
        for name, value in found.items():
            if isinstance(value, re.Pattern):
                yield f"{module.name}.{name}", value.pattern


def nested(tree: Any, inside: bool = False) -> bool:
    """Return whether an unlimited repeat contains another."""
    for operation, argument in tree:
        kind = str(operation)
        if kind in ("MAX_REPEAT", "MIN_REPEAT"):
            unlimited = argument[1] is parser.MAXREPEAT
            if (unlimited and inside) or nested(argument[2], inside or unlimited):
                return True
        elif kind == "BRANCH":
            if any(nested(branch, inside) for branch in argument[1]):
                return True
        elif kind in ("SUBPATTERN", "ASSERT", "ASSERT_NOT", "ATOMIC_GROUP"):
            body = argument if kind == "ATOMIC_GROUP" else argument[-1]
            if nested(body, inside):
                return True
    return False


def test_the_search_for_nested_repeats_finds_them() -> None:
    for pattern in (r"(a+)+", r"(?:<!--.*?-->\s*)*<svg", r"((b|c*)d)*", r"(?=(x+)*)y"):
        assert nested(parser.parse(pattern)), pattern
    for pattern in (r"a+b+", r"(?:ab)*", r"(a{1,9})+", r"(a+)?b"):
        assert not nested(parser.parse(pattern)), pattern


def test_no_pattern_has_nested_repeats() -> None:
    patterns = dict(literal_patterns())
    assert len(patterns) > 20
    assert [place for place, text in patterns.items() if nested(parser.parse(text))] == []


@pytest.mark.parametrize(
    "data",
    [
        b"<!---->" * 140,
        b"<!---->" * 140 + b"x",
        b"<?xml?>" + b"<!-- -->\n" * 110,
        b" " * 1024,
        b"<!DOCTYPE " + b"<" * 1000,
        b"<!" * 512,
    ],
)
def test_the_format_of_hostile_bytes_is_found_at_once(data: bytes) -> None:
    with seconds_of_work(1), pytest.raises(ImageError) as caught:
        detect_format(data)
    assert caught.value.code == "not-an-image"


@pytest.mark.parametrize(
    "before",
    [
        b"",
        b"\xef\xbb\xbf",
        b'<?xml version="1.0"?>\n',
        b"<!---->" * 100,
        b"<!-- a > b -->\n<!DOCTYPE svg>",
    ],
)
def test_drawings_are_recognised(before: bytes) -> None:
    with pytest.raises(ImageError, match="an SVG drawing") as caught:
        detect_format(before + b'<svg xmlns="">')
    assert caught.value.code == "unsupported"


@pytest.mark.parametrize("filling", [b"#\n", b"# a\r\n", b" ", b"#", b"9" * 9 + b"#"])
def test_the_header_of_a_hostile_pgm_is_read_at_once(filling: bytes) -> None:
    with seconds_of_work(1), pytest.raises(ImageError):
        read_netpbm_header(b"P5 " + filling * (65_536 // len(filling)))


def test_comments_in_the_header_of_a_pgm() -> None:
    assert read_netpbm_header(b"P5#a\n# b\r 3 #c\n4\n#\n255\n") == ([3, 4, 255], 23)


def test_blanks_in_a_packed_table_are_replaced_at_once() -> None:
    with seconds_of_work(1):
        assert _unpacked(b"1" + b" " * 1_000_000 + b"2\n", ",") == b"1,2\n"
    assert _unpacked(b' 0 , "1  2 3" ,x\n  4,5 6 \n', ",") == b"0,1,2,3,x\n4,5,6\n"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("cat_1.jpg", "dog_1.jpg", "a" * 60 + "!.jpg"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize("option", ["label_from", "group_from"])
@pytest.mark.parametrize("pattern", [r"^((a+)+)$", r"^((?:a|aa)+)$", r"(a*)*b"])
def test_a_pattern_of_the_user_has_a_time_limit(
    option: str, pattern: str, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_names, "SECONDS", 1.0)
    given = {"label_from": r"^(\w)", option: pattern}
    with pytest.raises(SettingsError) as caught:
        open_dataset(photos, DataOptions(**given))
    message = str(caught.value)
    assert pattern in message.replace("\\\\", "\\") and "after 1 s" in message
    assert "'aaaaaa" in message and "(a+)+" in message


def test_a_search_gives_the_first_match_of_any_text() -> None:
    names = ["cat_1.jpg", "", "Käse_2.jpg", "\udcff_3.jpg", "none"]
    found = search_names.search_names(r"^(?P<label>.+?)_(\d)", "label", names)
    assert found == ["cat", None, "Käse", "\udcff", None]
    assert search_names.search_names(r"^(?P<label>.+?)_(\d)", 2, names[:1]) == ["1"]
    assert search_names.search_names("(x)?", 1, ["y"]) == [None]
    assert search_names.search_names("(x)", 1, []) == []
