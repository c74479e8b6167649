"""``kindsight cache`` and ``kindsight info``: what is cached here; versions and settings."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kindsight.cli.terminal.command import Command, Commands
from kindsight.cli.terminal.options import Debug, Json, Quiet
from kindsight.cli.terminal.text import Paint, cells, note, print_json, printable, say, table
from kindsight.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kindsight.cache.folder import CacheEntry

__all__ = ["bytes_text", "cache_app", "info"]

KINDS = ("features", "measurements", "images", "activations", "backbone", "shards", "files")


class _ShowByDefault(Commands):
    """The group of these commands; the default is ``show``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, with ``show`` if no command is given."""
        if not args or (args[0].startswith("-") and args[0] not in ("-h", "--help")):
            args = ["show", *args]
        return super().parse_args(ctx, args)


cache_app = typer.Typer(
    name="cache",
    cls=_ShowByDefault,
    help="Show or clear the cache. Everything in it can be computed again.",
    no_args_is_help=False,
)


@cache_app.command(cls=Command)
def show(json: Json = False, debug: Debug = False) -> None:
    """List the contents of the cache.

    Example: kindsight cache show
    """
    from kindsight.cache.folder import Cache
    from kindsight.cache.location import sharing_notes

    cache = Cache()
    entries = cache.entries()
    if json:
        print_json(
            {
                "folder": str(cache.root),
                "size": sum(entry.size for entry in entries),
                "limit": cache.limit,
                "notes": sharing_notes(cache.root),
                "entries": [_entry(entry) for entry in entries],
            }
        )
        return
    for text in sharing_notes(cache.root):
        note(text)
    paint = Paint(sys.stdout)
    total = bytes_text(sum(entry.size for entry in entries))
    say(f"{paint(total, 'bold')} in {printable(str(cache.root))}")
    say(
        paint(
            f"limit for features and images: {bytes_text(cache.limit)} (KINDSIGHT_CACHE_LIMIT)",
            "dim",
        )
    )
    if entries:
        rows = [
            (
                entry.kind,
                bytes_text(entry.size),
                _ago(time.time() - entry.used),
                printable(entry.path.name),
            )
            for entry in entries
        ]
        say("", *_table(rows, paint))


@cache_app.command(cls=Command)
def clear(
    kind: Annotated[
        str | None,
        typer.Option(metavar="|".join(KINDS), help="Kind of contents to delete.  [default: all]"),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Delete the contents of the cache, except what a running process uses.

    Example: kindsight cache clear --kind features
    """
    from kindsight.cache.folder import Cache

    if kind is not None and kind not in KINDS:
        raise SettingsError(f"--kind must be one of {', '.join(KINDS)}; got {kind!r}.")
    cache = Cache()
    freed = cache.clear(kind)
    left = [entry for entry in cache.entries() if kind in (None, entry.kind)]
    if json:
        entries = [_entry(entry) for entry in left]
        print_json({"folder": str(cache.root), "freed": freed, "in_use": entries})
        return
    if quiet:
        return
    say(f"{bytes_text(freed)} freed in {printable(str(cache.root))}")
    if left:
        size = bytes_text(sum(entry.size for entry in left))
        files, them = ("file", "it") if len(left) == 1 else ("files", "them")
        note(
            f"{size} in {len(left)} {files} not deleted: a running process uses {them}. Run the "
            "command again when it has ended."
        )


@cache_app.command(cls=Command)
def prune(json: Json = False, quiet: Quiet = False, debug: Debug = False) -> None:
    """Delete the oldest features and resized images.

    The least recently used ones are deleted until the rest is within the limit.

    Example: KINDSIGHT_CACHE_LIMIT=2GB kindsight cache prune
    """
    from kindsight.cache.folder import Cache

    cache = Cache()
    deleted = cache.prune()
    freed = sum(entry.size for entry in deleted)
    if json:
        entries = [_entry(entry) for entry in deleted]
        print_json({"folder": str(cache.root), "freed": freed, "deleted": entries})
    elif not quiet:
        left = f"{bytes_text(cache.size())} left in {printable(str(cache.root))}"
        say(f"{bytes_text(freed)} freed, {left}")
        if cache.prunable_size() > cache.limit:
            note(
                f"More than the limit of {bytes_text(cache.limit)} remains, because a running "
                "process uses it. Run the command again when it has ended."
            )


def bytes_text(size: int) -> str:
    """Format a number of bytes in units of powers of 1,000: 14.3 MB."""
    number = float(size)
    for unit in ("bytes", "KB", "MB", "GB"):
        if number < 999.95:
            return f"{size} bytes" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:,.1f} TB"


def _entry(entry: CacheEntry) -> dict[str, Any]:
    return {
        "kind": entry.kind,
        "name": entry.name,
        "path": str(entry.path),
        "size": entry.size,
        "used": entry.used,
    }


def _table(rows: Sequence[Sequence[str]], paint: Paint) -> list[str]:
    """Return the table of entries; the file name comes last, as it may be long."""
    short = table(("kind", "size", "used"), [row[:3] for row in rows], paint=Paint(sys.stdout))
    names = [paint("file", "dim"), *(row[3] for row in rows)]
    return [f"{line}  {name}" for line, name in zip(short, names, strict=True)]


def _ago(seconds: float) -> str:
    for length, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= length:
            n = int(seconds // length)
            return f"{n} {unit}{'s' * (n != 1)} ago"
    return "just now"


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
    from kindsight.models.worker.device import hidden_by, installed_fault, visible_gpus
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
        "gpus": {
            "visible": list(visible_gpus()),
            "hidden_by": hidden_by(),
            "fault": installed_fault() if visible_gpus() else "",
        },
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


def _gpu_text(gpus: Mapping[str, Any]) -> str:
    if not gpus["visible"]:
        return f"none visible{' (' + gpus['hidden_by'] + ')' if gpus['hidden_by'] else ''}"
    usable = (
        f"not usable: {gpus['fault']}" if gpus["fault"] else "trainings use it if TensorFlow can"
    )
    return f"{', '.join(gpus['visible'])}; {usable}"


def _rows(facts: Mapping[str, Any]) -> dict[str, str]:

    cores, onednn, cache = facts["cores_usable"], facts["onednn"], facts["cache"]
    source = "set by you" if onednn["from"] == "environment" else "set by kindsight"
    rows = {
        "kindsight": facts["kindsight"] or "not installed",
        "Python": f"{facts['python']}, {sys.executable}",
        "system": facts["platform"],
        "processor": facts["processor"] or facts["machine"],
        "cores": f"{cores} usable of {facts['cores']}",
        "GPU": _gpu_text(facts["gpus"]),
        **{name: value or "not installed" for name, value in facts["packages"].items()},
        "oneDNN": f"{ONEDNN}={onednn['setting']} ({source}, for training)",
        "cache": f"{cache['folder']}, {bytes_text(cache['size'])}; "
        f"limit for features and images {bytes_text(cache['limit'])}",
        **facts["settings"],
    }
    return {name: printable(str(text)) for name, text in rows.items()}
