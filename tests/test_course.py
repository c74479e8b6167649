"""The errors in the table of outdated code are those of the installed Keras."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs" / "course.md"

# Defines the names that the table's code uses, runs the code and prints the messages.
PROGRAM = """
import json, logging, logging.handlers, os, queue, sys, tempfile, warnings
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
import tensorflow as tf
import keras
from keras.callbacks import ModelCheckpoint
from keras.layers import Conv2D, Dense, Flatten
from keras.optimizers import RMSprop

os.chdir(tempfile.mkdtemp())
x, y = np.zeros((4, 6, 6, 3), np.float32), np.array([0, 1, 0, 1])


class Generator(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return x[:2], y[:2]

    def __next__(self):
        return self[0]


generator = Generator()
layer = Flatten()
model = keras.Sequential([keras.Input((6, 6, 3)), layer, Dense(1, activation="sigmoid")])
model.compile(loss="binary_crossentropy", optimizer=RMSprop(), metrics=["accuracy"])
constant = keras.callbacks.LearningRateScheduler(lambda epoch: 1e-3)
history = model.fit(generator, validation_data=generator, verbose=0, callbacks=[constant])
logs = {name: values[-1] for name, values in history.history.items()}
outputs = layer.output


class EarlyStopping(keras.callbacks.EarlyStopping):
    # The metric is checked when training starts.
    def __init__(self, **arguments):
        super().__init__(**arguments)
        model.fit(generator, validation_data=generator, verbose=0, callbacks=[self])


logged = queue.Queue()
logging.getLogger("absl").addHandler(logging.handlers.QueueHandler(logged))


def message(code):
    names = dict(globals())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            exec(code, names)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    messages = [str(one.message) for one in caught]
    while not logged.empty():
        messages.append(logged.get().getMessage())
    return "\\n".join(messages)


stdout, sys.stdout = sys.stdout, sys.stderr
print(json.dumps([message(code) for code in json.loads(sys.argv[1])]), file=stdout)
"""


def table() -> list[tuple[str, str, str]]:
    """Return the rows: old code, error or warning, new code."""
    rows = re.findall(r"^\| (.+) \| (.+) \| (.+) \|$", PAGE.read_text("utf-8"), re.M)
    return [row for row in rows if row[0].startswith("`")]


def code(cell: str) -> list[str]:
    """Return the texts between backticks."""
    return [double or single for double, single in re.findall(r"``(.+?)``|`([^`]+)`", cell)]


def run(sources: list[str]) -> list[str]:
    """Return what each code raises or warns of; ``""`` for nothing."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(sources)],
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    messages: list[str] = json.loads(done.stdout.splitlines()[-1])
    return messages


@pytest.mark.slow
def test_code_that_replaces_outdated_code_runs() -> None:
    # What stands first, if it is a whole statement rather than an argument or a name.
    sources = [code(row[2])[0] for row in table() if code(row[2])]
    sources = [text for text in sources if text.startswith("from ") or text.endswith(")")]
    assert len(sources) >= 25
    errors = re.compile(r"^\w+(Error|Exception): ")
    failed = {
        text: message
        for text, message in zip(sources, run(sources), strict=True)
        if errors.match(message)
    }
    assert failed == {}


@pytest.mark.slow
def test_outdated_code_gives_the_errors_of_the_table() -> None:
    rows = table()
    old = [code(row[0])[0] for row in rows]
    assert len(old) >= 45
    messages = run(old)
    for (cell, happens, _), message in zip(rows, messages, strict=True):
        if happens.startswith("no error:"):
            assert message == "", cell
        else:
            assert code(happens)[-1].strip() in message, cell
