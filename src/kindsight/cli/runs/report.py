"""``kindsight report``: make the report of a run again, or show several runs side by side."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kindsight.cli.terminal.options import Debug, Json, Quiet
from kindsight.cli.terminal.text import print_json, printable, say
from kindsight.errors import UsageError

if TYPE_CHECKING:
    from kindsight.runs.reporting.make import WrittenReport

__all__ = ["report"]

SIDE_BY_SIDE_FILE = "runs.html"


def report(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Run folders; several are compared.")
    ],
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="HTML page to write.  [default: RUN/report.html; runs.html for several runs]",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Overwriting of an existing page.")
    ] = False,
    open_page: Annotated[
        bool, typer.Option("--open", help="Opening of the page in the browser.")
    ] = False,
    cache: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Cache folder with the images.  [default: this machine's cache]"
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make the report of a run again, or show several runs side by side.

    The page of one run is the same as after its training, plus later results such as a diagnosis or
    a learning curve. A model card is written beside it. The images come from the cache
    or, failing that, from the data; without either, the page has no images.

    Example: kindsight report runs/photos-1 runs/photos-2 --out both.html
    """
    from kindsight.cli.terminal.progress import watching

    page, card = _targets(runs, out)
    # The files in a run folder are its own: training wrote them.
    own = out is None and len(runs) == 1
    for path in filter(None, (page, card)):
        if not own and os.path.lexists(path) and not force:
            raise UsageError(f"{path} exists. Choose another --out, or overwrite it with --force.")
    with watching(quiet) as progress:
        progress("report", 0, 0)
        written = _write(runs, page, card, cache)
    if open_page:
        import webbrowser

        webbrowser.open(written.report.resolve().as_uri())
    if json:
        print_json(_to_dict(written, runs))
    else:
        say(*_lines(written))


def _targets(runs: list[str], out: str | None) -> tuple[Path, Path | None]:
    """Return the paths of the page and, for one run, of its model card."""
    if len(runs) > 1:
        return Path(out or SIDE_BY_SIDE_FILE), None
    if out is not None:
        return Path(out), Path(out).with_suffix(".md")
    return Path(runs[0], "report.html"), Path(runs[0], "model_card.md")


def _write(runs: list[str], page: Path, card: Path | None, cache: str | None) -> WrittenReport:
    from kindsight.files import write_text
    from kindsight.runs.reporting.make import WrittenReport, write_report

    if card is not None:
        from kindsight.runs.record import load_run
        from kindsight.runs.reporting.build import report_data

        return write_report(report_data(load_run(runs[0]), cache=cache), page, card)
    from kindsight.report.side_by_side import render_side_by_side
    from kindsight.runs.reporting.side_by_side import side_by_side

    data = side_by_side(*runs, cache=cache)
    write_text(page, render_side_by_side(data))
    return WrittenReport(page, None, 0, data)


def _to_dict(written: WrittenReport, runs: list[str]) -> dict[str, Any]:
    """Return what ``--json`` prints."""
    found: dict[str, Any] = {
        "runs": runs,
        "report": str(written.report),
        "bytes": written.report.stat().st_size,
        "model_card": None if written.model_card is None else str(written.model_card),
        "images": written.images,
    }
    if len(runs) > 1:
        data: Any = written.data
        found["comparison"] = {
            "images": data.images,
            "source": data.source,
            "differences": [item._asdict() for item in data.differences],
            "notes": list(data.notes),
        }
    return found


def _lines(written: WrittenReport) -> list[str]:
    from kindsight.report.side_by_side import SideBySide

    data, lines = written.data, [f"Report: {printable(str(written.report))}"]
    if isinstance(data, SideBySide):
        sentences = (*(item.sentence for item in data.differences), *data.notes)
        return [*map(printable, sentences), *lines]
    lines.append(f"Model card: {printable(str(written.model_card))}")
    if data.results and not written.images:
        lines.append("No images: they are no longer in the cache or the data folder.")
    return lines
