"""Keras in a process of its own.

Importing TensorFlow takes seconds and a few hundred megabytes, and most of what kindsight does
needs none of it. What does (building a backbone once, proving that a written Keras file loads
and answers) is handed to a child process, which can start while other work goes on.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import SettingsError
from kindsight.models.networks.feature_maps import (
    MAX_LAYERS,
    MAX_MAPS,
    CollectedMaps,
    read_maps,
)
from kindsight.models.worker.jobs import JobProcess
from kindsight.models.worker.messages import absolute, handed_over

__all__ = ["KerasProcess"]

_MODULE = "kindsight.models.worker.child"


class KerasProcess(JobProcess):
    """A child process with Keras, started when first needed; a context manager.

    Parameters
    ----------
    timeout : float
        As :class:`.job_process.JobProcess` takes it.
    module : str, optional
        The module whose ``main`` the child runs, where it knows more jobs than this one's.

    Attributes
    ----------
    ran_ahead : bool
        Whether the last :meth:`run` found the images' features known from :meth:`run_ahead`.
    """

    def __init__(self, timeout: float = 600.0, *, module: str | None = None) -> None:
        super().__init__(timeout, module or _MODULE)
        self.ran_ahead = False

    def load_ahead(self, model: Path) -> None:
        """Have a frozen network loaded for :meth:`run_ahead`, and return at once.

        Parameters
        ----------
        model : Path
            A backbone's Keras file.
        """
        self.ahead(job="load", model=str(Path(model).resolve()))

    def run_ahead(self, model: Path, pixels: Callable[[], NDArray[Any]]) -> None:
        """Have a frozen network run on images, and return at once.

        When :meth:`run` is asked for the same images later, with a network that holds this one,
        its features are known. What goes wrong is of no matter: that job will say so.

        Parameters
        ----------
        model : Path
            A backbone's Keras file.
        pixels : callable
            Gives the images as :meth:`run` takes them.
        """
        self.ahead(pixels, job="ahead", model=str(Path(model).resolve()))

    def build(
        self,
        name: str,
        size: tuple[int, int],
        *,
        tflite: Path,
        keras: Path,
        weights: str | Path | None = None,
        seed: int = 0,
        given: tuple[int, int] | None = None,
        folded: bool = True,
    ) -> dict[str, Any]:
        """Build a backbone's LiteRT and Keras files; see :func:`.build.ensure_backbone`.

        Returns
        -------
        dict
            ``"width"``: how many features; ``"layout"``: which they are, as
            :meth:`.FeatureLayout.to_dict` gives it; ``"difference"``: the largest between the two
            files' features, as a share of the largest.

        Raises
        ------
        SettingsError, WeightsError
            As :func:`.backbones.get_backbone` and :func:`.weights.load_state`.
        ParityError
            Where the two files do not give the same features.
        KindsightError
            Where the child fails.
        """
        return self.request(
            job="build",
            name=str(Path(name).resolve()) if name.endswith(".keras") else name,
            size=list(size),
            weights=absolute(weights),
            seed=seed,
            given=None if given is None else list(given),
            folded=folded,
            tflite=str(Path(tflite).resolve()),
            keras=str(Path(keras).resolve()),
        )

    def run(
        self, model: Path, pixels: NDArray[Any]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Load a saved classifier with plain Keras and run images through it.

        Parameters
        ----------
        model : Path
            As :func:`.assemble.write_keras` writes it.
        pixels : uint8 or float32 array (n, height, width, 3)
            Values 0-255; n is at least 1.

        Returns
        -------
        features : float32 array (n, d)
        logits : float32 array (n, k)

        Raises
        ------
        SettingsError
            For pixels of another shape.
        KindsightError
            Where Keras cannot load or run the model, or the child fails.
        """
        if np.ndim(pixels) != 4 or len(pixels) == 0:
            raise SettingsError(
                "The pixels must be of shape (n, height, width, 3), with n of 1 or more. "
                f"Received: {np.shape(pixels)}."
            )
        with handed_over(pixels) as given:
            out = given.with_name("out.npz")
            answer = self.request(
                job="run", model=str(Path(model).resolve()), pixels=str(given), out=str(out)
            )
            self.ran_ahead = bool(answer.get("ahead"))
            with np.load(out, allow_pickle=False) as arrays:
                return arrays["features"], arrays["logits"]

    def maps(
        self,
        model: Path,
        pixels: NDArray[np.uint8],
        *,
        max_layers: int = MAX_LAYERS,
        max_maps: int = MAX_MAPS,
    ) -> CollectedMaps:
        """Run one image through a saved network; see :func:`.feature_maps.collect_maps`.

        Raises
        ------
        SettingsError
            For pixels of another shape.
        KindsightError
            Where Keras cannot load or run the model, the model has no layers with maps, or the
            child fails.
        """
        if np.ndim(pixels) != 3 or not np.size(pixels):
            raise SettingsError(
                "The pixels must be of one image, (height, width, 3). "
                f"Received: {np.shape(pixels)}."
            )
        with tempfile.TemporaryDirectory(prefix="kindsight-") as folder:
            given, out = Path(folder, "pixels.npy"), Path(folder, "out.npz")
            np.save(given, pixels, allow_pickle=False)
            answer = self.request(
                job="maps",
                model=str(Path(model).resolve()),
                pixels=str(given),
                out=str(out),
                max_layers=max_layers,
                max_maps=max_maps,
            )
            maps = read_maps(answer["layers"], out)
            return CollectedMaps(maps, answer["left_out"], answer["within"])
