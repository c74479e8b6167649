"""The Keras worker process and its jobs, as methods.

Importing TensorFlow takes seconds and hundreds of megabytes. The worker process can start while
other work continues, and most of kindsight does not need it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import SettingsError
from kindsight.models.worker.client import WorkerClient, pixels_file

__all__ = ["KerasProcess"]

_MODULE = "kindsight.models.keras_jobs"


class KerasProcess(WorkerClient):
    """A worker process with Keras, started when first needed; a context manager.

    `timeout` is the most seconds that one job may take, or that may pass between two of its
    messages; `module` the module whose ``main`` the worker runs, where it has more jobs than these.
    """

    def __init__(self, timeout: float = 600.0, *, module: str | None = None) -> None:
        super().__init__(timeout, module or _MODULE)

    def load_ahead(self, model: Path) -> None:
        """Load a backbone's Keras file for :meth:`run_ahead`, in the background."""
        self.run_in_background(job="load", model=str(Path(model).resolve()))

    def run_ahead(self, model: Path, pixels: Callable[[], NDArray[Any]]) -> None:
        """Run a backbone's Keras file in the background on the images that `pixels` returns.

        A later :meth:`run` of the same images, with a classifier that contains this backbone,
        reuses the features.
        """
        self.run_in_background(pixels, job="ahead", model=str(Path(model).resolve()))

    def build(
        self,
        name: str,
        size: tuple[int, int],
        *,
        tflite: Path,
        keras: Path,
        weights: str = "imagenet",
        seed: int = 0,
        input_size: tuple[int, int] | None = None,
        fold_batch_norm: bool = True,
    ) -> dict[str, Any]:
        """Build a backbone's LiteRT and Keras files; see :func:`.build.ensure_backbone`.

        Returns ``"width"``, the number of features; ``"layout"``, as
        :meth:`.FeatureLayout.to_dict`; ``"difference"``, the largest one between the two files'
        features, as a fraction of the largest feature. SettingsError and WeightsError for a name,
        size or weights that no backbone can be built from, ParityError when the two files differ,
        KindsightError when the worker fails.
        """
        return self.run_job(
            job="build", name=str(Path(name).resolve()) if name.endswith(".keras") else name,
            size=list(size), weights=weights, seed=seed,
            input_size=None if input_size is None else list(input_size),
            fold_batch_norm=fold_batch_norm,
            tflite=str(Path(tflite).resolve()), keras=str(Path(keras).resolve()),
        )  # fmt: skip

    def run(
        self, model: Path, pixels: NDArray[Any]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Load a saved classifier with plain Keras and run images through it.

        `pixels` are uint8 or float32 (n, height, width, 3) with values 0-255, n >= 1; returned are
        the features, float32 (n, d), and the logits, float32 (n, k). SettingsError for pixels of
        another shape; KindsightError when Keras cannot load or run the model, or the worker fails.
        """
        if np.ndim(pixels) != 4 or len(pixels) == 0:
            raise SettingsError(
                "`pixels` must have the shape (n, height, width, 3), n >= 1; "
                f"got {np.shape(pixels)}."
            )
        with pixels_file(pixels) as file:
            out = file.with_name("out.npz")
            self.run_job(
                job="run", model=str(Path(model).resolve()), pixels=str(file), out=str(out)
            )
            with np.load(out, allow_pickle=False) as arrays:
                return arrays["features"], arrays["logits"]
