"""Predicting and evaluating need few packages: all others are made impossible to import."""

from __future__ import annotations

import subprocess
import sys

import pytest

RUNTIME = {"numpy", "cv2", "PIL", "simplejpeg", "ai_edge_litert", "kindsight"}
# flatbuffers comes with LiteRT.
CACHE_AND_THREADS = {"filelock", "flatbuffers", "platformdirs", "threadpoolctl"}
COMMAND_LINE = RUNTIME | {"typer", "click", "shellingham", "annotated_doc", "typing_extensions"}

# A package that is neither allowed nor of the standard library is not found.
ONLY = """
import sys, importlib.machinery as machinery
class Allowed:
    @staticmethod
    def find_spec(name, path=None, target=None):
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names or top in {allowed!r}:
            return machinery.PathFinder.find_spec(name, path, target)
for name in [name for name in sys.modules if name.partition(".")[0] in {heavy!r}]:
    raise SystemExit(f"{{name}} is imported before the test")
sys.meta_path[:] = [machinery.BuiltinImporter, machinery.FrozenImporter, Allowed]
"""
HEAVY = {"tensorflow", "keras", "sklearn", "scipy", "optuna", "rich", "pandas", "matplotlib"}


def run(allowed: set[str], code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run code in a Python in which only the allowed packages can be imported."""
    start = ONLY.format(allowed=allowed, heavy=HEAVY)
    return subprocess.run(
        [sys.executable, "-c", start + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def kindsight(*arguments: object, more: set[str] = frozenset()) -> subprocess.CompletedProcess[str]:
    code = "from kindsight.cli import main\nsys.exit(main())"
    return run(COMMAND_LINE | more, code, *arguments)


@pytest.fixture(scope="module")
def photo(photos):
    return photos / "ring" / "ring 004.jpg"


def test_the_probe_hides_packages() -> None:
    done = run(RUNTIME, "import PIL\nimport jinja2")
    assert done.returncode == 1 and "No module named 'jinja2'" in done.stderr


def test_predicting_needs_numpy_image_decoders_and_litert_alone(trained, photos, photo):
    code = (
        "from kindsight import Predictor, read_image\n"
        "predictor, path = Predictor(sys.argv[1]), sys.argv[2]\n"
        "images = [path, open(path, 'rb').read(), read_image(path)]\n"
        "images += sys.argv[3:]\n"
        "for found in predictor.predict(images):\n"
        "    assert found.error is None, found.error\n"
        "    print(found.best)"
    )
    every = [sorted(photos.rglob(f"* *.{ending}"))[0] for ending in ("png", "jpg", "webp", "gif")]
    done = run(RUNTIME, code, trained.run, photo, *every)
    assert done.returncode == 0, done.stderr
    names = done.stdout.split()
    assert len(names) == 7 and set(names) <= {"bar", "chequer", "ring"}


@pytest.mark.parametrize("form", ["table", "csv", "jsonl"])
def test_the_command_predicts_with_few_packages(trained, photo, form):
    done = kindsight("predict", trained.run, photo, "--format", form)
    assert done.returncode == 0, done.stderr
    assert photo.name in done.stdout


def test_the_command_evaluates_with_few_packages(trained, photos):
    done = kindsight("evaluate", trained.run, photos, "--json", more=CACHE_AND_THREADS)
    assert done.returncode == 0, done.stderr
    assert '"accuracy"' in done.stdout


def test_training_without_its_packages_says_which_command_installs_them(photos, tmp_path):
    # pydantic and more are dependencies of kindsight; those of the extra `train` are absent.
    installed = {"pydantic", "pydantic_core", "annotated_types", "typing_inspection", "rich",
                 "tomli_w", "tomli", "jinja2", "markupsafe", "pygments",
                 "markdown_it", "mdurl", *CACHE_AND_THREADS}  # fmt: skip
    done = kindsight("train", photos, "--run", tmp_path / "run", more=installed)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].endswith("pip install 'kindsight[train]'")
    assert not (tmp_path / "run").exists()


def test_the_drop_in_without_keras_says_which_command_installs_it():
    done = run(COMMAND_LINE, "import kindsight.preprocessing.image")
    assert done.stderr.strip().endswith("pip install 'kindsight[train]'")
