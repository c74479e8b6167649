"""A fake Keras worker process that takes its logits from the LiteRT file.

Starting Keras takes seconds. Tests that are not about Keras check the parity of the two written
networks with this; `offset` makes the networks disagree.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from kindsight.bundle import TFLITE_FILE
from kindsight.models.runtime import Interpreter


def use_fake_keras(patch):
    """Replace Keras by the fake, and do not record its results in the shared cache."""
    patch.setattr("kindsight.training.frozen.settings.KerasProcess", FakeKeras)
    patch.setattr("kindsight.training.frozen.fitted.record_verified", lambda *_: None)


class FakeKeras:
    offset = 0.0
    notes = ()

    def __init__(self, **_):
        """Take the settings of a worker process."""

    def wants_gpu(self, images):
        return False

    def device_notes(self):
        return []

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
        raise AssertionError("a test with the fake must not build a backbone")

    def run(self, model, pixels):
        assert Path(model).is_file() and Path(model).suffix == ".keras"
        tflite = Path(model).with_name(TFLITE_FILE)
        # It is written while the real Keras would load the model.
        end = time.monotonic() + 20
        while not tflite.exists() and time.monotonic() < end:
            time.sleep(0.005)
        network = Interpreter(tflite)
        logits, scores = zip(*(network.run(image) for image in pixels), strict=True)
        logits = np.stack(logits)
        logits[:, 0] += self.offset
        return logits, logits, np.array(scores)[:, 0] if network.second_width else None
