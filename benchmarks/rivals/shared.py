"""Command line and JSON output of the rivals' scripts.

Every script imports this module first, so that the clock started here covers the import of the
rival's libraries.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

START = time.perf_counter()

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


def training_parser(description: str) -> argparse.ArgumentParser:
    """Return the parser of the scripts that train on folders."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--train",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of class folders to train on",
    )
    parser.add_argument(
        "--validation",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of class folders to score; the same classes",
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed of the rival")
    return parser


def tuning_parser(description: str) -> argparse.ArgumentParser:
    """Return the parser of the scripts that fine-tune on arrays."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--pixels", type=Path, required=True, help="uint8 (n, height, width, 3)")
    parser.add_argument("--targets", type=Path, required=True, help="int64 (n,)")
    parser.add_argument(
        "--upper", action="store_true", help="train only the layers above the cut layer"
    )
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--validate",
        type=float,
        default=0.2,
        help="fraction of the images for validation  [default: 0.2]",
    )
    return parser


def split_rows(count: int, fraction: float) -> tuple[Any, Any]:
    """Return a random split of row indices: training, validation (`fraction` of them)."""
    import numpy as np

    order = np.random.default_rng(0).permutation(count)
    return np.split(order, [count - round(fraction * count)])


def run(
    rival: str,
    packages: tuple[str, ...],
    job: Callable[[argparse.Namespace], dict[str, Any]],
    parser: argparse.ArgumentParser,
) -> None:
    """Run the job and print its result as one line of JSON on standard output.

    Parameters
    ----------
    rival : str
        Name to print.
    packages : tuple of str
        Installed packages whose versions are printed.
    job : callable
        Takes the options, returns the result; its output goes to standard error.
    parser : argparse.ArgumentParser
        The script's command line.
    """
    options = parser.parse_args()
    for name in ("train", "validation"):
        folder = getattr(options, name, None)
        if folder is not None and not folder.is_dir():
            parser.error(f"--{name} must be a folder of class folders; got {folder}")
    with contextlib.redirect_stdout(sys.stderr):
        result = job(options)
    seconds = time.perf_counter() - START
    versions = {package: metadata.version(package) for package in packages}
    print(json.dumps({"rival": rival, "seconds": round(seconds, 3), **result, **versions}))


def count_images(folder: Path) -> int:
    """Return the number of files in class folders with an image suffix."""
    return sum(path.suffix.lower() in SUFFIXES for path in folder.glob("*/*"))
