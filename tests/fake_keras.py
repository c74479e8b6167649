"""A stand-in for the process with Keras: it takes the answers from the LiteRT file.

Starting Keras takes seconds. Where a test is not about Keras, the check that the two written
networks agree may run on this; `offset` makes them disagree.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from kindsight.bundle import TFLITE_FILE
from kindsight.models.runtime import Interpreter


def use_fake_keras(patch):
    """Put the stand-in in Keras's place, and do not record its results in the shared cache."""
    patch.setattr("kindsight.training.frozen.settings.KerasProcess", FakeKeras)
    patch.setattr("kindsight.training.frozen.fitted.record_verified", lambda *_: None)


class FakeKeras:
    offset = 0.0
    ran_ahead = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def start(self):
        return self

    def load_ahead(self, model):
        assert Path(model).is_file() and Path(model).suffix == ".keras"
        self.start()

    def run_ahead(self, model, pixels):
        assert Path(model).is_file() and Path(model).suffix == ".keras" and pixels().ndim == 4
        self.start()

    def close_in_background(self):
        return None

    def build(self, *_, **__):
        raise AssertionError("the backbone must be built before")

    def run(self, model, pixels):
        assert Path(model).is_file() and Path(model).suffix == ".keras"
        beside = Path(model).with_name(TFLITE_FILE)
        # It is written while Keras, the real one, loads its own.
        end = time.monotonic() + 20
        while not beside.exists() and time.monotonic() < end:
            time.sleep(0.005)
        network = Interpreter(beside)
        logits = np.stack([network(image) for image in pixels])
        logits[:, 0] += self.offset
        return logits, logits
