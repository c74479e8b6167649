"""The network and the training data of a job, handed to the Keras worker process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kindsight.models.networks.small_cnn import LayerRow

if TYPE_CHECKING:
    from kindsight.training.activation_cache import CachedActivations

__all__ = ["JobInputs", "Source"]

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Source:
    """The file of images, or of cached activations, that a phase is trained on.

    Parameters
    ----------
    shape : tuple of int
        Of one image or activation.
    layer : str
        The cut layer whose activations are in the file; empty for images.
    rows : array
        int64 (images, 1 + copies): the row in the file of each image of the dataset, then of its
        augmented copies, of which each epoch uses another one; -1 where there is none.
    activations : CachedActivations, optional
        The open cache table of the file; to be closed.
    """

    file: Path
    shape: tuple[int, ...]
    layer: str
    rows: Rows
    activations: CachedActivations | None = None


@dataclass(frozen=True)
class JobInputs:
    """The network and the training data of a job.

    `network` are its settings, `identity` the same without paths, which identifies it on any
    machine; `layers` is the table of its layers; `sources` has one for each phase; `notes` are
    sentences for the user.
    """

    network: dict[str, Any]
    identity: dict[str, Any]
    layers: tuple[LayerRow, ...]
    sources: list[Source]
    notes: tuple[str, ...] = ()

    def close(self) -> None:
        """Close the activation caches."""
        tables = {id(source.activations): source.activations for source in self.sources}
        for activations in tables.values():
            if activations is not None:
                activations.close()

    def write(
        self, folder: Path, rows: Rows, targets: Rows, val_rows: Rows, val_targets: Rows
    ) -> Path:
        """Write ``data.npz``: rows and classes of the training and validation images."""
        path, arrays = folder / "data.npz", {}
        for number, source in enumerate(self.sources):
            several = source.rows.shape[1] > 1
            arrays[f"rows_{number}"] = source.rows[rows] if several else source.rows[rows, 0]
            arrays[f"val_rows_{number}"] = source.rows[val_rows, 0]
        np.savez(path, targets=targets, val_targets=val_targets, **arrays)  # type: ignore[arg-type]
        return path

    def to_job(self) -> dict[str, Any]:
        """Return the JSON fields of a job: network and sources."""
        sources = [
            {"file": str(s.file.resolve()), "shape": list(s.shape), "layer": s.layer}
            for s in self.sources
        ]
        return {"network": self.network, "sources": sources}
