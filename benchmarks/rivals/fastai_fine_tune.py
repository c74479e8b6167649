"""fastai's ``fine_tune(1)`` on the same ImageNet weights: a rival of ``kindsight train``.

``ImageDataLoaders.from_folder``, ``Resize(224)``, a body and a head put together by fastai, one
epoch with the body frozen and one with everything free; all else as fastai has it.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import shared


def train(options: argparse.Namespace) -> dict[str, Any]:
    from fastai.vision.all import (
        ImageDataLoaders,
        Learner,
        Normalize,
        Resize,
        accuracy,
        add_head,
        create_body,
        default_split,
        set_seed,
    )
    from lite0_torch import FEATURES, MEAN, STD, convolutional_part, load_lite0

    root = options.train.parent
    if options.validation.parent != root:
        raise SystemExit(
            "fastai needs --train and --validation side by side in one folder. "
            f"Received: {options.train} and {options.validation}"
        )
    set_seed(options.seed)
    loaders = ImageDataLoaders.from_folder(
        root,
        train=options.train.name,
        valid=options.validation.name,
        item_tfms=Resize(224),
        batch_tfms=Normalize.from_stats(MEAN, STD),
        bs=options.batch,
    )
    if len(loaders.train_ds) < options.batch:
        raise SystemExit(
            "fastai leaves out the last, smaller batch: --batch must not exceed the images to "
            f"train on. Received: {options.batch} of {len(loaders.train_ds)}"
        )
    # What vision_learner does inside; fastai 2.8's ignores the `cut` that it is given.
    body = create_body(load_lite0(), cut=convolutional_part)
    model = add_head(body, FEATURES, loaders.c)
    learner = Learner(loaders, model, splitter=default_split, metrics=accuracy)
    started = time.perf_counter()
    with learner.no_bar():
        learner.fine_tune(options.epochs)
    fitting = time.perf_counter() - started
    # The last row of the recorder: losses of train and validation, then the metric.
    score = float(learner.recorder.values[-1][-1])
    epochs = 1 + options.epochs
    images, scored = len(loaders.train_ds), len(loaders.valid_ds)
    return {
        "accuracy": round(score, 5),
        # Images that pass the network in a second of fitting, those of validation included.
        "rate": round(epochs * (images + scored) / fitting, 2),
        "fit_seconds": round(fitting, 3),
        "train": images,
        "validation": scored,
        "epochs": epochs,
    }


if __name__ == "__main__":
    parser = shared.training_parser(__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=1, help="epochs after the frozen one")
    parser.add_argument("--batch", type=int, default=64, help="64 is fastai's own default")
    shared.run("fastai fine_tune", ("fastai", "torch"), train, parser)
