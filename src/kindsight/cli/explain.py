"""``kindsight explain``: show the feature maps of a classifier for one image."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kindsight.cli.terminal.options import Debug, Json, Quiet
from kindsight.cli.terminal.text import Paint, print_json, printable, say, table
from kindsight.errors import UsageError

if TYPE_CHECKING:
    from kindsight.explain import FeatureMaps

__all__ = ["explain"]


def explain(
    bundle: Annotated[str, typer.Argument(help="Run folder or model bundle.")],
    image: Annotated[str, typer.Argument(help="Image file.")],
    layers: Annotated[
        bool,
        typer.Option(
            "--layers", help="Feature maps of each layer (the default).", show_default=False
        ),
    ] = True,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="HTML page to write.  [default: IMAGE-layers.html; with --json none]",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Overwriting of an existing page.")
    ] = False,
    max_layers: Annotated[
        int | None,
        typer.Option(
            "--max-layers",
            min=1,
            metavar="N",
            help="Largest number of layers, evenly spaced.  [default: 16]",
        ),
    ] = None,
    max_maps: Annotated[
        int | None,
        typer.Option(
            "--max-maps",
            min=1,
            metavar="N",
            help="Largest number of maps per layer, evenly spaced.  [default: 64]",
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Explain a prediction for an image.

    Writes an HTML page with the feature maps of each layer.

    Example: kindsight explain runs/photos-1 photo.jpg --out layers.html
    """
    from kindsight.cli.terminal.progress import watching

    page = _page(image, out, json)
    # Checked before the work, not after it.
    if page is not None and os.path.lexists(page) and not force:
        raise UsageError(f"{page} exists. Choose another --out, or overwrite it with --force.")
    from kindsight.explain import explain_layers
    from kindsight.files import write_text
    from kindsight.models.networks.feature_maps import MAX_LAYERS, MAX_MAPS

    with watching(quiet) as progress:
        progress("layers", 0, 0)
        found = explain_layers(
            bundle, image, max_layers=max_layers or MAX_LAYERS, max_maps=max_maps or MAX_MAPS
        )
    if page is not None:
        write_text(page, found.to_html())
    if json:
        print_json({**found.to_dict(), "page": None if page is None else str(page)})
    else:
        say(*_lines(found, page))


def _page(image: str, out: str | None, json: bool) -> Path | None:
    """Return the path of the page; None for none."""
    if out is not None:
        return Path(out)
    return None if json else Path(f"{Path(image).stem}-layers.html")


def _lines(found: FeatureMaps, page: Path | None) -> list[str]:
    from kindsight.cli.terminal.summary import facts
    from kindsight.report.format import amount, percent

    paint = Paint(sys.stdout)
    prediction = found.prediction
    rows = [
        (
            printable(layer.name),
            f"{layer.size[0]} x {layer.size[1]}",
            f"{layer.channels:,}",
            f"{layer.silent:,}",
        )
        for layer in found.layers
    ]
    lines = [
        paint(
            f"{printable(str(prediction.label))}, confidence {percent(prediction.confidence)}",
            "bold",
        ),
        "",
        *table(("layer", "size", "maps", "constant"), rows, paint=paint),
    ]
    if found.not_shown:
        total = amount(len(found.layers) + len(found.not_shown), "layer")
        lines.append(f"  {len(found.layers)} of {total}, evenly spaced; more with --max-layers")
    if found.is_submodel:
        lines.append("  of one of the averaged networks, applied to the unchanged image")
    return [*lines, "", *facts({"page": printable(str(page))}, paint)]
