"""Run by test_dropin_fit.py: fits a small model with Keras's generator and ours, prints JSON."""

from __future__ import annotations

import json
import os
import sys
import warnings

import numpy as np

from kindsight.preprocessing.image import ImageDataGenerator, Iterator, KerasTrapWarning

import keras  # isort: skip  (after ours, as in a notebook)

warnings.simplefilter("ignore", KerasTrapWarning)
COURSE = {
    "rotation_range": 40,
    "width_shift_range": 0.2,
    "height_shift_range": 0.2,
    "shear_range": 0.2,
    "zoom_range": 0.2,
    "horizontal_flip": True,
    "rescale": 1 / 255,
}


def compare(folder: str) -> dict:
    from keras.src.legacy.preprocessing.image import ImageDataGenerator as Keras

    result = {
        "backend": keras.backend.backend(),
        "tensorflow imported": "tensorflow" in sys.modules,
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS"),
    }
    for name, kind in (("keras", Keras), ("ours", ImageDataGenerator)):
        keras.utils.set_random_seed(1)
        model = keras.Sequential(
            [
                keras.Input((12, 12, 3)),
                keras.layers.Conv2D(4, 3, activation="relu"),
                keras.layers.GlobalAveragePooling2D(),
                keras.layers.Dense(1, activation="sigmoid"),
            ]
        )
        model.compile("sgd", "binary_crossentropy")
        options = {"target_size": (12, 12), "batch_size": 5, "class_mode": "binary", "seed": 3}
        train = kind(**COURSE).flow_from_directory(folder, **options)
        test = kind(rescale=1 / 255).flow_from_directory(folder, **options)
        history = model.fit(train, validation_data=test, epochs=3, verbose=0)
        result[name] = [
            [history.history[key][epoch] for key in ("loss", "val_loss")] for epoch in range(3)
        ]
    result["predictions"] = len(model.predict(test, verbose=0))
    return result


class Numbers(Iterator):
    """Labels of a batch are powers of 2 of the image indices."""

    def _get_batches_of_transformed_samples(self, index_array: np.ndarray) -> tuple:
        ones = np.ones((len(index_array), 1), np.float32)
        return ones, (2.0**index_array)[:, None].astype(np.float32)


class Adding(keras.Model):
    """A model without trainable weights that sums the labels."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = keras.layers.Dense(1, trainable=False)
        self.seen = keras.metrics.Sum(name="seen")

    def call(self, x):
        return self.inner(x)

    def compute_loss(self, x=None, y=None, y_pred=None, *_, **__):
        self.seen.update_state(y)
        return keras.ops.mean(y_pred) * 0

    @property
    def metrics(self):
        return [self.seen]


def workers(folder: str) -> dict:
    result = {}
    for name, processes in (("threads", False), ("processes", True)):
        adding = Adding()
        adding.compile("sgd")
        numbers = Numbers(16, 3, True, None, workers=2, use_multiprocessing=processes)
        history = adding.fit(numbers, epochs=2, verbose=0)
        result[name] = {"epochs": len(history.epoch), "sums": history.history["seen"]}
        flow = ImageDataGenerator(**COURSE).flow_from_directory(
            folder, (12, 12), batch_size=3, class_mode="sparse"
        )
        flow.workers, flow.use_multiprocessing = 2, processes
        small = keras.Sequential([keras.Input((12, 12, 3)), keras.layers.Flatten()])
        small.add(keras.layers.Dense(2, activation="softmax"))
        small.compile("sgd", "sparse_categorical_crossentropy")
        assert len(small.fit(flow, epochs=2, verbose=0).epoch) == 2
    return result


if __name__ == "__main__":
    found = compare(sys.argv[1])
    if found["backend"] == "tensorflow":
        found |= workers(sys.argv[1])
    print(json.dumps(found))
