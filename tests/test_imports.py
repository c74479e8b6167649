"""Imports stay fast: heavy packages are not imported until they are needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
    "kindsight.training.engine.callbacks",
    "kindsight.explain",
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


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done


def heavy_after(*steps: str) -> dict[int, list[str]]:
    """Run steps in one fresh Python; return the heavy packages that each step imported."""
    code = f"""
import sys, threading
loaded, found = set(), {{}}
for number, step in enumerate({list(steps)!r}):
    exec(step, {{}})
    heavy = set({HEAVY!r}) & {{name.split('.')[0] for name in sys.modules}}
    if heavy - loaded:
        found[number] = sorted(heavy - loaded)
    loaded |= heavy
print('heavy:', found)
"""
    line = run_python(code).stdout.splitlines()[-1]
    found: dict[int, list[str]] = eval(line.removeprefix("heavy:"))  # noqa: S307 (our own text)
    return found


def test_the_probe_detects_a_heavy_package() -> None:
    # pandas too, if it is installed
    assert {"scipy", "sklearn"} <= set(heavy_after("import math", "import sklearn")[1])


def test_importing_modules_imports_no_heavy_package() -> None:
    found = heavy_after(*(f"import {module}" for module in MODULES))
    assert {MODULES[number]: heavy for number, heavy in found.items()} == {}


def test_help_imports_no_heavy_package() -> None:
    steps = [
        f"import sys\nsys.argv = ['kindsight', *{command.split()!r}, '--help']\n"
        "from kindsight.cli import main\n"
        "try:\n    code = main()\n"
        "except SystemExit as end:\n    code = end.code\n"
        "assert not code, code"
        for command in COMMANDS
    ]
    assert {COMMANDS[number]: heavy for number, heavy in heavy_after(*steps).items()} == {}


def test_a_check_imports_no_heavy_package(tmp_path: Path) -> None:
    for name in ("a/1.ppm", "b/2.ppm"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"P6 2 2 255\n" + bytes(range(12)))
    step = (
        "from kindsight.cache.folder import Cache\nfrom kindsight.runs.checking import *\n"
        f"cache = Cache({str(tmp_path / 'cache')!r})\n"
        f"write_report(check_data({str(tmp_path)!r}, cache=cache), {str(tmp_path / 'o')!r}, "
        "cache=cache)"
    )
    assert heavy_after(step) == {}


def kindsight_modules_after(step: str) -> set[str]:
    code = f"{step}\nimport sys\nprint(*(name for name in sys.modules if 'kindsight' in name))"
    return set(run_python(code).stdout.split())


def test_a_command_imports_no_other() -> None:
    step = "from kindsight.cli.commands import make_app\nmake_app(['predict'])"
    found = {name for name in kindsight_modules_after(step) if name.startswith("kindsight.cli.")}
    assert "kindsight.cli.predict" in found
    assert not {f"kindsight.cli.{name}" for name in ("train", "check", "explain", "runs")} & found


def test_a_frozen_head_imports_no_other_training() -> None:
    step = (
        "import sys\nfrom kindsight.runs.settings import TrainSettings\n"
        "import kindsight.runs.train\n"
        "TrainSettings('photos', seed=5, validation=0.3, class_weight='balanced').training()\n"
        "assert 'pydantic' not in sys.modules"
    )
    found = kindsight_modules_after(step)
    assert "kindsight.training.frozen.prepared" in found
    others = ("training.network.fit", "training.transfer.fit", "training.budget.run", "predictor",
              "runs.cross_validation", "explain.pages", "report.side_by_side")  # fmt: skip
    assert not {f"kindsight.{name}" for name in others} & found


def test_the_public_names_import_no_tensorflow() -> None:
    step = "import kindsight\nfor name in kindsight.__all__: getattr(kindsight, name)"
    assert not {"tensorflow", "keras"} & set(heavy_after(step).get(0, ()))


def test_the_drop_in_imports_keras() -> None:
    assert "keras" in heavy_after("import kindsight.preprocessing.image")[0]


def test_importing_starts_no_thread_and_prints_nothing() -> None:
    done = run_python(
        "import threading, kindsight, kindsight.dataset, kindsight.predictor, kindsight.report\n"
        "print(threading.active_count())"
    )
    assert (done.stdout, done.stderr) == ("1\n", "")
