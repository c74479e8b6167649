"""The code of the documentation runs and prints what is shown; generated pages are up to date."""

from __future__ import annotations

import importlib
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from run_page import PageError, blocks, check_output, run_page

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
GUIDE = sorted(path.relative_to(ROOT).as_posix() for path in (DOCS / "guide").glob("*.md"))
# Pages that start from images only; the others start with a finished run.
WITHOUT_RUN = ["README.md", "docs/index.md", "docs/tutorial.md", "docs/course.md"]
PAGES = [*WITHOUT_RUN, *(page for page in GUIDE if page not in WITHOUT_RUN)]
# The README's outputs are of photographs that the tests do not have.
NOT_COMPARED = {"README.md"}
CLEARS_THE_CACHE = {"docs/guide/cache.md"}

slow = pytest.mark.slow
needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="the commands are run by bash")


@pytest.fixture(scope="session")
def page_environment(machine_cache: Path) -> dict[str, str]:
    """The session's cache, and the commands of this environment first on the path."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "KINDSIGHT_CACHE": str(machine_cache), "PATH": path, "NO_COLOR": "1"}


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images that the tutorial draws: photos/, photos-test/ and new/."""
    folder = tmp_path_factory.mktemp("tutorial")
    drawing = next(
        b for b in blocks((DOCS / "tutorial.md").read_text("utf-8")) if b.language == "python"
    )
    subprocess.run([sys.executable, "-c", drawing.text], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="session")
def with_run(
    images: Path, page_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The same images, with a finished run in runs/photos-1."""
    folder = tmp_path_factory.mktemp("trained") / "work"
    shutil.copytree(images, folder)
    command = [sys.executable, "-m", "kindsight", "train", "photos/", "--quiet"]
    subprocess.run(command, cwd=folder, env=page_environment, check=True, capture_output=True)
    return folder


def copy_backbones(source: Path, target: Path) -> None:
    """Copy the finished backbones of a cache, which never change."""
    (target / "backbones").mkdir(parents=True)
    for file in (source / "backbones").iterdir():
        if not file.name.startswith(".") and file.suffix != ".lock":
            shutil.copy2(file, target / "backbones")


@slow
@needs_bash
@pytest.mark.parametrize("page", PAGES)
def test_page_runs(
    page: str, request: pytest.FixtureRequest, page_environment: dict[str, str], tmp_path: Path
) -> None:
    start: Path = request.getfixturevalue("images" if page in WITHOUT_RUN else "with_run")
    folder = tmp_path / "work"
    shutil.copytree(start, folder)
    options = [] if page in NOT_COMPARED else ["--output"]
    environment = page_environment
    if page in CLEARS_THE_CACHE:
        cache = tmp_path / "cache"
        # A cache of its own: other tests write to the shared one, so it cannot be copied whole.
        copy_backbones(Path(environment["KINDSIGHT_CACHE"]), cache)
        environment = {**environment, "KINDSIGHT_CACHE": str(cache)}
        command = [sys.executable, "-m", "kindsight", "train", "photos/", "--quiet", "--runs"]
        filled = [*command, str(tmp_path / "runs")]
        subprocess.run(filled, cwd=folder, env=environment, check=True, capture_output=True)
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("run_page.py")), str(ROOT / page), *options],
        cwd=folder,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = [
        b for b in blocks((ROOT / page).read_text("utf-8")) if b.language in ("python", "console")
    ]
    assert int(done.stdout.splitlines()[-1]) >= len(expected) > 0


def test_pages_of_commands_and_options_are_up_to_date() -> None:
    make_cli = runpy.run_path(str(DOCS / "make_cli.py"))
    assert (DOCS / "cli.md").read_text("utf-8") == make_cli["page"](), "run: make docs"
    options = DOCS / "reference" / "options.md"
    assert options.read_text("utf-8") == make_cli["options_page"](), "run: make docs"


def test_list_of_checks_is_up_to_date() -> None:
    made = runpy.run_path(str(DOCS / "make_checks.py"))["page"]()
    assert (DOCS / "checks" / "index.md").read_text("utf-8") == made, "run: make docs"


def test_defaults_in_the_help_are_those_of_the_settings() -> None:
    from kindsight.cli.train import train
    from kindsight.runs.settings import TrainSettings

    make_cli = runpy.run_path(str(DOCS / "make_cli.py"))
    settings = TrainSettings("x")
    real = settings.to_dict()
    documented = {
        name.split()[0].removeprefix("--").replace("-", "_"): default
        for name, _, default, _ in make_cli["parameters"](train)
    }
    for name in ("runs", "model", "resize", "head", "class_weight", "seed"):
        assert documented[name] == str(real[name]), name
    for name in ("validation", "test"):
        assert float(documented[name]) == real[name], name


def test_every_command_has_an_example() -> None:
    from kindsight.cli.app import app

    make_cli = runpy.run_path(str(DOCS / "make_cli.py"))
    names = []
    for words, function in make_cli["commands"](app, "kindsight"):
        example = (function.__doc__ or "").rpartition("Example: ")[2].strip()
        assert words.removesuffix(" show") in example
        names.append(words)
    assert len(names) >= 8


def test_reference_documents_every_public_name() -> None:
    import kindsight

    text = (DOCS / "reference" / "index.md").read_text("utf-8")
    for name in kindsight.__all__:
        assert f"`{name}`" in text or f"`{name}," in text or f" {name}" in text, name
    pages = [path.read_text("utf-8") for path in (DOCS / "reference").glob("*.md")]
    shown = re.findall(r"^::: (\S+)$", "\n".join(pages), re.M)
    assert len(shown) >= 10
    for name in shown:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute) or importlib.import_module(name)


def test_pages_load_nothing_from_other_servers() -> None:
    pages = [path.read_text("utf-8") for path in DOCS.rglob("*.md")]
    assert not any(
        re.search(r"!\[[^]]*]\(https?:|<(script|img|link|iframe)\b", text) for text in pages
    )
    settings = (ROOT / "mkdocs.yml").read_text("utf-8")
    assert "font: false" in settings
    assert re.findall(r"^.*http.*$", settings, re.M) == re.findall(
        r"^site_url: .*$", settings, re.M
    )


# run_page.py ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("98.3% accuracy, 60 images", "97.1% accuracy, 60 images"),
        (
            "  time   11.3 s (fit 0.1 s)\n  run    runs/photos-1",
            "  time   9 s (fit 0.3 s)\n\n  run  runs/photos-1\n",
        ),
        ("a\n...\nz", "a\nb\nc\nz"),
        ("a\n...", "a\nb"),
        ('{"run": "x", ...', '{"run": "x", "seconds": 3}'),
        ("", "whatever"),
    ],
)
def test_equal_outputs(shown: str, printed: str) -> None:
    assert check_output(shown, printed) is None


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("circle  98.7%  new/a.jpg", "square  98.7%  new/a.jpg"),
        ("a\nb", "a"),
        ("a", "a\nb"),
        ("a\n...\nz", "a\nb\nc"),
        ("time in total", "time: a completely different sentence"),
    ],
)
def test_different_outputs(shown: str, printed: str) -> None:
    with pytest.raises(PageError):
        check_output(shown, printed)


def test_error_of_a_page_has_the_line(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n```python\nx = 1\n```\n\nText.\n\n```python\nassert x == 2\n```\n")
    with pytest.raises(PageError, match="line 10: AssertionError"):
        run_page(page, compare=True)
