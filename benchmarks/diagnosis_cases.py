"""Trainings with a deliberate fault, and healthy ones, for ``diagnosis.py``.

Every case is a way in which users get into a problem: options of ``kindsight train``, or
images prepared in the wrong way. A healthy case follows the documentation: a frozen head; or a
network trained with augmentation until early stopping, with a falling learning rate; on clean data
with at least 100 validation images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["CASES", "HEALTHY", "Case", "Images"]

HEALTHY = "healthy"
CNN = {"model": "small-cnn", "size": 48}
SMALL = {"size": 96}  # of a backbone
CATS, SIGNS, CELLS = "cats-dogs", "sign-digits", "elpv"


@dataclass
class Images:
    """Images to write: label and pixels, or a file to copy, by relative path."""

    files: dict[str, Path | Any]

    def by_class(self) -> dict[str, list[str]]:
        """Return the paths of each class folder, the last folder of the path."""
        found: dict[str, list[str]] = {}
        for path in sorted(self.files):
            found.setdefault(path.split("/")[-2], []).append(path)
        return found


Change = Callable[[Images, np.random.Generator], Images]


@dataclass(frozen=True)
class Case:
    """A training with a known condition."""

    name: str
    kind: str  # a code such as "KD101", or HEALTHY
    data: str
    each: int  # images of each class
    options: Mapping[str, Any] = field(default_factory=dict)
    change: Change | None = None
    wrap: bool = False  # whether the model is a user's file that scales its input twice


# Changes of the data -----------------------------------------------------------------------------


def limit(counts: Mapping[int, int]) -> Change:
    """Return a change that keeps only some images of classes, given by their position."""

    def change(images: Images, rng: np.random.Generator) -> Images:
        kept = dict(images.files)
        for number, (_, paths) in enumerate(sorted(images.by_class().items())):
            if number in counts:
                for path in rng.permutation(paths)[counts[number] :]:
                    del kept[str(path)]
        return Images(kept)

    return change


def relabel(fraction: float) -> Change:
    """Return a change that moves a fraction of each class to the next class."""

    def change(images: Images, rng: np.random.Generator) -> Images:
        moved = dict(images.files)
        classes = sorted(images.by_class().items())
        for number, (name, paths) in enumerate(classes):
            other = classes[(number + 1) % len(classes)][0]
            for path in rng.permutation(paths)[: round(fraction * len(paths))]:
                file = moved.pop(str(path))
                moved[str(path).replace(f"{name}/", f"{other}/{name}-", 1)] = file
        return Images(moved)

    return change


def copies_across(fraction: float, reencode: bool) -> Change:
    """Return a change with a train and a validation folder that share images."""

    def change(images: Images, rng: np.random.Generator) -> Images:
        found: dict[str, Any] = {}
        for name, paths in images.by_class().items():
            order = [str(path) for path in rng.permutation(paths)]
            held = order[: max(12, len(order) // 4)]
            for path in order:
                found[f"{'validation' if path in held else 'train'}/{path}"] = images.files[path]
            for path in held[: round(fraction * len(held))]:
                file: Any = images.files[path]
                if reencode:
                    file = (file, lambda pixels: _jpeg(pixels, 80))
                found[f"train/{name}/copy-{Path(path).name}"] = file
        return Images(found)

    return change


def offline_copies(per_image: int, test_fraction: float) -> Change:
    """Return a change that adds rotated and shifted copies, before the random split.

    The test folder has a fraction of the images, without copies.
    """

    def change(images: Images, rng: np.random.Generator) -> Images:
        found: dict[str, Any] = {}
        for paths in images.by_class().values():
            order = [str(path) for path in rng.permutation(paths)]
            tested = round(test_fraction * len(order))
            test = order[:tested]
            found |= {f"test/{path}": images.files[path] for path in test}
            for path in order[tested:]:
                found[f"train/{path}"] = images.files[path]
                for number in range(per_image):
                    angle, shift = rng.uniform(-12, 12), rng.uniform(-0.06, 0.06, 2)
                    stem, _, end = path.rpartition(".")
                    found[f"train/{stem}-{number}.{end}"] = (
                        images.files[path],
                        lambda pixels, a=angle, s=shift: _warp(pixels, a, s),
                    )
        return Images(found)

    return change


def sources(of_first: Callable[[Any], Any]) -> Change:
    """Return a change that saves the images of the first class differently."""

    def change(images: Images, rng: np.random.Generator) -> Images:
        found = dict(images.files)
        for path in sorted(images.by_class().items())[0][1]:
            found[path] = (images.files[path], of_first)
        return Images(found)

    return change


def every(transform: Callable[[Any], Any], ending: str = "") -> Change:
    """Return a change that transforms the pixels of all images."""

    def change(images: Images, rng: np.random.Generator) -> Images:
        return Images(
            {
                (path.rpartition(".")[0] + ending if ending else path): (file, transform)
                for path, file in images.files.items()
            }
        )

    return change


def _jpeg(pixels: Any, quality: int) -> bytes:
    import cv2

    return bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1])


def _png(pixels: Any) -> bytes:
    import cv2

    return bytes(cv2.imencode(".png", pixels)[1])


def _warp(pixels: Any, angle: float, shift: Any) -> bytes:
    import cv2

    height, width = pixels.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)
    matrix[:, 2] += np.array(shift) * (width, height)
    turned = cv2.warpAffine(pixels, matrix, (width, height), borderMode=cv2.BORDER_REFLECT)
    return _jpeg(turned, 92)


def shrunk(side: int) -> Callable[[Any], bytes]:
    """Return a function that saves an image with another size."""

    def transform(pixels: Any) -> bytes:
        import cv2

        height, width = pixels.shape[:2]
        scale = side / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        return _jpeg(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), 95)

    return transform


def scaled_before_saving(pixels: Any) -> bytes:
    """Save an image after dividing it by 255, as cv2.imwrite(path, image / 255) does."""
    return _png(np.rint(pixels / 255).astype(np.uint8))


# The cases ---------------------------------------------------------------------------------------

GOOD = {
    **CNN, "augment": "light", "schedule": "cosine", "optimizer": "adam", "dropout": 0.3,
}  # fmt: skip
"""A network as the guide recommends it."""

STUCK = {
    **CNN, "epochs": 16, "optimizer": "sgd", "learning_rate": 0.02, "dense": (),
    "pooling": "average",
}  # fmt: skip
"""A network that stays where it began: plain SGD at a constant learning rate."""

WRONG_POLICY = {
    "rotation": 180, "shift": [0.5, 0.5], "scale": [0.3, 2.5], "brightness": [0.1, 3.0],
    "contrast": [0.1, 3.0], "blur": 4.0, "noise": 60.0, "erasing": 0.6,
}  # fmt: skip

CASES: tuple[Case, ...] = (
    # Overfitting: many epochs without augmentation on few images
    Case("overfit cats", "KD101", CATS, 150, {**CNN, "epochs": 20}),
    Case("overfit cats, wide", "KD101", CATS, 120, {**CNN, "epochs": 20, "dense": (1024,)}),
    Case("overfit signs", "KD101", SIGNS, 16, {**CNN, "epochs": 30, "validation": 0.4}),
    # The small network does not memorise cells: it learns some of them slowly.
    Case("overfit transfer cells", "KD101", CELLS, 100, {**SMALL, "freeze": "all", "epochs": 50,
                                                        "dense": (256,), "validation": 0.6}),
    # Underfitting: too small, or held back too strongly
    Case("tiny signs", "KD102", SIGNS, 40, {**CNN, "epochs": 14, "filters": (3, 3), "dense": (),
                                           "pooling": "average", "optimizer": "adam",
                                           "learning_rate": 0.002}),
    Case("strong l2 cats", "KD102", CATS, 200, {**CNN, "epochs": 12, "l2": 0.3}),
    Case("dropout signs", "KD102", SIGNS, 40, {**CNN, "epochs": 18, "dropout": 0.97}),
    Case("tiny cells", "KD102", CELLS, 150, {**CNN, "epochs": 14, "filters": (2,), "dense": (),
                                            "pooling": "average", "optimizer": "adam",
                                            "learning_rate": 0.002}),
    # Learning rate too high
    Case("fast cats", "KD103", CATS, 200, {**CNN, "epochs": 10, "learning_rate": 0.05}),
    Case("fast signs", "KD103", SIGNS, 40, {**CNN, "epochs": 10, "learning_rate": 0.03,
                                           "optimizer": "adam"}),
    Case("fast cells", "KD103", CELLS, 200, {**CNN, "epochs": 10, "learning_rate": 0.5,
                                            "optimizer": "sgd"}),
    Case("fast transfer cats", "KD103", CATS, 120, {**SMALL, "freeze": "none", "epochs": 4,
                                                   "learning_rate": 0.03}),
    # Learning rate too low
    Case("slow cats", "KD104", CATS, 200, {**CNN, "epochs": 10, "learning_rate": 2e-6}),
    Case("slow signs", "KD104", SIGNS, 40, {**CNN, "epochs": 12, "learning_rate": 1e-5}),
    Case("slow cells", "KD104", CELLS, 200, {**CNN, "epochs": 10, "learning_rate": 1e-5,
                                            "optimizer": "sgd"}),
    Case("slow transfer signs", "KD104", SIGNS, 30, {**SMALL, "freeze": "all", "epochs": 10,
                                                    "learning_rate": 1e-5}),
    # Stopped too early
    Case("brief signs", "KD105", SIGNS, 50, {**CNN, "epochs": 4}),
    Case("brief signs, dropout", "KD105", SIGNS, 80, {**CNN, "epochs": 3, "dropout": 0.3}),
    Case("brief transfer signs", "KD105", SIGNS, 40, {**SMALL, "freeze": "all", "epochs": 3,
                                                     "learning_rate": 3e-4}),
    Case("brief cats", "KD105", CATS, 350, {**CNN, "epochs": 3, "augment": "light"}),
    # Plateau
    Case("plateau cats", "KD106", CATS, 150, STUCK),
    Case("plateau signs", "KD106", SIGNS, 30, STUCK),
    Case("plateau cells", "KD106", CELLS, 150, {**CNN, "epochs": 20, "learning_rate": 0.004}),
    # Validation too small
    Case("few held out, cats", "KD107", CATS, 150, {**SMALL, "validation": 10}),
    Case("few held out, signs", "KD107", SIGNS, 30, {**SMALL, "validation": 12}),
    Case("few held out, cells", "KD107", CELLS, 150, {**SMALL, "validation": 16}),
    # Class collapse: rare classes are never predicted
    Case("rare dog", "KD108", CATS, 500, {**CNN, "epochs": 6, "validation": 0.3}, limit({1: 40})),
    Case("rare signs", "KD108", SIGNS, 120, {**CNN, "epochs": 6, "validation": 0.4},
         limit({2: 12, 6: 12})),
    Case("rare defects", "KD108", CELLS, 600, {**CNN, "epochs": 6, "validation": 0.3},
         limit({0: 40})),
    # Confusion explained by wrong labels
    Case("wrong cats", "KD109", CATS, 300, SMALL, relabel(0.15)),
    Case("wrong signs", "KD109", SIGNS, 80, SMALL, relabel(0.12)),
    Case("wrong cells", "KD109", CELLS, 300, SMALL, relabel(0.15)),
    Case("wrong signs, network", "KD109", SIGNS, 120, {**GOOD, "epochs": 14}, relabel(0.12)),
    # Leakage
    Case("copies cats", "KD110", CATS, 200, {**SMALL, "leakage": "keep"},
         copies_across(0.7, reencode=False)),
    Case("near copies signs", "KD110", SIGNS, 60, {**SMALL, "leakage": "keep"},
         copies_across(0.7, reencode=True)),
    # Copies of signs, whose background is plain, are found and excluded from training, and the
    # small network does not memorise cells.
    Case("offline copies cats, wide", "KD110", CATS, 100, {**CNN, "epochs": 14, "dense": (1024,)},
         offline_copies(5, 0.5)),
    Case("offline copies cats", "KD110", CATS, 120, {**CNN, "epochs": 14, "dropout": 0.3},
         offline_copies(4, 0.5)),
    # Miscalibration: nothing was left to fit a temperature on
    Case("smoothed signs", "KD111", SIGNS, 150, {**GOOD, "epochs": 14, "label_smoothing": 0.5,
                                                "validation": 0, "test": 0.3}),
    Case("smoothed cells", "KD111", CELLS, 350, {**GOOD, "epochs": 10, "label_smoothing": 0.7,
                                                "validation": 0, "test": 0.3}),
    Case("smoothed signs, small", "KD111", SIGNS, 110, {**GOOD, "epochs": 14, "dropout": 0.1,
                                                       "label_smoothing": 0.6, "validation": 0,
                                                       "test": 0.3}),
    # Class confounded with its source
    Case("small cats", "KD112", CATS, 200, SMALL, sources(shrunk(90))),
    Case("compressed cells", "KD112", CELLS, 250, {**GOOD, "epochs": 12},
         sources(lambda pixels: _jpeg(pixels, 60))),
    Case("png signs", "KD112", SIGNS, 40, SMALL, sources(_png)),
    # Augmentation too strong
    Case("distorted signs", "KD113", SIGNS, 40, {**CNN, "epochs": 18, "augment": WRONG_POLICY}),
    Case("distorted cats", "KD113", CATS, 220, {**CNN, "epochs": 12, "augment": WRONG_POLICY}),
    Case("distorted transfer signs", "KD113", SIGNS, 30,
         {**SMALL, "freeze": "all", "epochs": 12, "augment": WRONG_POLICY}),
    # Batch normalisation: good in training mode, bad in inference mode
    Case("few steps cats", "KD114", CATS, 200, {**CNN, "epochs": 4, "batch_norm": True,
                                               "batch_size": 64}),
    Case("few steps signs", "KD114", SIGNS, 40, {**CNN, "epochs": 6, "batch_norm": True,
                                                "batch_size": 64}),
    Case("few steps cells", "KD114", CELLS, 250, {**CNN, "epochs": 5, "batch_norm": True,
                                                 "batch_size": 100}),
    Case("tiny batches signs", "KD114", SIGNS, 16, {**SMALL, "freeze": "none", "epochs": 3,
                                                   "train_batch_norm": True, "batch_size": 2,
                                                   "learning_rate": 1e-3}),
    # Input scaled twice
    Case("saved as 0-1 cells", "KD115", CELLS, 200, {**CNN, "epochs": 8},
         every(scaled_before_saving, ".png")),
    Case("saved as 0-1 signs", "KD115", SIGNS, 40, SMALL, every(scaled_before_saving, ".png")),
    Case("twice cats", "KD115", CATS, 120, {**SMALL, "freeze": "all", "epochs": 6}, wrap=True),
    Case("twice signs", "KD115", SIGNS, 24, SMALL, wrap=True),
    # Healthy
    Case("frozen cats", HEALTHY, CATS, 300, SMALL),
    Case("frozen signs", HEALTHY, SIGNS, 80, SMALL),
    Case("frozen cells", HEALTHY, CELLS, 350, SMALL),
    Case("frozen cats, test split", HEALTHY, CATS, 400, {**SMALL, "test": 0.2}),
    Case("frozen signs, linear", HEALTHY, SIGNS, 60, {**SMALL, "head": "linear", "test": 0.2}),
    Case("frozen cells, balanced", HEALTHY, CELLS, 300, {**SMALL, "class_weight": "balanced"}),
    Case("frozen cats, flips", HEALTHY, CATS, 300, {**SMALL, "tta_flips": 2}),
    Case("frozen signs, small", HEALTHY, SIGNS, 60, {"size": 64}),
    Case("network signs", HEALTHY, SIGNS, 150, {**GOOD, "epochs": 20, "patience": 8}),
    Case("network signs, dropout", HEALTHY, SIGNS, 120, {**GOOD, "epochs": 22, "patience": 8,
                                                        "dropout": 0.5}),
    Case("network signs, test split", HEALTHY, SIGNS, 150, {**GOOD, "epochs": 18, "patience": 8,
                                                           "test": 0.15}),
    Case("network cats", HEALTHY, CATS, 500, {**GOOD, "epochs": 20, "patience": 8,
                                             "augment": "classic"}),
    Case("network cells", HEALTHY, CELLS, 450, {**GOOD, "epochs": 16, "patience": 8}),
    Case("transfer cats", HEALTHY, CATS, 300, {**SMALL, "freeze": "all", "dropout": 0.2,
                                              "epochs": 15, "patience": 4}),
    Case("transfer signs", HEALTHY, SIGNS, 150, {**SMALL, "freeze": "all", "dropout": 0.2,
                                               "epochs": 30, "patience": 4, "schedule": "cosine"}),
    Case("transfer cells", HEALTHY, CELLS, 300, {**SMALL, "freeze": "all", "dropout": 0.2,
                                                "epochs": 15, "patience": 4}),
    Case("fine-tuned cats", HEALTHY, CATS, 300, {**SMALL, "fine_tune": "light"}),
    Case("fine-tuned signs", HEALTHY, SIGNS, 60, {**SMALL, "fine_tune": "light"}),
    Case("fine-tuned cells", HEALTHY, CELLS, 300, {**SMALL, "fine_tune": "light"}),
    Case("transfer cats, upper layers", HEALTHY, CATS, 250,
         {**SMALL, "freeze": "stage5_out", "epochs": 8, "patience": 3, "learning_rate": 1e-4,
          "augment": "light"}),
)  # fmt: skip
