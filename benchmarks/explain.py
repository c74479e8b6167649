"""Measure where saliency maps point on composed photographs, and if they depend on the weights.

    python benchmarks/explain.py measure --data cats-dogs/ --run runs/frozen --run runs/transfer
    python benchmarks/explain.py randomise --data cats-dogs/ --run runs/frozen
    python benchmarks/explain.py compose composed/ --data cats-dogs/ --background sign-digits/
    kindsight train composed/ --model small-cnn --group-from '^(.+)-quarter' --run composed
    python benchmarks/explain.py measure --data composed/ --run runs/composed

`measure` composes the validation images of a run four to an image: one of a class, three of other
classes, whose class is explained. A map hits if its sum is largest in the quarter of the explained
class (as in M. Boehle, M. Fritz, B. Schiele, "Convolutional dynamic alignment networks for
interpretable classifications", CVPR 2021). It prints, for each run and method, the fraction of
hits, the mean fraction of the map in that quarter, and whether the target of 80% hits is met.

A network that was trained from scratch on single photographs does not recognise one in a quarter of
an image. `compose` writes images to train it on: a photograph in each of the four quarters in turn,
other photographs, of none of the classes, in the remaining three. `measure` detects a run on such
images, and uses its validation images unchanged.

`randomise` is the test of J. Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018: the
values of each weight tensor are shuffled, and the map of the same image and class compared by
Spearman's rank correlation. A map that does not depend on the weights would have a correlation
near 1; the target is a mean below 0.5.

The windows of occlusion and the maps of Grad-CAM were chosen on compositions with the seed 0; the
seed here must be another one.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

TARGET = 0.8
LARGEST_CORRELATION = 0.5
COMPOSED = re.compile(r"-quarter([0-3])\.png$")
# Shorter constants are factors of the input's scaling and the like, not weights.
SMALLEST_TENSOR = 16


def tiled(tiles: Sequence[Any], size: tuple[int, int]) -> Any:
    """Return four images as one of this (height, width)."""
    from kindsight.images import InputSpec, read_image, resize_image

    height, width = size[0] // 2, size[1] // 2
    spec = InputSpec(height, width, fit="crop")
    parts = [resize_image(read_image(tile), spec) for tile in tiles]
    rows = [np.concatenate(parts[top : top + 2], axis=1) for top in (0, 2)]
    return resize_image(np.concatenate(rows, axis=0), InputSpec(*size))


def compose(
    rows: list[Any], root: Path, size: tuple[int, int], random: Any
) -> tuple[Any, str, int]:
    """Return an image composed of four, the explained class, and its quarter."""
    classes = sorted({row.label for row in rows})
    chosen, quarter = classes[int(random.integers(len(classes)))], int(random.integers(4))
    tiles = []
    for place in range(4):
        fitting = [row for row in rows if (row.label == chosen) == (place == quarter)]
        tiles.append(root / fitting[int(random.integers(len(fitting)))].path)
    return tiled(tiles, size), chosen, quarter


def composed_images(
    record: Any, data: Path, images: int, random: Any
) -> Iterator[tuple[Any, str, int]]:
    """Yield validation images of a run, composed here or before its training."""
    from kindsight.images import read_image, resize_image

    rows = [image for image in record.images if image.split == "validation"]
    if all(COMPOSED.search(row.path) for row in rows):
        for index in random.permutation(len(rows))[:images]:
            path = data / rows[index].path
            found = COMPOSED.search(rows[index].path)
            pixels = resize_image(read_image(path), record.bundle.spec)
            yield pixels, rows[index].label, int(found[1])
        return
    for _ in range(images):
        yield compose(rows, data, record.bundle.spec.size, random)


def quarter_shares(values: Any) -> Any:
    """Return the fraction of a map in each quarter."""
    import cv2

    side = cv2.resize(np.asarray(values, np.float32), (64, 64), interpolation=cv2.INTER_LINEAR)
    sums = side.reshape(2, 32, 2, 32).sum(axis=(1, 3)).ravel()
    return sums / sums.sum() if sums.sum() > 0 else sums


def methods_of(names: Sequence[str], bundle: Any) -> Iterator[tuple[str, Any]]:
    """Yield the methods by name."""
    from kindsight.explain.saliency import make_method

    for name in names:
        yield name, make_method(name, bundle)


def measure(run: str, options: argparse.Namespace) -> bool:
    """Print the figures of the methods for a run; return whether the target is met."""
    from kindsight.explain.saliency import class_weights
    from kindsight.runs.record import load_run

    record = load_run(run)
    random = np.random.default_rng(options.seed)
    composed = list(composed_images(record, options.data, options.images, random))
    places = np.array([quarter for _, _, quarter in composed])
    met = True
    for name, method in methods_of(options.method, record.bundle):
        shares = []
        start = time.perf_counter()
        for pixels, chosen, _ in composed:
            weights = class_weights(record.classes, record.classes.index(chosen))
            shares.append(quarter_shares(method.map(pixels, weights)))
        seconds = (time.perf_counter() - start) / len(composed)
        hits = float((np.argmax(shares, axis=1) == places).mean())
        share = float(np.array(shares)[np.arange(len(composed)), places].mean())
        met &= hits >= TARGET
        print(
            f"{Path(run).name:16} {name:10} hits {hits:6.1%}  share {share:5.1%}  {seconds:.2f} s "
            f"an image  target {TARGET:.0%}: {'met' if hits >= TARGET else 'NOT MET'}",
            flush=True,
        )
    return met


def shuffled_copy(bundle: Any, folder: Path, random: Any) -> Any:
    """Write the network with the values of each weight tensor shuffled; return its bundle."""
    from kindsight.models.formats.tflite import read_tflite

    file = read_tflite(bundle.tflite)
    (graph,) = file.model.subgraphs
    changed: set[int] = set()
    for tensor in graph.tensors:
        buffer = file.model.buffers[tensor.buffer]
        if tensor.type != 0 or buffer.data is None or tensor.buffer in changed:  # 0: float32
            continue
        values = np.frombuffer(np.asarray(buffer.data, np.uint8).tobytes(), "<f4")
        if values.size >= SMALLEST_TENSOR:
            buffer.data = random.permutation(values).view(np.uint8)
            changed.add(tensor.buffer)
    (folder / bundle.tflite.name).write_bytes(bytes(file.to_bytes()))
    return replace(bundle, folder=folder)


def randomise(run: str, options: argparse.Namespace) -> bool:
    """Print the correlation of maps with those of shuffled weights; return if the target is met."""
    from scipy.stats import spearmanr

    from kindsight.explain.saliency import class_weights
    from kindsight.runs.record import load_run

    record, random = load_run(run), np.random.default_rng(options.seed)
    composed = list(composed_images(record, options.data, options.images, random))
    met = True
    with tempfile.TemporaryDirectory() as temporary:
        other = shuffled_copy(record.bundle, Path(temporary), random)
        both = zip(
            methods_of(options.method, record.bundle), methods_of(options.method, other),
            strict=True,
        )  # fmt: skip
        for (name, method), (_, changed) in both:
            found = []
            for pixels, chosen, _ in composed:
                weights = class_weights(record.classes, record.classes.index(chosen))
                before, after = (each.map(pixels, weights).ravel() for each in (method, changed))
                if np.ptp(before) > 0 and np.ptp(after) > 0:
                    found.append(float(spearmanr(before, after).statistic))
            mean = float(np.mean(found)) if found else 0.0
            fits = abs(mean) < LARGEST_CORRELATION
            met &= fits
            print(
                f"{Path(run).name:16} {name:10} correlation {mean:5.2f} ({len(found)} images with "
                f"two maps)  target below {LARGEST_CORRELATION}: {'met' if fits else 'NOT MET'}",
                flush=True,
            )
    return met


def write_composed(options: argparse.Namespace) -> bool:
    """Write each photograph in each quarter of an image, with photographs of other data."""
    from kindsight.dataset import ImageDataset
    from kindsight.explain.overlay import encode

    data, others = ImageDataset.open(options.data), ImageDataset.open(options.background)
    random = np.random.default_rng(options.seed)
    size = (options.size, options.size)
    for path, label in zip(data.path, data.label, strict=True):
        if options.classes and label not in options.classes:
            continue
        (options.out / label).mkdir(parents=True, exist_ok=True)
        for quarter in range(4):
            chosen = random.integers(len(others), size=4)
            tiles = [options.background / others.path[row] for row in chosen]
            tiles[quarter] = options.data / path
            name = f"{Path(path).stem}-quarter{quarter}.png"
            (options.out / label / name).write_bytes(encode(tiled(tiles, size)))
    return True


def main() -> None:
    """Run a command; exit with 1 if a target is not met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for function in (measure, randomise):
        command = commands.add_parser(function.__name__, help=function.__doc__)
        command.add_argument("--run", action="append", required=True, help="run folder; repeatable")
        command.add_argument("--images", type=int, default=100, help="images  [default: 100]")
        command.add_argument("--method", action="append", help="method; repeatable  [default: all]")
        command.set_defaults(function=function)
    command = commands.add_parser("compose", help=write_composed.__doc__)
    command.add_argument("out", type=Path, help="folder to write")
    command.add_argument("--background", type=Path, required=True, help="photographs of no class")
    command.add_argument("--size", type=int, default=96, help="side in pixels  [default: 96]")
    command.add_argument("--classes", type=lambda text: text.split(","), help="[default: all]")
    for command in commands.choices.values():
        command.add_argument("--data", type=Path, required=True, help="folder of class folders")
        command.add_argument("--seed", type=int, default=1, help="random seed  [default: 1]")
    options = parser.parse_args()
    if options.command == "compose":
        raise SystemExit(not write_composed(options))
    from kindsight.explain.saliency import METHODS

    options.method = options.method or [*METHODS]
    results = [options.function(run, options) for run in options.run]
    raise SystemExit(not all(results))


if __name__ == "__main__":
    main()
