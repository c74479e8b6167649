"""What importing costs: the heavy packages stay out until something needs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("tensorflow", "keras", "torch", "sklearn", "scipy", "pandas", "matplotlib")

MODULES = (
    "kindsight",
    "kindsight.errors",
    "kindsight.images",
    "kindsight.dataset",
    "kindsight.random_stream",
    "kindsight.augment",
    "kindsight.evaluation",
    "kindsight.report",
    "kindsight.cache.folder",
    "kindsight.models.runtime",
    "kindsight.bundle",
    "kindsight.predictor",
    "kindsight.training.engine.history",
    "kindsight.training.engine.logs",
    "kindsight.explain.feature_maps",
    "kindsight.preprocessing",
    "kindsight.checks",
    "kindsight.runs.checking",
    "kindsight.cli",
)

COMMANDS = (
    "",
    "train",
    "predict",
    "evaluate",
    "explain",
    "cache",
    "check",
    "backbones",
    "info",
    "demo",
    "preview",
)


def heavy_after(statements: str) -> str:
    """Run statements in a fresh Python; give the names of the heavy packages it then holds."""
    code = (
        f"import sys\n{statements}\n"
        f"print('heavy:', *sorted(set({HEAVY!r}) & {{name.split('.')[0] for name in sys.modules}}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_the_probe_sees_a_heavy_package() -> None:
    # pandas too, where it is installed
    assert {"scipy", "sklearn"} <= set(heavy_after("import sklearn").split())


@pytest.mark.parametrize("module", MODULES)
def test_importing_leaves_heavy_packages_out(module: str) -> None:
    assert heavy_after(f"import {module}") == "heavy:"


def test_a_check_leaves_heavy_packages_out(tmp_path: Path) -> None:
    for name in ("a/1.ppm", "b/2.ppm"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"P6 2 2 255\n" + bytes(range(12)))
    statements = (
        "from kindsight.cache.folder import Cache\nfrom kindsight.runs.checking import *\n"
        f"cache = Cache({str(tmp_path / 'cache')!r})\n"
        f"write_report(check_data({str(tmp_path)!r}, cache=cache), {str(tmp_path / 'o')!r}, "
        "cache=cache)"
    )
    assert heavy_after(statements) == "heavy:"


def test_taking_every_public_name_leaves_tensorflow_out() -> None:
    statements = "import kindsight\nfor name in kindsight.__all__: getattr(kindsight, name)"
    assert not {"tensorflow", "keras"} & set(heavy_after(statements).split())


@pytest.mark.parametrize("command", COMMANDS)
def test_help_leaves_heavy_packages_out(command: str) -> None:
    arguments = [*command.split(), "--help"]
    statements = (
        f"sys.argv = ['kindsight', *{arguments!r}]\n"
        "from kindsight.cli import main\n"
        "try:\n    code = main()\n"
        "except SystemExit as end:\n    code = end.code\n"
        "assert not code, code"
    )
    assert heavy_after(statements) == "heavy:"


def test_the_drop_in_is_what_imports_keras() -> None:
    assert "keras" in heavy_after("import kindsight.preprocessing.image").split()


def test_importing_starts_no_thread_and_writes_nothing() -> None:
    code = (
        "import threading, kindsight, kindsight.dataset, kindsight.predictor, kindsight.report\n"
        "print(threading.active_count())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
