"""Compare the cold start of the light runtime with bare LiteRT: one image in a new process.

    python benchmarks/predict.py RUN IMAGE
    python benchmarks/predict.py RUN IMAGE --repeats 15 --json predict.json

Each repeat starts one process of each kind in turns: bare LiteRT (Pillow reads and resizes the
image, LiteRT runs the network, NumPy computes the softmax), kindsight.Predictor, and the command
`kindsight predict`. Imports alone are measured in the same way. The label must be the same in all;
the probabilities differ because Pillow resizes differently.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from output import Row, Section, add_output_options, at_most, print_sections, warn_if_busy
from processes import CompletedRun, environment, kindsight, run

BARE = """
import json, sys
import numpy as np
from PIL import Image
from ai_edge_litert.interpreter import Interpreter
folder, file = sys.argv[1:]
facts = json.load(open(folder + "/bundle.json"))
size = facts["input"]["width"], facts["input"]["height"]
interpreter = Interpreter(folder + "/model.tflite", num_threads=1)
interpreter.allocate_tensors()
pixels = np.asarray(Image.open(file).convert("RGB").resize(size), np.float32)
interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pixels[None])
interpreter.invoke()
logits = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]
powers = np.exp((logits - logits.max()) / facts["temperature"])
print(facts["classes"][(powers / powers.sum()).argmax()])
"""
PREDICTOR = """
import sys
from kindsight import Predictor
(found,) = Predictor(sys.argv[1]).predict([sys.argv[2]])
print(found.best)
"""
IMPORTS = {
    "bare": "import numpy, PIL.Image, ai_edge_litert.interpreter",
    "predictor": "import kindsight.predictor, ai_edge_litert.interpreter",
}


def python(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", code, *map(str, arguments)]


def best(done: CompletedRun) -> str:
    """Return the most probable class that a process printed."""
    text = done.output.strip()
    return str(json.loads(text)["best"]) if text.startswith("{") else text


def measure(folder: Path, image: Path, repeats: int) -> Section:
    """Return the times and the peak memory of whole processes."""
    commands = {
        "bare": python(BARE, folder, image),
        "predictor": python(PREDICTOR, folder, image),
        "command": kindsight("predict", folder, image, "--format", "jsonl", "--quiet"),
    }
    seconds, megabytes, labels = defaultdict(list), defaultdict(list), set()
    with tempfile.TemporaryDirectory() as cache:
        variables = environment(Path(cache) / "none")
        for _ in range(repeats):
            for name, command in commands.items():
                done = run(command, env=variables)
                seconds[name].append(done.seconds)
                megabytes[name].append(done.megabytes)
                labels.add(best(done))
            for name, code in IMPORTS.items():
                seconds[f"import {name}"].append(run(python(code), env=variables).seconds)
    if len(labels) != 1:
        raise SystemExit(f"The processes disagree on the label: {', '.join(sorted(labels))}.")

    def row(what: str, name: str, floor: str, limit: float | None = None) -> Row:
        target = None if limit is None else at_most(limit, "ratio")
        return Row(what, seconds[name], "s", "bare LiteRT", seconds[floor], target)

    return Section(
        "Cold start: one image in a new process",
        [
            row("kindsight.Predictor", "predictor", "bare", 2),
            row("kindsight predict", "command", "bare", 3),
            row("imports alone", "import predictor", "import bare"),
            Row("memory of Predictor", megabytes["predictor"], "MB", "bare LiteRT",
                megabytes["bare"], at_most(2, "ratio")),
            Row("memory of the command", megabytes["command"], "MB", "bare LiteRT",
                megabytes["bare"]),
        ],
        ["Bare LiteRT does not apply EXIF orientation, does not check the file for damage, and "
         "resizes by Pillow's rules."],
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder or bundle")
    parser.add_argument("image", type=Path, metavar="IMAGE", help="an image file")
    parser.add_argument("--repeats", type=int, default=9, metavar="N")
    add_output_options(parser)
    options = parser.parse_args(arguments)
    warn_if_busy()
    print_sections([measure(options.run, options.image, options.repeats)], options)


if __name__ == "__main__":
    main()
