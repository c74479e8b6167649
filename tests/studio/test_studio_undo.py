"""Changes of a project: each can be undone, and survives a kill."""

from __future__ import annotations

import csv
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kindsight.errors import DatasetError
from kindsight.studio.state.project import NewImage, Project

NAMES = ("cat", "dog", "bird")

ids = st.lists(st.integers(0, 11), max_size=6)
name = st.sampled_from(NAMES)
actions = st.one_of(
    st.tuples(st.just("label"), ids, st.none() | name),
    st.tuples(st.just("exclude"), ids, st.booleans()),
    st.tuples(st.just("add"), st.integers(1, 3), st.none() | name, st.sampled_from(["", "a", "b"])),
    st.tuples(st.just("add_class"), name),
    st.tuples(st.just("rename_class"), name, st.sampled_from([*NAMES, "fish"])),
    st.tuples(st.just("remove_class"), name),
    st.tuples(st.just("merge_classes"), st.lists(name, min_size=1, max_size=2), name),
    st.tuples(
        st.just("correct"),
        st.dictionaries(st.integers(0, 11), st.none() | name, max_size=3),
        st.dictionaries(st.integers(0, 11), st.booleans(), max_size=3),
        st.dictionaries(st.integers(0, 11), st.sampled_from([None, "g"]), max_size=3),
    ),
    st.tuples(st.just("undo")),
    st.tuples(st.just("redo")),
)


def act(project: Project, action: tuple[Any, ...]) -> None:
    """Do what the page asks for; what cannot be done is refused and changes nothing."""
    kind, *values = action
    before = state(project)
    try:
        if kind == "add":
            count, label, batch = values
            first = len(project.images)
            new = [NewImage(f"images/{first + i}.png", "x", label) for i in range(count)]
            project.add(new, "drop", command="", batch=batch)
        elif kind == "correct":
            project.correct(*values, "Correct", "")
        else:
            getattr(project, kind)(*values)
    except (KeyError, DatasetError):
        assert state(project) == before


def state(project: Project) -> Any:
    """Return what a person sees of a project."""
    images, rows = project.images, project.present()
    seen = [
        (images.path[row], label, bool(images.excluded[row]), images.group[row])
        for row, label in zip(rows.tolist(), images.labels(rows), strict=True)
    ]
    return list(images.classes.values()), seen


def in_folder(check: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check(Path(folder))


@settings(max_examples=60)
@given(st.lists(actions, max_size=15))
def test_any_changes_undone_give_the_start_and_redone_the_end(changes: list[tuple[Any, ...]]):
    def check(folder: Path) -> None:
        project = Project(folder)
        for change in changes:
            act(project, change)
        end = state(project)
        steps = 0
        while project.undo_titles()[0] is not None:
            project.undo()
            steps += 1
        assert state(project) == ([], [])
        assert state(Project(folder)) == ([], [])
        for _ in range(steps):
            project.redo()
        assert state(project) == end
        reopened = Project(folder)
        assert state(reopened) == end
        assert reopened.undo_titles() == project.undo_titles()

    in_folder(check)


@settings(max_examples=40)
@given(st.lists(actions, min_size=1, max_size=8), st.floats(0, 1))
def test_a_kill_in_the_middle_of_a_line_loses_that_change_alone(
    changes: list[tuple[Any, ...]], fraction: float
):
    def check(folder: Path) -> None:
        project = Project(folder)
        states = {0: state(project)}
        for change in changes:
            act(project, change)
            states[project.revision] = state(project)
        journal = folder / "journal.jsonl"
        content = journal.read_bytes() if journal.exists() else b""
        cut = round(fraction * len(content))
        killed = folder.with_name(folder.name + "-killed")
        shutil.rmtree(killed, ignore_errors=True)
        killed.mkdir()
        (killed / "journal.jsonl").write_bytes(content[:cut])
        reopened = Project(killed)
        whole = content[:cut].count(b"\n")
        assert reopened.revision == whole
        # Changes that undo several at once have several lines.
        if whole in states:
            assert state(reopened) == states[whole]
        reopened.add_class("wolf")
        assert "wolf" in Project(killed).images.classes.values()
        shutil.rmtree(killed)

    in_folder(check)


def test_the_table_is_written_again_from_the_journal(tmp_path: Path):
    project = Project(tmp_path)
    project.add(
        [NewImage("images/1.png", "1", "cat"), NewImage("images/2.png", "2")], "", command=""
    )
    project.exclude([1], True)
    (tmp_path / "dataset.csv").unlink()
    Project(tmp_path)
    assert (tmp_path / "dataset.csv").read_text("utf-8") == (
        "path,label,split\nimages/1.png,cat,\nimages/2.png,,excluded\n"
    )


def test_a_table_that_somebody_edited_is_taken_as_a_change(tmp_path: Path):
    project = Project(tmp_path)
    new = [NewImage(f"images/{i}.png", str(i), "cat") for i in range(3)]
    project.add(new, "", command="")
    project.write()
    table = tmp_path / "dataset.csv"
    table.write_text("path,label,split\nimages/0.png,dog,\nimages/1.png,cat,excluded\n", "utf-8")
    project.label([2], "dog")  # in a studio that runs
    project.write()
    expected = [("cat", False), ("cat", True), ("dog", True)]
    expected[0] = ("dog", False)
    for found in (project, Project(tmp_path)):
        _, rows = state(found)
        assert [(label, excluded) for _, label, excluded, _ in rows] == expected
    project.undo()
    assert [label for _, label, _, _ in state(project)[1]] == ["cat", "cat", "dog"]
    with table.open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 3


@pytest.mark.parametrize(
    "text", ["path,label\nimages/0.png,a\n", "path,label,split\nimages/0.png,Dog,\n", "\xff"]
)
def test_a_table_that_was_edited_into_nonsense_is_named_with_a_cure(tmp_path: Path, text: str):
    project = Project(tmp_path)
    project.add([NewImage("images/0.png", "0", "cat")], "", command="")
    project.add_class("dog")
    project.write()
    (tmp_path / "dataset.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(DatasetError, match=r"was edited and cannot be used: .*move it away"):
        Project(tmp_path)
    (tmp_path / "dataset.csv").unlink()
    assert state(Project(tmp_path)) == state(project)


def test_a_table_that_was_deleted_is_written_again(tmp_path: Path):
    project = Project(tmp_path)
    project.add([NewImage("images/0.png", "0", "cat")], "", command="")
    project.write()
    before = (tmp_path / "dataset.csv").read_bytes()
    (tmp_path / "dataset.csv").unlink()
    project.write()
    assert (tmp_path / "dataset.csv").read_bytes() == before


def test_a_table_that_was_not_edited_changes_nothing_after_a_kill(tmp_path: Path):
    project = Project(tmp_path)
    project.add([NewImage("images/0.png", "0", "cat")], "", command="")
    project.write()
    project.label([0], "dog")  # killed before the table was written
    reopened = Project(tmp_path)
    assert state(reopened)[1][0][1] == "dog"
    assert reopened.revision == 2


@pytest.mark.parametrize(
    "line",
    [
        '{"changes": 3}',
        "[]",
        "nonsense",
        '{"undo": 1}',
        '{"number": 1, "changes": {"label": [[0]]}}',
    ],
)
def test_a_damaged_journal_is_named_with_a_cure(tmp_path: Path, line: str):
    (tmp_path / "journal.jsonl").write_text(line + "\n", "utf-8")
    with pytest.raises(DatasetError, match=r"journal\.jsonl is damaged: line 1 .*Restore it"):
        Project(tmp_path)


@pytest.mark.parametrize(
    ("known", "new"),
    [(["cat"], "Cat"), (["0"], "0.5"), (["a", "b"], "a,b"), (["a", "b"], "a|b"), (["3"], "3.0")],
)
def test_names_that_a_table_would_read_otherwise_are_refused(
    tmp_path: Path, known: list[str], new: str
):
    project = Project(tmp_path)
    for each in known:
        project.add_class(each)
    with pytest.raises(DatasetError):
        project.add_class(new)
    assert list(project.images.classes.values()) == known


@pytest.mark.parametrize("name", ["", "  ", "a\x00b", "a\nb" * 60, "x" * 101, "\u202e"])
def test_names_that_no_class_can_have_are_refused(tmp_path: Path, name: str):
    with pytest.raises(DatasetError, match="The name of a class"):
        Project(tmp_path).add_class(name)
