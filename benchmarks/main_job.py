"""The main job's targets: each measured beside what it is held against, in one run.

Examples
--------
Everything, on a machine that does nothing else::

    python benchmarks/main_job.py --cats-dogs DIR --sign-digits DIR \
        --rivals-python ../kindsight-rivals/bin/python --json results.json --markdown results.md

A part, and a trial of whether it runs::

    python benchmarks/main_job.py --cats-dogs DIR --only train,memory
    python benchmarks/main_job.py --cats-dogs DIR --only train --repeats 1 --limit 60
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from common import Section, markdown, plain, verdict
from parts import NEEDS_CATS_DOGS, PARTS
from processes import say
from workshop import Options, Workshop

PACKAGES = (
    "kindsight",
    "ai-edge-litert",
    "tensorflow-cpu",
    "keras",
    "numpy",
    "opencv-python-headless",
)
BUSY = 0.5


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n", maxsplit=1)[0],
        epilog="Folders hold one folder of images for each class. Measure on an idle machine.",
    )
    parser.add_argument("--cats-dogs", type=_folder, metavar="DIR", help="images of two classes")
    parser.add_argument("--sign-digits", type=_folder, metavar="DIR", help="images of ten classes")
    parser.add_argument(
        "--rivals-python",
        type=Path,
        metavar="PATH",
        help="python of the rivals' environment; see benchmarks/rivals/README.md",
    )
    parser.add_argument(
        "--only",
        type=_parts,
        default=list(PARTS),
        metavar="PARTS",
        help=f"some of {','.join(PARTS)}  (default: all)",
    )
    for name, number, what in (
        ("--repeats", 3, "runs of each process, of which the median counts"),
        ("--rival-repeats", 1, "runs of each rival that trains, and of each of its settings"),
        ("--predict-repeats", 7, "runs of a prediction of one image"),
    ):
        parser.add_argument(
            name, type=_number, default=number, metavar="N", help=f"{what}  (default: {number})"
        )
    parser.add_argument(
        "--limit",
        type=_number,
        metavar="N",
        help="use about N images of each data set: a trial, whose figures mean nothing",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables")
    return parser.parse_args(arguments)


def _folder(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"must be a folder of class folders. Received: {text}")
    return path


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1. Received: {text}")
    return int(text)


def _parts(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in PARTS]:
        raise argparse.ArgumentTypeError(
            f"must be some of {','.join(PARTS)}. Received: {','.join(unknown)}"
        )
    return [name for name in PARTS if name in names]


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _warn_if_busy() -> None:
    if hasattr(os, "getloadavg") and os.getloadavg()[0] > BUSY:
        say(
            f"This machine is busy (load {os.getloadavg()[0]:.1f}): figures will be worse than "
            "they should be, the rivals' more than ours."
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write."""
    options = parse(arguments)
    found = machine()
    _warn_if_busy()
    sections: list[Section] = []
    given = {name: getattr(options, name) for name in Options.__dataclass_fields__}
    with tempfile.TemporaryDirectory(prefix="kindsight-bench-", ignore_cleanup_errors=True) as name:
        shop = Workshop(Options(**given), Path(name))
        for part in options.only:
            if part in NEEDS_CATS_DOGS and options.cats_dogs is None:
                say(f"{part} is left out: it needs --cats-dogs DIR.")
                continue
            start = time.monotonic()
            section = PARTS[part](shop)
            say(f"{part} took {time.monotonic() - start:.0f} s\n")
            sections.append(section)
            print(plain(section), flush=True)
            # After each part: what was measured stays, whatever becomes of the next.
            _write(options, found, sections)
    if sections:
        print(verdict(sections) + (" (a trial on few images)" if options.limit else ""))


def _write(options: argparse.Namespace, found: dict[str, Any], sections: list[Section]) -> None:
    if options.json is not None:
        content = {
            "machine": found,
            "options": {name: _plain(value) for name, value in vars(options).items()},
            "sections": [section.to_dict() for section in sections],
        }
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if options.markdown is not None:
        packages = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
        head = (
            f"Measured on {found['processor']}, {found['cores']} cores, {found['system']}, "
            f"Python {found['python']}, {packages}.\n"
        )
        tables = "\n".join(markdown(section) for section in sections)
        options.markdown.write_text(f"{head}\n{tables}\n{verdict(sections)}.\n", encoding="utf-8")


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else value


if __name__ == "__main__":
    main()
