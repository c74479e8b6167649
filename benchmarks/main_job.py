"""Measure kindsight's main targets against rivals and floors, in one run.

Examples
--------
All sections, on an idle machine::

    python benchmarks/main_job.py --cats-dogs DIR --sign-digits DIR \
        --rivals-python ../kindsight-rivals/bin/python --json results.json --markdown results.md

Some sections, and a trial on few images::

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

from fixtures import Fixtures, Options
from output import Section, add_output_options, markdown, plain, verdict, warn_if_busy
from processes import log
from sections import NEED_CATS_DOGS, SECTIONS

PACKAGES = (
    "kindsight",
    "ai-edge-litert",
    "tensorflow-cpu",
    "keras",
    "numpy",
    "opencv-python-headless",
)


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
        help="Python of the rivals' environment; see benchmarks/rivals/README.md",
    )
    parser.add_argument(
        "--only",
        type=_sections,
        default=list(SECTIONS),
        metavar="SECTIONS",
        help=f"some of {','.join(SECTIONS)}  (default: all)",
    )
    for name, number, what in (
        ("--repeats", 3, "runs of each process; the median is reported"),
        ("--rival-repeats", 1, "runs of each training rival per setting"),
        ("--predict-repeats", 7, "runs of the prediction of one image"),
    ):
        parser.add_argument(
            name, type=_number, default=number, metavar="N", help=f"{what}  (default: {number})"
        )
    parser.add_argument(
        "--limit",
        type=_number,
        metavar="N",
        help="use about N images per dataset: a trial without meaningful figures",
    )
    add_output_options(parser)
    return parser.parse_args(arguments)


def _folder(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"must be a folder of class folders; got {text}")
    return path


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1; got {text}")
    return int(text)


def _sections(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in SECTIONS]:
        raise argparse.ArgumentTypeError(
            f"must be some of {','.join(SECTIONS)}; got {','.join(unknown)}"
        )
    return [name for name in SECTIONS if name in names]


def machine() -> dict[str, Any]:
    """Return processor, cores, system and package versions."""
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write the sections."""
    options = parse(arguments)
    hardware = machine()
    warn_if_busy()
    sections: list[Section] = []
    values = {name: getattr(options, name) for name in Options.__dataclass_fields__}
    with tempfile.TemporaryDirectory(prefix="kindsight-bench-", ignore_cleanup_errors=True) as name:
        fixtures = Fixtures(Options(**values), Path(name))
        for section_name in options.only:
            if section_name in NEED_CATS_DOGS and options.cats_dogs is None:
                log(f"{section_name} is skipped: it needs --cats-dogs DIR.")
                continue
            start = time.monotonic()
            section = SECTIONS[section_name](fixtures)
            log(f"{section_name} took {time.monotonic() - start:.0f} s\n")
            sections.append(section)
            print(plain(section), flush=True)
            # After each section, so that nothing is lost if the next one fails.
            _write(options, hardware, sections)
    if sections:
        print(verdict(sections) + (" (a trial on few images)" if options.limit else ""))


def _write(options: argparse.Namespace, hardware: dict[str, Any], sections: list[Section]) -> None:
    if options.json is not None:
        content = {
            "machine": hardware,
            "options": {name: _plain(value) for name, value in vars(options).items()},
            "sections": [section.to_dict() for section in sections],
        }
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if options.markdown is not None:
        packages = ", ".join(f"{name} {version}" for name, version in hardware["packages"].items())
        head = (
            f"Measured on {hardware['processor']}, {hardware['cores']} cores, "
            f"{hardware['system']}, Python {hardware['python']}, {packages}.\n"
        )
        tables = "\n".join(markdown(section) for section in sections)
        options.markdown.write_text(f"{head}\n{tables}\n{verdict(sections)}.\n", encoding="utf-8")


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else value


if __name__ == "__main__":
    main()
