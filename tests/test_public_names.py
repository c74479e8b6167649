"""The public names of the package and of its modules."""

from __future__ import annotations

import importlib
import pkgutil
import re
from importlib.metadata import version
from pathlib import Path

import pytest

import kindsight

NAMES = [
    "Augment",
    "Bundle",
    "Diagnosis",
    "Evaluation",
    "ImageClassifier",
    "ImageDataset",
    "InputSpec",
    "Prediction",
    "Predictor",
    "__version__",
    "compare",
    "diagnose",
    "evaluate",
    "improve",
    "learning_curve",
    "load_bundle",
    "make_report",
    "random_split",
    "read_image",
    "resize_image",
    "split_dataset",
    "suggest",
]


def test_public_names() -> None:
    assert sorted(kindsight.__all__) == NAMES
    assert sorted(dir(kindsight)) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_exists_and_is_documented(name: str) -> None:
    found = getattr(kindsight, name)
    if name != "__version__":
        assert found.__name__ == name
        assert len((found.__doc__ or "").split()) >= 4
        assert found.__module__.startswith("kindsight.")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="ImageClasifier"):
        _ = kindsight.ImageClasifier


def test_the_version_is_that_of_the_package() -> None:
    assert kindsight.__version__ == version("kindsight")


def test_every_module_exports_only_names_that_it_defines() -> None:
    checked = 0
    for info in pkgutil.walk_packages(kindsight.__path__, "kindsight."):
        if info.name.endswith("__main__"):
            continue
        module = importlib.import_module(info.name)
        assert module.__doc__, info.name
        for name in getattr(module, "__all__", ()):
            assert hasattr(module, name), f"{info.name}.{name}"
            checked += 1
    assert checked > 100


def test_an_unknown_name_of_the_dataset_package_is_an_attribute_error() -> None:
    from kindsight import dataset

    assert {"ImageDataset", "open_dataset", "random_split"} <= set(dir(dataset))
    with pytest.raises(AttributeError, match="opendataset"):
        _ = dataset.opendataset


def test_the_table_of_where_things_are_names_files_that_exist() -> None:
    root = Path(__file__).resolve().parents[1]
    table = (root / "CONTRIBUTING.md").read_text("utf-8").split("## Where things are")[1]
    rows = [line for line in table.split("## ")[0].splitlines() if line.startswith("| ")][1:]
    named = [path for row in rows for path in re.findall(r"`([\w/.]+)`", row.split("|")[2])]
    assert len(named) > 20
    assert [path for path in named if not (root / "src" / "kindsight" / path).exists()] == []


def test_no_folder_has_more_than_fifteen_modules() -> None:
    root = Path(kindsight.__file__).parent
    counts = {
        folder.relative_to(root).as_posix(): sum(
            path.name != "__init__.py" for path in folder.glob("*.py")
        )
        for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]
    }
    assert {name: n for name, n in counts.items() if n > 15} == {}
    # Two levels of packages: kindsight/models/backbones has modules, and no packages.
    assert max(name.count("/") for name, n in counts.items() if n) == 1
