"""Compare the feature pass of a training on Ray with the local one, on this machine.

    python benchmarks/ray_throughput.py --images 1000 5000 12000
    python benchmarks/ray_throughput.py --images --workers 1 2 4 --curve 3000

Each number of images is run with a new cache, first locally, then with a Ray cluster of this
machine's cores, whose start and end are in its time. Printed is the throughput of both, their
ratio, the ratio without the seconds until Ray's first result, and whether the rows are equal. With
``--workers``, `--curve` images run on clusters with these numbers of workers; their images per
second are counted from the first result. Images are photographs of 800 x 600 pixels.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from generated_images import write_images
from kindsight.dataset import ImageDataset
from kindsight.distributed import reuse_executors
from kindsight.training.frozen.features import compute_all_features
from kindsight.training.frozen.settings import FrozenTrainer
from processes import log

RATIO = 0.9
"""Minimum throughput on Ray relative to the local one, from a size on that is printed."""


def run(
    on: str, dataset: ImageDataset, cache: Path, built: Path
) -> tuple[float, float, float, str]:
    """Return seconds (all, until the first result, of this process), and a digest of the rows."""
    shutil.copytree(built, cache)
    trainer = FrozenTrainer(cache=str(cache), on=on)
    files, first, start = trainer.backbone(), [], time.perf_counter()
    before = time.process_time()

    def progress(stage: str, done: int, total: int) -> None:
        if done and not first:
            first.append(time.perf_counter() - start)

    with reuse_executors():
        found = compute_all_features(trainer, dataset, files, progress)
        if found.computed != len(dataset):
            raise SystemExit(f"{found.computed} of {len(dataset)} images were computed.")
    seconds, own = time.perf_counter() - start, time.process_time() - before
    rows = hashlib.sha256()
    with sqlite3.connect(found.table) as connection:
        for row in connection.execute("SELECT * FROM images ORDER BY digest"):
            rows.update(repr(row).encode())
    shutil.rmtree(cache)
    return seconds, first[0], own, rows.hexdigest()


def make_dataset(folder: Path, count: int) -> ImageDataset:
    """Return a dataset of new photographs."""
    write_images("photographs", folder, count)
    time.sleep(3.0)  # until the files' times are settled
    return ImageDataset.from_folder(folder)


def compare(counts: Sequence[int], folder: Path) -> None:
    """Run each number of images locally and on Ray."""
    reached = None
    for count in counts:
        dataset = make_dataset(folder / f"{count}", count)
        local, _, _, rows = run("local", dataset, folder / "local", folder / "built")
        ray, first, own, ray_rows = run("ray", dataset, folder / "ray", folder / "built")
        print(
            f"{count:,} images: local {count / local:.1f}/s, ray {count / ray:.1f}/s, ratio "
            f"{local / ray:.2f}; first result after {first:.1f} s, without it "
            f"{local / max(ray - first, 1e-9):.2f}; {1000 * own / count:.2f} ms of this process "
            f"for each image; rows equal: {rows == ray_rows}",
            flush=True,
        )
        reached = reached or (count if local / ray >= RATIO else None)
        shutil.rmtree(folder / f"{count}")
    sizes = f"from {reached:,} images on" if reached else "at none of these sizes: NOT MET"
    print(f"Ratio of at least {RATIO}: {sizes}")


def curve(workers: Sequence[int], count: int, folder: Path) -> None:
    """Run the same images on clusters with several numbers of workers."""
    import ray

    # As kindsight sets it where it starts a cluster; the name is Ray's.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
    dataset, before = make_dataset(folder / "curve", count), None
    for number in workers:
        log(f"{number} workers")
        ray.init(address="local", num_cpus=number, include_dashboard=False, log_to_driver=False)
        try:
            seconds, first, own, rows = run("ray", dataset, folder / "ray", folder / "built")
        finally:
            ray.shutdown()
        before = before or rows
        print(
            f"{number} workers: {count / (seconds - first):.1f} images/s after the first result, "
            f"{first:.1f} s until then; {1000 * own / count:.2f} ms of this process for each "
            f"image; rows equal: {rows == before}",
            flush=True,
        )


def main() -> None:
    """Read the command line and run the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="*", default=[1000, 5000, 12_000], metavar="N")
    parser.add_argument("--workers", type=int, nargs="*", default=[], metavar="N")
    parser.add_argument("--curve", type=int, default=3000, metavar="N", help="images of --workers")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        FrozenTrainer(cache=str(folder / "built")).backbone()  # once, before time is taken
        if options.images:
            compare(options.images, folder)
        if options.workers:
            curve(options.workers, options.curve, folder)


if __name__ == "__main__":
    main()
