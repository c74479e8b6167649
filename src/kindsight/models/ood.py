"""The out-of-distribution score: how unlike the training images an image is, from features.

It is a Mahalanobis distance to the nearest class, computed inside the network as a second output
``"ood_score"``. Like a head (:mod:`.heads`), it exists as NumPy here and is written into model
files from one chain of :class:`.heads.HeadLayer`.

References
----------
K. Lee, K. Lee, H. Lee, J. Shin, "A simple unified framework for detecting out-of-distribution
samples and adversarial attacks", NeurIPS 2018.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import WeightsError
from kindsight.models.heads import FEATURES, LOGITS, Head, HeadLayer

__all__ = ["OOD_SCORE", "OODScore", "output_layers"]

OOD_SCORE = "ood_score"
"""The name of the score's last layer, and of the network's second output."""

# Images whose distances are computed at a time.
_ROWS = 4096

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class OODScore:
    """The squared distance of an image's features to the nearest of several centers.

    ::

        q     = features @ project_kernel + project_bias      whitened features
        score = min over centers of |q - center|^2

    Parameters
    ----------
    project_kernel, project_bias : float32 array (d, p) and (p,)
        Include standardisation, rotation, whitening and the score's unit.
    centers : float32 array (k, p)
        The classes' means.
    """

    project_kernel: Floats
    project_bias: Floats
    centers: Floats

    def __post_init__(self) -> None:
        arrays = {}
        for name in ("project_kernel", "project_bias", "centers"):
            array = np.array(getattr(self, name), np.float32, order="C")
            if not np.isfinite(array).all():
                raise WeightsError(f"A score's {name} must be finite.")
            array.setflags(write=False)
            arrays[name] = array
            object.__setattr__(self, name, array)
        kernel, bias, centers = arrays.values()
        width = kernel.shape[-1]
        if kernel.ndim != 2 or bias.shape != (width,) or centers.shape[1:] != (width,):
            raise WeightsError(
                "A score's arrays must have the shapes (d, p), (p,) and (k, p); got "
                f"{kernel.shape}, {bias.shape} and {centers.shape}."
            )

    @property
    def features(self) -> int:
        """Number of features it takes."""
        return int(self.project_kernel.shape[0])

    def __call__(self, features: NDArray[Any]) -> Floats:
        """Return the scores, float32 (n,), of features (n, d).

        WeightsError for features of another width.
        """
        values = np.asarray(features, np.float32)
        if values.ndim != 2 or values.shape[1] != self.features:
            raise WeightsError(
                f"This score needs features of shape (n, {self.features}); got {values.shape}."
            )
        result = np.empty(len(values), np.float32)
        for start in range(0, len(values), _ROWS):
            q = values[start : start + _ROWS] @ self.project_kernel + self.project_bias
            lengths = np.square(self.centers).sum(1) - 2 * (q @ self.centers.T)
            result[start : start + _ROWS] = lengths.min(1) + np.square(q).sum(1)
        return result

    def layers(self, classes: int) -> tuple[HeadLayer, ...]:
        """Return the score as a chain of layers after those of a head with `classes` logits.

        To keep both one chain, the first layer also takes the logits, with a kernel of zeros:
        parallel branches could be traversed in any order, and Keras numbers weights in that order.
        The squared distance is expanded, as the RBF head's. Each layer gives the negative of it,
        since the smallest distance is found by a maximum.
        """
        (width, size), count = self.project_kernel.shape, len(self.centers)
        kernel = np.concatenate([self.project_kernel, np.zeros((classes, size), np.float32)])
        distances = np.concatenate([2 * self.centers.T, np.full((size, count), -1, np.float32)])
        bias = -np.square(self.centers.astype(np.float64)).sum(1)
        return (
            HeadLayer("concatenate", "ood_input", (FEATURES, LOGITS), width + classes),
            HeadLayer("dense", "ood_project", ("ood_input",), size, kernel, self.project_bias),
            HeadLayer("multiply", "ood_square", ("ood_project", "ood_project"), size),
            HeadLayer("concatenate", "ood_point", ("ood_project", "ood_square"), 2 * size),
            HeadLayer(
                "dense", "ood_closeness", ("ood_point",), count,
                np.ascontiguousarray(distances, np.float32), bias.astype(np.float32),
            ),
            HeadLayer("column", "ood_column", ("ood_closeness",), count),
            HeadLayer("maximum", "ood_nearest", ("ood_column",), 1),
            HeadLayer(
                "dense", OOD_SCORE, ("ood_nearest",), 1,
                -np.ones((1, 1), np.float32), np.zeros(1, np.float32),
            ),
        )  # fmt: skip


def output_layers(head: Head, score: OODScore | None) -> tuple[HeadLayer, ...]:
    """Return the layers after the features, to the logits and then to the score, if there is one.

    WeightsError for a score of another number of features than the head's.
    """
    if score is None:
        return head.layers()
    if score.features != head.features:
        raise WeightsError(f"The head takes {head.features} features, the score {score.features}.")
    return (*head.layers(), *score.layers(head.classes))
