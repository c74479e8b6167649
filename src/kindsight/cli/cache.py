"""``kindsight cache``: show and clear features, images and models cached on this machine."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kindsight.cli.terminal.command import Command, Commands
from kindsight.cli.terminal.options import Debug, Json, Quiet
from kindsight.cli.terminal.text import Paint, note, print_json, printable, say, table
from kindsight.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kindsight.cache.folder import CacheEntry

__all__ = ["bytes_text", "cache_app"]

KINDS = ("features", "measurements", "images", "activations", "backbone", "files")


class _ShowByDefault(Commands):
    """The group of these commands; the default is ``show``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, with ``show`` where no command is named."""
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

    The least recently used are deleted until the rest fits the limit.

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
                f"More than the limit of {bytes_text(cache.limit)} is left: a running process uses "
                "it. Run the command again when it has ended."
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
