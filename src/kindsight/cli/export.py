"""``kindsight export``: convert a classifier for another runtime and compare the results."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kindsight.cli.terminal.options import Debug, Json, On, Quiet, with_data_options
from kindsight.cli.terminal.text import (
    Paint,
    complain,
    note,
    print_json,
    printable,
    say,
    table,
)

if TYPE_CHECKING:
    from kindsight.dataset import DataOptions
    from kindsight.export.images import ExportImages
    from kindsight.export.proof import Accuracy
    from kindsight.export.run import Export

__all__ = ["export"]

SHOWN = 5
"""Maximum number of images with another label that are listed for each export."""

FAILED = 1
"""The exit code if an export failed."""


@with_data_options()
def export(  # noqa: PLR0913 (one parameter for each option)
    run: Annotated[str, typer.Argument(help="Run folder or model bundle.")],
    to: Annotated[
        str,
        typer.Option(
            metavar="FORMAT[,FORMAT]",
            help="Formats: litert, litert-float16, litert-dynamic, litert-int8, onnx, openvino, "
            "openvino-float16, savedmodel, coreml, web.",
            show_default=False,
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Parent folder of a new folder for each format.  [default: RUN/export]",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Images for the comparison, instead of the run's validation images: a folder, "
            "table or arrays, as for 'kindsight evaluate'.",
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        int, typer.Option(metavar="N", min=1, help="Maximum number of images to compare.")
    ] = 500,
    accept: Annotated[
        bool,
        typer.Option("--accept", help="Writing of exports that differ by more than allowed."),
    ] = False,
    *,
    options: DataOptions,
    on: On = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Convert a classifier for another runtime and compare the results.

    Each export is run in its own runtime on validation images of the run, and its predictions are
    compared with the classifier's. If they differ by more than the format allows, the export is
    not written and the exit code is 1; --accept writes it. An export that this machine cannot run
    is written as unproven. Nothing is overwritten. With --on, the cluster reads the images and
    computes the classifier's own predictions, which is faster from a few thousand
    --images; the export is converted, run and timed on this machine.

    Example: kindsight export runs/photos-1 --to litert
    """
    from kindsight.bundle import load_bundle
    from kindsight.cli.terminal.progress import watching
    from kindsight.distributed import require_cluster
    from kindsight.export.run import check_export, export_bundle
    from kindsight.export.targets import find_targets

    targets = find_targets(to)
    bundle = load_bundle(run)
    folder = Path(run, "export") if out is None else Path(out)
    check_export(bundle, targets, folder)
    require_cluster(on)
    compared = _images(run, data, options, images)
    exports: list[Export] = []
    with watching(quiet) as progress:
        found = export_bundle(
            bundle, targets, folder, compared, accept=accept, progress=progress, on=on
        )
        exports.extend(found)
    if json:
        print_json({"run": run, "exports": [each.to_dict() for each in exports]})
    else:
        say(*_lines(run, exports))
    for each in exports:
        for fault in each.faults:
            text = f"{each.target.name}: {fault}"
            if each.status != "failed":
                note(text)
            elif each.proof is None:
                complain(text)
            else:
                complain(f"{text} It was not written; --accept writes it nevertheless.")
    if any(each.status == "failed" for each in exports):
        raise typer.Exit(FAILED)


def _images(run: str, data: str | None, options: DataOptions, count: int) -> ExportImages:
    from kindsight.bundle import load_bundle
    from kindsight.export.images import images_of_data, images_of_run

    if data is None:
        return images_of_run(load_bundle(run), count)
    return images_of_data(load_bundle(run), data, options, count)


def _lines(run: str, exports: Sequence[Export]) -> Iterator[str]:
    paint = Paint(sys.stdout)
    described = [each.proof.description for each in exports if each.proof is not None]
    title = f"{printable(run)}" + (f", compared on {described[0]}" if described else "")
    yield paint(title, "bold")
    yield ""
    header = (
        "format", "result", "same label", "largest diff.", "mean diff.", "accuracy", "unknown",
        "size", "one image", "images/s", "cold start",
    )  # fmt: skip
    yield from table(header, map(_row, exports), paint=paint, left=2)
    first = next((each.proof for each in exports if each.proof is not None), None)
    if first is not None and first.accuracy is not None:
        yield f"  Accuracy of the classifier itself: {_accuracy(first.accuracy)}"
    for each in exports:
        yield from _differing(each)
    if written := [each for each in exports if each.status != "failed"]:
        yield ""
        yield "Files"
        yield from (f"  {printable(str(each.folder))}" for each in written)


def _row(export: Export) -> list[str]:
    from kindsight.report.format import percent

    size = f"{export.size / 1e6:.1f} MB" if export.size else "-"
    proof = export.proof
    if proof is None:
        return [export.target.name, export.status, *["-"] * 5, size, "-", "-", "-"]
    theirs, unknown = proof.exported_accuracy, proof.unknown_agreeing
    return [
        export.target.name,
        export.status,
        percent(proof.agreement),
        f"{proof.largest:.1e}",
        f"{proof.mean:.1e}",
        "-" if theirs is None else percent(theirs.accuracy),
        "-" if unknown is None else percent(unknown / proof.images),
        size,
        f"{1000 * proof.latency:.1f} ms",
        f"{proof.throughput:,.0f}",
        "-" if proof.cold_start is None else f"{proof.cold_start:.2f} s",
    ]


def _accuracy(accuracy: Accuracy) -> str:
    from kindsight.evaluation.intervals import wilson_interval
    from kindsight.report.format import interval, percent

    ends = wilson_interval(accuracy.correct, accuracy.images)
    return f"{percent(accuracy.accuracy)} (95% CI {interval(ends)})"


def _differing(export: Export) -> Iterator[str]:
    if export.proof is None or not export.proof.differing:
        return
    differing = export.proof.differing
    yield ""
    yield f"{export.target.name}: images with a different label"
    for each in differing[:SHOWN]:
        yield (
            f"  {printable(each.path)}: {printable(each.exported_label)} "
            f"{each.exported_probability:.3f} instead of {printable(each.label)} "
            f"{each.probability:.3f}"
        )
    if len(differing) > SHOWN:
        yield f"  and {len(differing) - SHOWN:,} more"
