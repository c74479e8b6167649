"""Compare the augmentation of images in memory with other libraries, in turns.

Example::

    python benchmarks/augmentation.py --rivals-python ../kindsight-rivals/bin/python

torchvision and albumentations run in the rivals' environment (rivals/README.md) and are skipped
without it. Measure on an idle machine.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from output import Row, Section, Target, add_output_options, print_sections, warn_if_busy
from processes import environment, log, run, script

NAMES = {
    "opencv": "cv2.warpAffine alone",
    "keras": "tf.data with Keras layers",
    "torchvision": "torchvision v2",
    "albumentations": "albumentations",
}
ELSEWHERE = ("torchvision", "albumentations")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--rivals-python", type=Path, metavar="PATH", help="see rivals/README.md")
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2], metavar="N")
    parser.add_argument("--images", type=int, default=1000, metavar="N", help="[default: 1000]")
    parser.add_argument("--epochs", type=int, default=3, metavar="N", help="[default: 3]")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="[default: 3]")
    add_output_options(parser)
    return parser.parse_args(arguments)


def measure(options: argparse.Namespace) -> Section:
    """Run the libraries in turns; return rows of images per second."""
    section = Section("Augmentation of 150x150 from memory: rotation, shifts, shear, zoom, flip")
    libraries = ["kindsight", *NAMES]
    if options.rivals_python is None:
        libraries = [name for name in libraries if name not in ELSEWHERE]
        section.notes.append(f"Skipped without --rivals-python: {', '.join(ELSEWHERE)}.")
    rates: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
    for _ in range(options.repeats):
        for cores in options.cores:
            for name in libraries:
                found = _rates(name, cores, options)
                rates[name, cores] += found
                log(f"{name}, {cores}: {max(found):,.0f} images/s")
    for cores in options.cores:
        for name in libraries[1:]:
            # The bare warp has one thread and no target: nothing can be faster on one core.
            if name == "opencv" and cores > 1:
                continue
            section.rows.append(
                Row(
                    f"{cores} core{'s' * (cores > 1)}",
                    rates["kindsight", cores],
                    "/s",
                    NAMES[name],
                    rates[name, cores],
                    None if name == "opencv" else Target("above", 1.0, "ratio"),
                )
            )
    return section


def _rates(name: str, cores: int, options: argparse.Namespace) -> list[float]:
    python = options.rivals_python if name in ELSEWHERE else Path(sys.executable)
    sizes = ["--cores", cores, "--images", options.images, "--epochs", options.epochs]
    settings = environment(TF_CPP_MIN_LOG_LEVEL="2", NO_ALBUMENTATIONS_UPDATE="1")
    command = script("augment_images.py", name, *sizes, python=python)
    found: list[float] = run(command, env=settings).result["rates"]
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the results."""
    options = parse(arguments)
    warn_if_busy()
    section = measure(options)
    print_sections([section], options)


if __name__ == "__main__":
    main()
