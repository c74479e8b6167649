"""Compare every export of a run with Keras and bare LiteRT on the same image files.

    python benchmarks/export.py RUN IMAGES
    python benchmarks/export.py RUN IMAGES --to litert,onnx --repeats 5 --json export.json

RUN is exported to a temporary folder first. Each repeat starts one process for each runtime, in
turns, which reads and resizes the files with kindsight and runs them: one after the other, then
all at once. `model.predict` is Keras with the bundle's file; bare LiteRT is its interpreter on one
thread, with the bundle's file. The cold start is a process that predicts one image.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from output import Row, Section, add_output_options, print_sections, warn_if_busy
from processes import environment, kindsight, run

FORMATS = (
    "litert", "litert-float16", "litert-dynamic", "litert-int8", "onnx", "openvino",
    "openvino-float16", "savedmodel",
)  # fmt: skip
KERAS, BARE = "model.predict", "bare LiteRT"

JOB = """
import json, statistics, sys, time
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from kindsight.bundle import load_bundle
from kindsight.images import read_image, resize_image
from kindsight.threads import count_cores, single_threaded_opencv

name, folder, bundle, count, *files = sys.argv[1:]
spec = load_bundle(bundle).spec

def read(file):
    return resize_image(read_image(file, target=spec.size), spec)

{opening}

def probabilities(file):
    return predict(read(file)[None])

found = {{"label": int(probabilities(files[0])[0].argmax())}}
if int(count):
    for file in files[:3]:
        probabilities(file)
    whole, network = [], []
    for file in files[:int(count)]:
        started = time.perf_counter()
        probabilities(file)
        whole.append(time.perf_counter() - started)
        pixels = read(file)[None]
        started = time.perf_counter()
        predict(pixels)
        network.append(time.perf_counter() - started)
    started = time.perf_counter()
    with single_threaded_opencv(), ThreadPoolExecutor(count_cores()) as pool:
        outputs = predict(np.stack(list(pool.map(read, files))))
    found["labels"] = outputs.argmax(1).tolist()
    found["images/s"] = len(files) / (time.perf_counter() - started)
    found["one"], found["network"] = statistics.median(whole), statistics.median(network)
print(json.dumps(found))
"""
OPENINGS = {
    "export": """
from pathlib import Path
from kindsight.export.targets import TARGETS
model = TARGETS[name].open(Path(folder))
def predict(pixels):
    return model.predict(pixels)[0]
""",
    KERAS: """
import keras
model = keras.models.load_model(bundle + "/model.keras", compile=False)
def predict(pixels):
    return model.predict(pixels.astype(np.float32), batch_size=32, verbose=0)[0]
""",
    BARE: """
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(bundle + "/model.tflite", num_threads=1)
interpreter.allocate_tensors()
first, last = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
def predict(pixels):
    rows = []
    for image in pixels:
        interpreter.set_tensor(first["index"], image[None].astype(np.float32))
        interpreter.invoke()
        rows.append(interpreter.get_tensor(last["index"])[0])
    return np.array(rows)
""",
}


def job(name: str, exports: Path, bundle: Path, count: int, files: Sequence[Path]) -> list[str]:
    """Return the command of a process: all times of one runtime, or one image for a count of 0."""
    code = JOB.format(opening=OPENINGS.get(name, OPENINGS["export"]))
    arguments = [name, exports / name, bundle, count, *files]
    return [sys.executable, "-c", code, *map(str, arguments)]


def measure(
    bundle: Path, files: Sequence[Path], formats: Sequence[str], repeats: int
) -> list[Section]:
    """Export, run all processes in turns, and return the tables."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    labels: dict[str, list[int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "exports")
        variables = {**environment(Path(folder) / "cache"), "KERAS_BACKEND": "tensorflow"}
        command = kindsight(
            "export", bundle, "--to", ",".join(formats), "--out", out, "--accept", "--quiet"
        )
        run(command, env=variables)
        for _ in range(repeats):
            for name in (KERAS, BARE, *formats):
                done = run(job(name, out, bundle, min(50, len(files)), files), env=variables)
                result = json.loads(done.output.splitlines()[-1])
                labels[name] = result["labels"]
                for figure in ("one", "network", "images/s"):
                    found[name][figure].append(result[figure])
                done = run(job(name, out, bundle, 0, files[:1]), env=variables)
                found[name]["cold"].append(done.seconds)
    return [*tables(found, formats), agreement(labels, formats)]


def tables(found: dict[str, dict[str, list[float]]], formats: Sequence[str]) -> list[Section]:
    """Return a table for each figure: every format compared with Keras and with bare LiteRT."""
    sections = []
    for title, figure, unit, rival in (
        ("One image, from the file to probabilities", "one", "ms", KERAS),
        ("One image, the network alone", "network", "ms", BARE),
        ("All images, from files, all cores", "images/s", "/s", KERAS),
        ("Cold start: one image in a new process", "cold", "s", KERAS),
    ):
        rows = [
            Row(name, found[name][figure], unit, rival, found[rival][figure])
            for name in (*formats, *({KERAS, BARE} - {rival}))
        ]
        sections.append(Section(title, rows))
    return sections


def agreement(labels: dict[str, list[int]], formats: Sequence[str]) -> Section:
    """Return the fraction of images whose label is Keras's."""
    ours = labels[KERAS]

    def fraction(name: str) -> float:
        return sum(a == b for a, b in zip(labels[name], ours, strict=True)) / len(ours)

    rows = [Row(name, [fraction(name)], "%", KERAS, [1.0]) for name in formats]
    return Section("Images with the same label", rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder or bundle")
    parser.add_argument("images", type=Path, metavar="IMAGES", help="folder with image files")
    parser.add_argument("--to", default=",".join(FORMATS), metavar="FORMAT[,FORMAT]")
    parser.add_argument("--limit", type=int, default=200, metavar="N", help="most images")
    parser.add_argument("--repeats", type=int, default=3, metavar="N")
    add_output_options(parser)
    options = parser.parse_args(arguments)
    warn_if_busy()
    endings = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
    files = sorted(path for path in options.images.rglob("*") if path.suffix.lower() in endings)
    if not files:
        raise SystemExit(f"{options.images} has no image files.")
    step = max(1, len(files) // options.limit)
    formats = [name for name in options.to.split(",") if name]
    chosen = [path.resolve() for path in files[::step][: options.limit]]
    print_sections(measure(options.run.resolve(), chosen, formats, options.repeats), options)


if __name__ == "__main__":
    main()
