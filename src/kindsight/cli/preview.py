"""``kindsight preview``: a contact sheet of an augmentation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kindsight.cli.terminal.options import (
    DataOf,
    Debug,
    Json,
    Quiet,
    with_data_options,
)
from kindsight.cli.terminal.text import Paint, note, print_json, printable, say
from kindsight.dataset.names import ignored_counts, ignored_text
from kindsight.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kindsight.augment.preview import Preview
    from kindsight.dataset import DataOptions, ImageDataset

__all__ = ["preview"]


Data = Annotated[str, typer.Argument(help=f"{DataOf} Labels are not needed.")]
Augment = Annotated[
    str,
    typer.Option(
        metavar="NAME|FILE",
        help="Augmentation: none, light, classic, strong, auto, or a TOML file.",
    ),
]
Out = Annotated[
    str, typer.Option(metavar="FILE", help="Contact sheet: a .png, .jpg or .webp file.")
]
Images = Annotated[int, typer.Option(min=1, metavar="N", help="Images, one per row.")]
Copies = Annotated[
    int,
    typer.Option(min=1, metavar="N", help="Augmented copies per image, of consecutive epochs."),
]
Seed = Annotated[int, typer.Option(metavar="NUMBER", help="Seed of the random changes and images.")]
Epoch = Annotated[int, typer.Option(min=0, metavar="N", help="Epoch of the first copy.")]
Size = Annotated[int, typer.Option(metavar="PIXELS", help="Height and width of the images.")]
Resize = Annotated[
    str,
    typer.Option(metavar="crop|stretch|pad", help="Resizing of images that are not square."),
]
Force = Annotated[bool, typer.Option("--force", help="Overwriting of an existing contact sheet.")]


@with_data_options(labels=False)
def preview(  # noqa: PLR0913 (one parameter for each option)
    data: Data,
    augment: Augment = "classic",
    out: Out = "sheet.png",
    images: Images = 6,
    copies: Copies = 5,
    seed: Seed = 0,
    epoch: Epoch = 1,
    size: Size = 224,
    resize: Resize = "crop",
    *,
    options: DataOptions,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Preview an augmentation of your images.

    Writes a contact sheet: each row shows an image and its augmented copies, with the changes below
    each copy. No image file is changed.

    Example: kindsight preview photos/ --augment classic --out sheet.png
    """
    from kindsight.augment import parse_augment
    from kindsight.augment.preview import FORMATS, make_preview, write_sheet
    from kindsight.dataset import open_dataset
    from kindsight.images import InputSpec

    if Path(out).suffix.lower() not in FORMATS:
        raise SettingsError(f"--out must end with {', '.join(FORMATS)}; got {out}.")
    if Path(out).exists() and not force:
        raise SettingsError(f"{out} exists. Choose another --out, or overwrite it with --force.")
    policy = parse_augment(augment)
    dataset = open_dataset(data, options, labelled=False)
    made = make_preview(
        dataset,
        policy,
        name=Path(augment).stem,
        spec=InputSpec(size, size, fit=resize),  # type: ignore[arg-type]  # checked there
        images=images,
        copies=copies,
        seed=seed,
        epoch=epoch,
    )
    write_sheet(out, made.sheet)
    if json:
        ignored = ignored_counts(dataset.ignored_files)
        print_json({"out": out, **made.to_dict(), "ignored_files": ignored})
    else:
        say(*_lines(made, out))
        _notes(made, dataset, quiet)


def _lines(made: Preview, out: str) -> Iterator[str]:
    from kindsight.cli.terminal.summary import facts

    width, height = made.sheet.size
    shown = f"{len(made.rows)} of {made.found:,}"
    yield from facts(
        {
            "augment": f"{printable(made.name)}: {made.policy}",
            "images": f"{shown}, augmented copies of each: {made.copies}",
            "sheet": f"{printable(out)} ({width:,} x {height:,} pixels)",
        },
        Paint(sys.stdout),
    )


def _notes(made: Preview, dataset: ImageDataset, quiet: bool) -> None:
    if quiet:
        return
    if dataset.ignored:
        note(f"ignored: {ignored_text(dataset.ignored.items())}.")
    for reason in made.skipped:
        note(f"skipped: {reason}")
    if made.policy.mixes:
        note("MixUp and CutMix mix the images of a batch, and are not shown.")
