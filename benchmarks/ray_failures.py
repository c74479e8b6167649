"""Kill a worker, or disconnect a node, during a measurement on Ray; compare the results.

    python benchmarks/ray_failures.py [--images 2000]

Images are measured as `kindsight check` does it, by two workers. Printed for each failure: whether
all results are bit-identical to those of this process, and how many images were measured more than
once. A node is a second raylet in a separate network namespace, which needs root and Linux's `ip`;
its link is taken down. Nothing else on the machine is changed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from generated_images import write_images
from kindsight.checks.measure import MeasuredImage, measure_image, unreadable
from kindsight.dataset import ImageDataset
from kindsight.dataset.reading.on_cluster import Cluster, process_on_cluster
from kindsight.errors import ImageError

# Of all clusters of this script alike, before Ray is imported; some have no token on this machine.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")

HERE, THERE = "10.99.7.1", "10.99.7.2"
"""Addresses of this machine and of the second node in the network between them."""

COST = 0.03
"""Seconds by which each image takes longer, so that much is left to do when a failure comes."""

# Ray then notices within some seconds that a node does not answer, in place of half a minute.
QUICK = {
    "RAY_health_check_initial_delay_ms": "1000", "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000", "RAY_health_check_failure_threshold": "3",
}  # fmt: skip


class CountingMeasurer:
    """Measures images in a worker, and appends the digest of each to a file of the process."""

    def __init__(self, log: Path, cost: float) -> None:
        self._file = log / f"{os.uname().nodename}-{os.getpid()}"
        self._cost = cost

    def read(self, digest: str, data: bytes) -> MeasuredImage:
        """Measure an image and record that."""
        with self._file.open("a") as file:
            file.write(f"{digest}\n")
        time.sleep(self._cost)
        return measure_image(data, digest)

    def failed(self, digest: str, error: ImageError) -> MeasuredImage:
        """Return the measurements of an unreadable image."""
        return unreadable(digest, b"", error)

    def collected(self) -> list[Any]:
        """Return nothing: there are only measurements."""
        return []


def measured(outcomes: Any) -> list[tuple[int, str, bytes, bytes]]:
    """Return (row, digest, numbers, small image) of each result."""
    return [
        (found.row, found.digest, found.new.numeric.tobytes(), found.new.small.tobytes())
        for found in outcomes
    ]


def run(
    on: str, dataset: ImageDataset, log: Path, fail: Callable[[], None], cost: float = 0.0
) -> dict[str, Any]:
    """Measure a dataset on a cluster, with a failure after a quarter; compare with this process."""
    log.mkdir()
    if __name__ != "__main__":  # as those of a script, its classes are sent to the workers by value
        from ray import cloudpickle

        cloudpickle.register_pickle_by_value(sys.modules[__name__])
    cluster = Cluster(on, lambda share: partial(CountingMeasurer, log, cost))
    rows, start, failed = [], time.monotonic(), False
    for outcome in process_on_cluster(cluster, dataset, range(len(dataset)), [], lambda row: None):
        rows.append(outcome)
        if not failed and len(rows) >= len(dataset) // 4:
            fail()
            failed = True
    seconds = time.monotonic() - start
    counts = Counter(line for file in log.iterdir() for line in file.read_text().splitlines())
    here = CountingMeasurer(log, 0.0)
    expected = []
    for row in range(len(dataset)):
        image = here.read(f"{row}", dataset.load(row))
        expected.append((row, image.numeric.tobytes(), image.small.tobytes()))
    found = [(row, numbers, small) for row, _, numbers, small in measured(rows)]
    return {
        "images": len(dataset), "equal": found == expected, "seconds": seconds,
        "processes": len(list(log.iterdir())) - 1,
        "measured again": sum(counts.values()) - len(counts),
    }  # fmt: skip


def processes_with(text: str) -> list[psutil.Process]:
    """Return the processes whose command line contains a text."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if text in " ".join(process.info["cmdline"] or ()) and process.pid != os.getpid():
            found.append(process)
    return found


def kill_worker(children_of: int) -> None:
    """Kill one process that computes tasks below a process, with SIGKILL."""
    for process in psutil.Process(children_of).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "TaskWorker" in " ".join(process.cmdline()):
                process.send_signal(signal.SIGKILL)
                return
    raise RuntimeError("there is no worker to kill")


@contextlib.contextmanager
def two_nodes() -> Iterator[tuple[str, Callable[[], None]]]:
    """Start a cluster of two one-core nodes; yield its address and what disconnects the second."""
    name = f"ks{os.getpid() % 100_000}"
    folder = tempfile.mkdtemp(prefix="ks", dir="/tmp")  # the path of a socket must be short
    port = 20_000 + os.getpid() % 10_000
    try:
        _ip(f"netns add {name}")
        _ip(f"link add {name}a type veth peer name {name}b")
        _ip(f"link set {name}b netns {name}")
        _ip(f"addr add {HERE}/24 dev {name}a")
        _ip(f"link set {name}a up")
        _ip(f"-n {name} addr add {THERE}/24 dev {name}b")
        _ip(f"-n {name} link set {name}b up")
        _ip(f"-n {name} link set lo up")
        common = ["--num-cpus=1", "--disable-usage-stats", "--object-store-memory=200000000"]
        _ray(
            ["start", "--head", f"--port={port}", f"--node-ip-address={HERE}",
             "--include-dashboard=false", f"--temp-dir={folder}", *common]
        )  # fmt: skip
        _ray(
            ["start", f"--address={HERE}:{port}", f"--node-ip-address={THERE}", *common],
            ["ip", "netns", "exec", name],
        )
        yield f"ray://{HERE}:{port}", lambda: _ip(f"link set {name}a down")
    finally:
        import ray

        ray.shutdown()
        for _ in range(3):  # what a dying process started
            for process in processes_with(folder) + processes_with(f"{HERE}:{port}"):
                with contextlib.suppress(psutil.Error):
                    process.kill()
            time.sleep(0.3)
        for command in (f"link del {name}a", f"netns del {name}"):
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip(command)
        shutil.rmtree(folder, ignore_errors=True)


def can_cut_nodes() -> bool:
    """Return whether this process may create network namespaces."""
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    name = f"kst{os.getpid()}"
    try:
        _ip(f"netns add {name}")
        _ip(f"link add {name[:13]}a type veth peer name {name[:13]}b")
        _ip(f"link del {name[:13]}a")
    except subprocess.CalledProcessError:
        return False
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip(f"netns del {name}")
    return True


def _ip(arguments: str) -> None:
    subprocess.run(["ip", *arguments.split()], check=True, capture_output=True)


def _ray(arguments: Sequence[str], before: Sequence[str] = ()) -> None:
    program = [sys.executable, "-c", "from ray.scripts.scripts import main; main()"]
    environment = {**os.environ, **QUICK, "RAY_USAGE_STATS_ENABLED": "0"}
    command = [*before, *program, *arguments]
    subprocess.run(command, check=True, capture_output=True, env=environment, timeout=180)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    count = parser.parse_args().images
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images("photographs", folder / "images", count)
        dataset = ImageDataset.from_folder(folder / "images")
        print("no failure:", run("ray", dataset, folder / "none", lambda: None), flush=True)
        print(
            "worker killed:",
            run("ray", dataset, folder / "worker", lambda: kill_worker(os.getpid()), COST),
            flush=True,
        )
        if not can_cut_nodes():
            print("node cut off: not possible here (needs root and network namespaces)")
            return
        with two_nodes() as (address, cut):
            print("node cut off:", run(address, dataset, folder / "node", cut, COST), flush=True)


if __name__ == "__main__":
    main()
