"""Time the unavoidable work of training and prediction: reading images and running the network.

Each runs alone on all cores in two variants, the faster of which is reported. Prints the seconds as
one line of JSON, without the start of Python and the import of libraries.
"""

from __future__ import annotations

import argparse
import json
import queue
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kindsight.images import InputSpec, read_image, resize_image
from kindsight.models.runtime import make_interpreter
from kindsight.threads import count_cores


def read_ours(file: str, spec: InputSpec) -> Any:
    """Read and resize as kindsight does."""
    data = Path(file).read_bytes()
    return resize_image(read_image(data, target=spec.size), spec)


def read_opencv(file: str, spec: InputSpec) -> Any:
    """Read and resize with OpenCV alone: no orientation, no cropping, no checks."""
    image = cv2.imread(file, cv2.IMREAD_COLOR_RGB)
    return cv2.resize(image, (spec.width, spec.height), interpolation=cv2.INTER_AREA)


def time_reading(
    files: Sequence[str], spec: InputSpec, reader: Callable[[str, InputSpec], Any], cores: int
) -> tuple[list[Any], float]:
    """Read all files on `cores` threads; return the images and the seconds."""
    start = time.perf_counter()
    with ThreadPoolExecutor(cores) as pool:
        images = list(pool.map(lambda file: reader(file, spec), files))
    return images, time.perf_counter() - start


def time_network(images: Sequence[Any], model: Path, interpreters: int, threads: int) -> float:
    """Run all images through parallel interpreters of `threads` threads; return the seconds."""
    free: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for _ in range(interpreters):
        interpreter = make_interpreter(model, threads)
        # The first run is slower: it allocates memory and packs the weights.
        _forward(interpreter, images[0])
        free.put(interpreter)

    def predict(image: Any) -> Any:
        interpreter = free.get()
        try:
            return _forward(interpreter, image)
        finally:
            free.put(interpreter)

    start = time.perf_counter()
    with ThreadPoolExecutor(interpreters) as pool:
        for _ in pool.map(predict, images):
            pass
    return time.perf_counter() - start


def _forward(interpreter: Any, image: Any) -> Any:
    interpreter.set_tensor(
        interpreter.get_input_details()[0]["index"], image[None].astype(np.float32)
    )
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def main() -> None:
    """Measure and print the seconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", type=Path, help="file with the paths of images, one per line")
    parser.add_argument("model", type=Path, help="LiteRT file that takes pixels")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--fit", default="crop", help="crop, stretch or pad")
    options = parser.parse_args()
    files = options.names.read_text(encoding="utf-8").split("\n")[:-1]
    spec = InputSpec(options.size, options.size, fit=options.fit)
    cores = count_cores()
    cv2.setNumThreads(1)  # OpenCV's own threads would compete with the pool
    read_ours(files[0], spec)
    _, opencv = time_reading(files, spec, read_opencv, cores)
    images, ours = time_reading(files, spec, read_ours, cores)
    many = time_network(images, options.model, cores, 1)
    one = time_network(images, options.model, 1, cores)
    seconds = {
        "images": len(files),
        "cores": cores,
        "read_kindsight": ours,
        "read_opencv": opencv,
        "network_many_interpreters": many,
        "network_all_threads": one,
        "read": min(ours, opencv),
        "network": min(many, one),
        "floor": min(ours, opencv) + min(many, one),
    }
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
