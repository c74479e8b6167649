"""``kindsight info``: versions, machine and settings, for bug reports."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kindsight.cli.terminal.options import Debug, Json
from kindsight.cli.terminal.text import Paint, cells, print_json, printable, say

__all__ = ["info"]

ONEDNN = "TF_ENABLE_ONEDNN_OPTS"

# Name -> the distributions that may provide it.
_PACKAGES = {
    "LiteRT": ("ai-edge-litert",),
    "TensorFlow": ("tensorflow-cpu", "tensorflow"),
    "Keras": ("keras",),
    "OpenCV": (
        "opencv-python-headless",
        "opencv-python",
        "opencv-contrib-python",
        "opencv-contrib-python-headless",
    ),
    "Pillow": ("pillow",),
    "NumPy": ("numpy",),
    "scikit-learn": ("scikit-learn",),
}


def info(json: Json = False, debug: Debug = False) -> None:
    """Show versions, machine and settings, for a bug report.

    Example: kindsight info
    """
    facts = collect()
    if json:
        print_json(facts)
        return
    paint = Paint(sys.stdout)
    rows = _rows(facts)
    width = max(map(cells, rows))
    say(
        *(
            f"{paint(name, 'dim')}{' ' * (width + 2 - cells(name))}{text}"
            for name, text in rows.items()
        ),
        *facts["warnings"],
    )


def collect() -> dict[str, Any]:
    """Return the facts, without importing the packages.

    Returns
    -------
    dict
        kindsight, python, platform, machine, processor, cores, ...: the keys of ``--json``.
    """
    from kindsight.cache.folder import Cache
    from kindsight.cache.location import sharing_notes
    from kindsight.threads import count_cores

    cache = Cache()
    return {
        "kindsight": _version(("kindsight",)),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
        "machine": platform.machine(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "cores_usable": count_cores(),
        "packages": {name: _version(names) for name, names in _PACKAGES.items()},
        "onednn": {
            "setting": os.environ.get(ONEDNN, "1"),
            "from": "environment" if ONEDNN in os.environ else "kindsight",
        },
        "cache": {
            "folder": str(cache.root),
            "size": cache.size(),
            "limit": cache.limit,
            "notes": sharing_notes(cache.root),
        },
        "settings": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith("KINDSIGHT_")
        },
        "warnings": _conflicts(),
    }


def processor() -> str:
    """Return the processor's name, or ``""`` if unknown."""
    try:
        system = platform.system()
        if system == "Linux":
            return _from_cpuinfo(Path("/proc/cpuinfo").read_text("utf-8", "replace"))
        if system == "Darwin":
            command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(
                command, capture_output=True, text=True, timeout=5, check=True
            ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        pass
    return platform.processor()


def _from_cpuinfo(text: str) -> str:
    """Return the processor's name from /proc/cpuinfo; ARM processors have none there."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip().lower() in ("model name", "hardware", "cpu model"):
            return value.strip()
    return platform.processor()


def _version(distributions: tuple[str, ...]) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    for name in distributions:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def _conflicts() -> list[str]:
    """Name packages that are installed in several variants, which overwrite each other's files."""
    found = []
    for name, distributions in _PACKAGES.items():
        both = [each for each in distributions if _version((each,)) is not None]
        if len(both) > 1:
            found.append(
                f"Warning: {' and '.join(both)} are both installed and share their files; {name} "
                f"may be broken. Keep one: pip uninstall -y {' '.join(both)}, then pip install "
                f"{both[-1]}."
            )
    return found


def _rows(facts: Mapping[str, Any]) -> dict[str, str]:
    from kindsight.cli.cache import bytes_text

    cores, onednn, cache = facts["cores_usable"], facts["onednn"], facts["cache"]
    source = "set by you" if onednn["from"] == "environment" else "set by kindsight"
    rows = {
        "kindsight": facts["kindsight"] or "not installed",
        "Python": f"{facts['python']}, {sys.executable}",
        "system": facts["platform"],
        "processor": facts["processor"] or facts["machine"],
        "cores": f"{cores} usable of {facts['cores']}",
        **{name: value or "not installed" for name, value in facts["packages"].items()},
        "oneDNN": f"{ONEDNN}={onednn['setting']} ({source}, for training)",
        "cache": f"{cache['folder']}, {bytes_text(cache['size'])}; "
        f"limit for features and images {bytes_text(cache['limit'])}",
        **facts["settings"],
    }
    return {name: printable(str(text)) for name, text in rows.items()}
