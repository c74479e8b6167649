"""Run by test_dropin_fit.py: fits small models on flows and prints what happened, as JSON.

``fit_once.py FOLDER compare`` fits the same model on Keras's flows and on ours;
``fit_once.py FOLDER workers`` fits one with worker threads and worker processes.
"""

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

    told = {
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
        told[name] = [
            [history.history[key][epoch] for key in ("loss", "val_loss")] for epoch in range(3)
        ]
    told["predictions"] = len(model.predict(test, verbose=0))
    return told


class Numbers(Iterator):
    """Batches that say which pictures they are made of; on top of our base class."""

    def _get_batches_of_transformed_samples(self, index_array: np.ndarray) -> tuple:
        ones = np.ones((len(index_array), 1), np.float32)
        return ones, (2.0**index_array)[:, None].astype(np.float32)


def workers(folder: str) -> dict:
    told: dict = {"sum": float(2**16 - 1)}
    for name, processes in (("threads", False), ("processes", True)):
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, trainable=False)])
        seen = keras.metrics.Sum(name="seen")

        class Adding(keras.Model):
            def __init__(self, inner: keras.Model, metric: keras.metrics.Metric) -> None:
                super().__init__()
                self.inner, self.metric_ = inner, metric

            def call(self, x):
                return self.inner(x)

            def compute_loss(self, x=None, y=None, y_pred=None, *_, **__):
                self.metric_.update_state(y)
                return keras.ops.mean(y_pred) * 0

            @property
            def metrics(self):
                return [self.metric_]

        adding = Adding(model, seen)
        adding.compile("sgd")
        iterator = Numbers(16, 3, True, None, workers=2, use_multiprocessing=processes)
        history = adding.fit(iterator, epochs=2, verbose=0)
        told[name] = {"epochs": len(history.epoch), "sums": history.history["seen"]}

        generator = ImageDataGenerator(**COURSE)
        flow = generator.flow_from_directory(folder, (12, 12), batch_size=3, class_mode="sparse")
        flow.workers, flow.use_multiprocessing = 2, processes
        small = keras.Sequential([keras.Input((12, 12, 3)), keras.layers.Flatten()])
        small.add(keras.layers.Dense(2, activation="softmax"))
        small.compile("sgd", "sparse_categorical_crossentropy")
        assert len(small.fit(flow, epochs=2, verbose=0).epoch) == 2
    return told


if __name__ == "__main__":
    print(json.dumps({"compare": compare, "workers": workers}[sys.argv[2]](sys.argv[1])))
