"""What the scripts of the rivals share: their command line, and the one line that they print.

This module imports nothing heavy, and every script imports it first: the clock that it starts
then covers the import of the rival's own libraries, as its user would wait for them.
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
    """Make the command line that every rival that trains understands."""
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
    parser.add_argument("--seed", type=int, default=0, help="seed of the rival's own draws")
    return parser


def tuning_parser(description: str) -> argparse.ArgumentParser:
    """Make the command line that every rival that fine-tunes on arrays understands."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--pixels", type=Path, required=True, help="uint8 (n, height, width, 3)")
    parser.add_argument("--targets", type=Path, required=True, help="int64 (n,)")
    parser.add_argument("--upper", action="store_true", help="only what lies above the cut learns")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--judged",
        type=float,
        default=0.2,
        help="the share that each epoch is judged by, not learned",
    )
    return parser


def judged_apart(count: int, share: float) -> tuple[Any, Any]:
    """Divide images' numbers, in an order of chance: what is learned from, and judged by."""
    import numpy as np

    order = np.random.default_rng(0).permutation(count)
    return np.split(order, [count - round(share * count)])


def run(
    rival: str,
    packages: tuple[str, ...],
    job: Callable[[argparse.Namespace], dict[str, Any]],
    parser: argparse.ArgumentParser,
) -> None:
    """Do the job and print its answer as one line of JSON, alone on standard output.

    Parameters
    ----------
    rival : str
        Name to print.
    packages : tuple of str
        Installed packages whose versions belong to the figure.
    job : callable
        Options in, keys of the answer out. What it prints goes to standard error.
    parser : argparse.ArgumentParser
        The script's command line.
    """
    options = parser.parse_args()
    for name in ("train", "validation"):
        folder = getattr(options, name, None)
        if folder is not None and not folder.is_dir():
            parser.error(f"--{name} must be a folder of class folders. Received: {folder}")
    with contextlib.redirect_stdout(sys.stderr):
        answer = job(options)
    seconds = time.perf_counter() - START
    versions = {package: metadata.version(package) for package in packages}
    print(json.dumps({"rival": rival, "seconds": round(seconds, 3), **answer, **versions}))


def count_images(folder: Path) -> int:
    """Count the files in class folders that look like images."""
    return sum(path.suffix.lower() in SUFFIXES for path in folder.glob("*/*"))
