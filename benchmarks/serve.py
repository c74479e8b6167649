"""Compare `kindsight serve` with bare LiteRT without HTTP, and FastAPI with `model.predict`.

    python benchmarks/serve.py RUN IMAGES
    python benchmarks/serve.py RUN IMAGES --clients 1,8,64 --seconds 10 --repeats 3

All sides get the same JPEG files, and every response of kindsight is compared with that of
`kindsight predict`. Bare LiteRT reads and resizes them with kindsight, in batches as kindsight
does, and runs its interpreters on all cores, in one process. The servers get one image in each
request, from a load generator in a separate process: every client sends its next request when it
has the response to the last one.

The load generator runs on the same cores as the server; bare LiteRT has the cores to itself. There
are therefore two ratios: by the clock, the load generator's time counts against the server; by
processor time, only the server's own seconds count (user and system, all of its processes), as if
the clients were on another machine. The last table has the load generator's time and its ceiling:
the requests per second that it sends to a server that reads them and does nothing else.
"""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from output import Row, Section, add_output_options, at_least, log, print_sections, warn_if_busy
from processes import environment, kindsight, run, script

OURS, BARE = "kindsight serve", "bare LiteRT, no HTTP"
RAW = "kindsight serve, raw bodies"
PLAIN = {"async": "FastAPI, async def", "def": "FastAPI, def"}
CEILING = "a server that only reads"

BARE_CODE = """
import json, os, sys, threading, time
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from kindsight.bundle import load_bundle
from kindsight.images import read_image, resize_image
from kindsight.threads import count_cores, single_threaded_opencv

folder, warm, seconds, *files = sys.argv[1:]
spec = load_bundle(folder).spec
images = [open(file, "rb").read() for file in files]
start = time.perf_counter() + 0.5
counted, end = start + float(warm), start + float(warm) + float(seconds)
done = []

def work(number):
    interpreter = Interpreter(folder + "/model.tflite", num_threads=1)
    interpreter.allocate_tensors()
    first = interpreter.get_input_details()[0]["index"]
    last = interpreter.get_output_details()[0]["index"]
    place, count = number * 8, 0
    while time.perf_counter() < end:
        batch = [images[(place + k) % len(images)] for k in range(8)]
        place += 8
        for pixels in [resize_image(read_image(data, target=spec.size), spec) for data in batch]:
            interpreter.set_tensor(first, pixels[None].astype(np.float32))
            interpreter.invoke()
            interpreter.get_tensor(last)
            count += counted <= time.perf_counter() <= end
        all_images[number] += len(batch)
    done.append(count)

cores = count_cores()
all_images = [0] * cores
before = time.process_time()
with single_threaded_opencv():
    threads = [threading.Thread(target=work, args=(number,)) for number in range(cores)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
cpu = time.process_time() - before
print(json.dumps({"images/s": sum(done) / float(seconds), "seconds": cpu / sum(all_images)}))
"""
READER_CODE = """
import asyncio, re, sys

class Reader(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.left, self.head = transport, 0, b""
    def data_received(self, data):
        if not self.left:
            self.head += data
            end = self.head.find(b"\\r\\n\\r\\n")
            if end < 0:
                return
            self.left = int(re.search(rb"(?i)content-length: *(\\d+)", self.head)[1])
            data, self.head = self.head[end + 4:], b""
        self.left -= len(data)
        if not self.left:
            head = b"HTTP/1.1 200 OK\\r\\nContent-Length: 400\\r\\n\\r\\n"
            self.transport.write(head + b"." * 400)

async def main():
    server = await asyncio.get_running_loop().create_server(Reader, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()
asyncio.run(main())
"""


@dataclass(frozen=True)
class Server:
    """A server to measure.

    Parameters
    ----------
    path : str
        The path that takes an image.
    ready : str
        A path that responds once the server can predict; "" if it accepts connections only then.
    form : str
        ``"raw"``, or the name of the field of a multipart form.
    command : list of str
        With ``{port}`` in place of the port.
    """

    path: str
    ready: str
    form: str
    command: list[str]


def servers(bundle: Path) -> dict[str, Server]:
    """Return the servers by name."""
    ours = [*kindsight("serve", bundle, "--port", "{port}")]
    found = {
        OURS: Server("/v1/predict", "/readyz", "images", ours),
        RAW: Server("/v1/predict", "/readyz", "raw", ours),
        CEILING: Server("/", "", "images", [sys.executable, "-c", READER_CODE, "{port}"]),
    }
    for kind, name in PLAIN.items():
        command = script("rivals/fastapi_predict.py", bundle / "model.keras", "{port}", kind)
        found[name] = Server("/predict", "/openapi.json", "file", command)
    return found


@contextmanager
def running(server: Server, variables: dict[str, str]) -> Iterator[tuple[int, Any]]:
    """Start a server for the block; yield its port and its process, as psutil sees it."""
    import psutil

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [part.format(port=port) if part == "{port}" else part for part in server.command]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=errors)
        try:
            wait_until_ready(server, port, process, errors)
            yield port, psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(30)


def wait_until_ready(
    server: Server, port: int, process: subprocess.Popen[bytes], errors: Any
) -> None:
    """Wait until the server responds, for at most 120 s."""
    for _ in range(1200):
        if process.poll() is not None:
            errors.seek(0)
            raise SystemExit(f"{' '.join(server.command)} ended: {errors.read().decode()[-2000:]}")
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.connect()
            if server.ready:
                connection.request("GET", server.ready)
                if connection.getresponse().status != 200:
                    raise ConnectionError
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"{' '.join(server.command)} was not ready within 120 s.")


def processor_seconds(process: Any) -> float:
    """Return the processor time of a process and its children so far."""
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return sum(time.user + time.system for time in times)


def measure_server(
    server: Server, files: Sequence[Path], clients: Sequence[int], options: argparse.Namespace
) -> dict[int, dict[str, Any]]:
    """Return the load generator's figures for each number of clients."""
    variables = environment(**options.environment)
    found = {}
    with running(server, variables) as (port, process):
        for count in clients:
            before = processor_seconds(process)
            generator = script(
                "load_generator.py", f"http://127.0.0.1:{port}{server.path}", *files,
                "--form", server.form, "--clients", count,
                "--warm", options.warm, "--seconds", options.seconds,
            )  # fmt: skip
            result = run(generator, env=variables).result
            used = processor_seconds(process) - before
            found[count] = {**result, "seconds": used / max(1, result["sent"])}
    return found


def check_answers(name: str, found: dict[str, Any], expected: Sequence[dict[str, float]]) -> None:
    """End the program if a request failed, or a response differs from `kindsight predict`."""
    if found["failures"]:
        raise SystemExit(f"{name}: requests failed: {found['failures']}")
    if name not in {OURS, RAW}:
        return
    for bodies, probabilities in zip(found["answers"], expected, strict=True):
        for body in bodies:
            (prediction,) = json.loads(body)["predictions"]
            if prediction["probabilities"] != probabilities:
                raise SystemExit(
                    f"{name} answered {prediction['probabilities']} in place of {probabilities}."
                )


def expected_answers(bundle: Path, files: Sequence[Path]) -> list[dict[str, float]]:
    """Return the probabilities of every file, from `kindsight predict`."""
    command = kindsight("predict", bundle, *files, "--json", "--quiet")
    lines = run(command).output.splitlines()
    return [json.loads(line)["probabilities"] for line in lines]


def measure(bundle: Path, files: Sequence[Path], options: argparse.Namespace) -> list[Section]:
    """Run all sides in turns, and return the tables."""
    expected = expected_answers(bundle, files)
    most = max(options.clients)
    bare: dict[str, list[float]] = defaultdict(list)
    found: dict[tuple[str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for repeat in range(options.repeats):
        for name in (BARE, *servers(bundle)):
            log(f"repeat {repeat + 1} of {options.repeats}: {name}")
            if name == BARE:
                arguments = [bundle, options.warm, options.seconds, *files]
                command = [sys.executable, "-c", BARE_CODE, *map(str, arguments)]
                for figure, value in run(command, env=environment()).result.items():
                    bare[figure].append(value)
                continue
            clients = [most] if name in {RAW, CEILING} else options.clients
            results = measure_server(servers(bundle)[name], files, clients, options)
            for count, result in results.items():
                check_answers(name, result, expected)
                for figure in ("requests/s", "seconds", "p50", "p99", "client seconds"):
                    found[name, count][figure].append(result[figure])
    return tables(bare, found, options.clients)


def tables(
    bare: dict[str, list[float]],
    found: dict[tuple[str, int], dict[str, list[float]]],
    clients: Sequence[int],
) -> list[Section]:
    """Return the tables: throughput, latencies, and what the load generator takes."""
    most, target, times = max(clients), at_least(0.85, "ratio"), at_least(8.0, "ratio")

    def per_second(seconds: Sequence[float]) -> list[float]:
        return [1 / each for each in seconds]

    def rate(name: str, count: int) -> list[float]:
        return found[name, count]["requests/s"]

    throughput = Section(f"Images per second, {most} clients", [
        Row("by the clock", rate(OURS, most), "/s", BARE, bare["images/s"], target),
        Row("by the clock, raw bodies", rate(RAW, most), "/s", BARE, bare["images/s"]),
        Row(
            "by processor time of the server", per_second(found[OURS, most]["seconds"]), "/s",
            BARE, per_second(bare["seconds"]), target,
        ),
        Row(
            "by processor time, raw bodies", per_second(found[RAW, most]["seconds"]), "/s",
            BARE, per_second(bare["seconds"]),
        ),
        *(
            Row("by the clock", rate(OURS, most), "/s", name, rate(name, most), times)
            for name in PLAIN.values()
        ),
    ])  # fmt: skip
    throughput.notes.append("Every answer of kindsight equals that of `kindsight predict`.")
    latencies = Section("Seconds from request to answer, each client with one request at a time")
    for count in clients:
        for figure in ("p50", "p99"):
            for name in PLAIN.values():
                ours, theirs = found[OURS, count][figure], found[name, count][figure]
                what = f"{count} client{'s' * (count > 1)}, {figure}"
                latencies.rows.append(Row(what, ours, "ms", name, theirs))
    generator = Section(f"The load generator, {most} clients", [
        Row("requests per second", rate(OURS, most), "/s", CEILING, rate(CEILING, most)),
        Row(
            "its processor time per request", found[OURS, most]["client seconds"], "ms",
            CEILING, found[CEILING, most]["client seconds"],
        ),
        Row(
            "the server's processor time per request", found[OURS, most]["seconds"], "ms",
            CEILING, found[CEILING, most]["seconds"],
        ),
    ])  # fmt: skip
    return [throughput, latencies, generator]


def numbers(text: str) -> list[int]:
    """Return whole numbers of at least 1 from ``"1,8,64"``."""
    found = [int(part) for part in text.split(",")]
    if min(found) < 1:
        raise ValueError("at least 1")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("images", type=Path, metavar="IMAGES", help="folder with JPEG files")
    parser.add_argument("--clients", type=numbers, default=[1, 8, 64], metavar="N[,N]")
    parser.add_argument("--limit", type=int, default=200, metavar="N", help="most images")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--warm", type=float, default=2.0, help="seconds before each measurement")
    parser.add_argument("--repeats", type=int, default=3, metavar="N")
    add_output_options(parser)
    options = parser.parse_args(arguments)
    warn_if_busy()
    files = sorted(
        path for path in options.images.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"}
    )
    if not files:
        raise SystemExit(f"{options.images} has no JPEG files.")
    step = max(1, len(files) // options.limit)
    chosen = [path.resolve() for path in files[::step][: options.limit]]
    options.environment = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2"}
    print_sections(measure(options.run.resolve(), chosen, options), options)


if __name__ == "__main__":
    main()
