"""``kindsight explain``: show which regions of images a prediction relies on, and feature maps."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kindsight.cli.predict import UNREADABLE
from kindsight.cli.terminal.options import BundleFolder, Debug, Json, Quiet
from kindsight.cli.terminal.text import Paint, complain, note, print_json, printable, say, table
from kindsight.errors import UsageError

if TYPE_CHECKING:
    from kindsight.explain.explanation import Explanation
    from kindsight.explain.feature_maps import FeatureMaps
    from kindsight.explain.similarity import TrainingImages

__all__ = ["explain"]

METHODS = ("grad-cam", "occlusion")


@dataclass(frozen=True)
class _Output:
    """The file of the page, and how results are shown."""

    page: Path | None
    force: bool
    json: bool
    quiet: bool

    def check(self, *paths: Path | None) -> None:
        """Raise UsageError for a file that exists. Checked before the work, not after it."""
        for path in (self.page, *paths):
            if path is not None and os.path.lexists(path) and not self.force:
                raise UsageError(
                    f"{path} exists. Choose another --out, or overwrite it with --force."
                )


Images = Annotated[list[str] | None, typer.Argument(help="Image files.", show_default=False)]
ClassName = Annotated[
    str | None,
    typer.Option(
        "--class",
        metavar="NAME",
        help="Class to explain.  [default: the predicted class of each image]",
    ),
]
Versus = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Class to compare with.  [default: all others]"),
]
Method = Annotated[
    str | None,
    typer.Option(metavar="|".join(METHODS), help="Method of the overlays.  [default: both]"),
]
Nearest = Annotated[
    int, typer.Option(min=0, metavar="N", help="Number of nearest training images.")
]
Layers = Annotated[bool, typer.Option("--layers", help="Feature maps of each layer of one image.")]
ImageMap = Annotated[
    bool,
    typer.Option("--map", help="Map of the run's validation images by similarity."),
]
Out = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="HTML page to write; overlays are written to a folder of the same name.  [default: "
        "IMAGE-explained.html, explained.html for several images, IMAGE-layers.html, "
        "RUN-map.html; with --json none]",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overwriting of existing files.")]
MaxLayers = Annotated[
    int | None,
    typer.Option(
        "--max-layers",
        min=1,
        metavar="N",
        help="Maximum number of layers, evenly spaced.  [default: 16]",
    ),
]
MaxMaps = Annotated[
    int | None,
    typer.Option(
        "--max-maps",
        min=1,
        metavar="N",
        help="Maximum number of maps per layer, evenly spaced.  [default: 64]",
    ),
]


def explain(  # noqa: PLR0913, PLR0917 (one parameter for each option)
    bundle: BundleFolder,
    images: Images = None,
    class_name: ClassName = None,
    versus: Versus = None,
    method: Method = None,
    nearest: Nearest = 5,
    layers: Layers = False,
    image_map: ImageMap = False,
    out: Out = None,
    force: Force = False,
    max_layers: MaxLayers = None,
    max_maps: MaxMaps = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Explain predictions.

    Writes an HTML page with the nearest training images and with overlays by Grad-CAM and by
    occlusion: the regions of the image that raise the score of a class. TensorFlow is needed for
    --layers only.

    Example: kindsight explain runs/photos-1 photo.jpg

    Example: kindsight explain runs/photos-1 new/*.jpg --class dog --versus cat --out dogs.html

    Example: kindsight explain runs/photos-1 photo.jpg --layers --out layers.html

    Example: kindsight explain runs/photos-1 --map
    """
    given = list(images or [])
    if image_map and layers:
        raise UsageError("`map` and `layers` cannot be combined. Leave one of them out.")
    output = _Output(_page(bundle, given, out, json, layers, image_map), force, json, quiet)
    if image_map:
        if given:
            raise UsageError("`map` shows the validation images. Leave out the image files.")
        _show_map(bundle, output)
        return
    if not given:
        raise UsageError("An image file is missing. Give one or more, or --map.")
    if layers:
        if len(given) > 1:
            raise UsageError(f"`layers` takes one image; got {len(given)}.")
        _show_layers(bundle, given[0], max_layers, max_maps, output)
        return
    if method is not None and method not in METHODS:
        raise UsageError(f"`method` must be {' or '.join(METHODS)}; got {method!r}.")
    methods = METHODS if method is None else (method,)
    _show_explanations(bundle, given, (class_name, versus), methods, nearest, output)


def _page(
    bundle: str, images: Sequence[str], out: str | None, json: bool, layers: bool, image_map: bool
) -> Path | None:
    """Return the path of the page; None if no page is written."""
    if out is not None:
        return Path(out)
    if json:
        return None
    if image_map:
        return Path(f"{Path(bundle).resolve().name}-map.html")
    if len(images) == 1:
        return Path(f"{Path(images[0]).stem}-{'layers' if layers else 'explained'}.html")
    return Path("explained.html")


def _show_explanations(
    bundle: str,
    images: Sequence[str],
    classes: tuple[str | None, str | None],
    methods: Sequence[str],
    nearest: int,
    output: _Output,
) -> None:
    from kindsight.bundle import load_bundle
    from kindsight.cli.terminal.progress import watching
    from kindsight.explain.explanation import explain_images
    from kindsight.explain.pages import render_explanations
    from kindsight.files import write_text

    files = _overlay_files(images, methods, output.page)
    output.check(*files.values())
    opened = load_bundle(bundle)
    with watching(output.quiet) as progress:
        training = _training_images(bundle, progress, output) if nearest else None
        found = list(
            explain_images(
                opened,
                images,
                methods=methods,
                target=classes[0],
                versus=classes[1],
                training_images=training,
                nearest=nearest,
                progress=progress,
            )
        )
    if output.page is not None:
        _write_overlays(found, files)
        write_text(output.page, render_explanations(found, opened.folder.resolve().name))
    entries = [
        {**each.to_dict(), "overlays": _written(number, each, files)}
        for number, each in enumerate(found)
    ]
    if output.json:
        page = None if output.page is None else str(output.page)
        print_json({"run": bundle, "images": entries, "page": page})
    else:
        say(*_lines(found, output))
    failed = [each.prediction.error for each in found if each.prediction.error is not None]
    for error in failed:
        complain(printable(str(error)))
    if failed:
        raise typer.Exit(UNREADABLE)


def _training_images(
    bundle: str, progress: Callable[[str, int, int], None], output: _Output
) -> TrainingImages | None:
    """Return the training images of a run with their features; None if it does not record them."""
    from kindsight.errors import KindsightError
    from kindsight.runs.feature_vectors import run_vectors
    from kindsight.runs.record import load_run

    run = load_run(bundle)
    images = [image for image in run.images if image.split == "train"]
    why = "split.csv, which lists them, is not in the folder"
    found = None
    if images:
        try:
            found = run_vectors(run.bundle, run.settings, images, progress=progress)
        except KindsightError as error:  # no feature maps to compare; reported with the images
            why = str(error)
    if found is not None and len(found.images.paths) and not output.quiet:
        left = found.images.total - len(found.images.paths)
        if left:
            reason = f" {found.problem}" if found.problem else ""
            note(
                f"The nearest images were searched among {len(found.images.paths):,} of "
                f"{found.images.total:,} training images.{reason}"
            )
    elif not output.quiet and (found is None or not len(found.images.paths)):
        why = found.problem if found is not None and found.problem else why
        note(f"No nearest training images: {why.rstrip('.')}.")
    return None if found is None else found.images


def _overlay_files(
    images: Sequence[str], methods: Sequence[str], page: Path | None
) -> dict[tuple[int, str], Path]:
    """Return the file of each overlay, by number of the image and method."""
    if page is None:
        return {}
    folder = page.with_suffix("") if page.suffix else page.with_name(f"{page.name}-overlays")
    stems = [Path(image).stem or "image" for image in images]
    return {
        (number, method): folder
        / (f"{number + 1}-{stem}-{method}.png" if stems.count(stem) > 1 else f"{stem}-{method}.png")
        for number, stem in enumerate(stems)
        for method in methods
    }


def _write_overlays(found: Sequence[Explanation], files: dict[tuple[int, str], Path]) -> None:
    from kindsight.explain.overlay import encode
    from kindsight.files import replacing

    for number, each in enumerate(found):
        for method in each.maps:
            path = files[number, method]
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                temporary.write_bytes(encode(each.overlay(method)))


def _written(number: int, found: Explanation, files: dict[tuple[int, str], Path]) -> dict[str, str]:
    return {name: str(files[number, name]) for name in found.maps if (number, name) in files}


def _lines(found: Sequence[Explanation], output: _Output) -> list[str]:
    from kindsight.cli.terminal.summary import facts
    from kindsight.report.format import percent

    paint = Paint(sys.stdout)
    lines: list[str] = []
    for each in found:
        prediction = each.prediction
        if prediction.error is not None:
            continue
        lines.append(
            paint(
                f"{printable(each.path)}: {printable(str(prediction.best))}, confidence "
                f"{percent(prediction.confidence)}",
                "bold",
            )
        )
        rival = "" if each.versus is None else f" rather than {printable(each.versus)}"
        rows = {"explained": f"{printable(each.target)}{rival}"}
        if each.nearest:
            labels = [near.label for near in each.nearest]
            rows["nearest"] = ", ".join(
                f"{labels.count(name)} {printable(name)}" for name in dict.fromkeys(labels)
            )
        lines += [*facts(rows, paint), *(f"  {printable(text)}" for text in each.notes)]
    pages = {"page": printable(str(output.page))}
    return [*lines, "", *facts(pages, paint)] if lines else []


def _show_map(bundle: str, output: _Output) -> None:
    from kindsight.cli.terminal.progress import watching
    from kindsight.cli.terminal.summary import facts
    from kindsight.files import write_text
    from kindsight.runs.explained import map_of_run

    output.check()
    with watching(output.quiet) as progress:
        found = map_of_run(bundle, progress=progress)
    if output.page is not None:
        write_text(output.page, found.to_html())
    if output.json:
        page = None if output.page is None else str(output.page)
        print_json({"run": bundle, **found.to_dict(), "page": page})
        return
    shown, paint = len(found.feature_map.images), Paint(sys.stdout)
    rows = {
        "images": f"{shown:,} of {found.total:,} in the {found.feature_map.split} split",
        "method": found.feature_map.method,
        "page": printable(str(output.page)),
    }
    say(*facts(rows, paint))


def _show_layers(
    bundle: str, image: str, max_layers: int | None, max_maps: int | None, output: _Output
) -> None:
    from kindsight.cli.terminal.progress import watching
    from kindsight.explain.feature_maps import explain_layers
    from kindsight.files import write_text
    from kindsight.models.networks.feature_maps import MAX_LAYERS, MAX_MAPS

    output.check()
    with watching(output.quiet) as progress:
        progress("layers", 0, 0)
        found = explain_layers(
            bundle, image, max_layers=max_layers or MAX_LAYERS, max_maps=max_maps or MAX_MAPS
        )
    if output.page is not None:
        write_text(output.page, found.to_html())
    if output.json:
        page: Any = None if output.page is None else str(output.page)
        print_json({**found.to_dict(), "page": page})
    else:
        say(*_layer_lines(found, output.page))


def _layer_lines(found: FeatureMaps, page: Path | None) -> list[str]:
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
            f"{printable(str(prediction.best))}, confidence {percent(prediction.confidence)}",
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
