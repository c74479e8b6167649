"""Train with fastai's ``fine_tune`` on the same ImageNet weights: a rival of ``kindsight train``.

Uses ``ImageDataLoaders.from_folder``, ``Resize(224)`` and fastai's body and head: one epoch with
the body frozen, then ``--epochs`` with all layers trainable. Everything else is fastai's default.
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
    from lite0_torch import FEATURES, MEAN, STD, convolutional_layers, load_lite0

    root = options.train.parent
    if options.validation.parent != root:
        raise SystemExit(
            "--train and --validation must be subfolders of the same folder for fastai; "
            f"got {options.train} and {options.validation}."
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
            f"--batch must be at most the number of training images ({len(loaders.train_ds)}), "
            f"because fastai drops an incomplete last batch; got {options.batch}."
        )
    # These are the steps of vision_learner, whose `cut` argument fastai 2.8 ignores.
    body = create_body(load_lite0(), cut=convolutional_layers)
    model = add_head(body, FEATURES, loaders.c)
    learner = Learner(loaders, model, splitter=default_split, metrics=accuracy)
    started = time.perf_counter()
    with learner.no_bar():
        learner.fine_tune(options.epochs)
    fitting = time.perf_counter() - started
    # The recorder's last row: training loss, validation loss, metric.
    score = float(learner.recorder.values[-1][-1])
    epochs = 1 + options.epochs
    images, scored = len(loaders.train_ds), len(loaders.valid_ds)
    return {
        "accuracy": round(score, 5),
        # Training and validation images per second of fitting.
        "rate": round(epochs * (images + scored) / fitting, 2),
        "fit_seconds": round(fitting, 3),
        "train": images,
        "validation": scored,
        "epochs": epochs,
    }


if __name__ == "__main__":
    parser = shared.training_parser(__doc__.splitlines()[0])
    parser.add_argument(
        "--epochs", type=int, default=1, help="epochs after the first, frozen one  [default: 1]"
    )
    parser.add_argument(
        "--batch", type=int, default=64, help="batch size  [default: 64, fastai's default]"
    )
    shared.run("fastai fine_tune", ("fastai", "torch"), train, parser)
