"""What is trained and on what, as the process with Keras has to know it."""

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
    """Where the child finds what it learns from.

    Parameters
    ----------
    file : pathlib.Path
        Of pixels, or of what a network's lower part gives for them.
    shape : tuple of int
        Of one of them.
    layer : str
        After which the lower part ends; empty for pixels.
    places : array
        int64 (images, 1 + views): where in the file each image of the dataset is as it is, and
        then its views, of which every epoch takes another; -1 where there is none.
    held : CachedActivations, optional
        Whose file it is, kept from being pruned until it is closed.
    """

    file: Path
    shape: tuple[int, ...]
    layer: str
    places: Rows
    held: CachedActivations | None = None


@dataclass(frozen=True)
class JobInputs:
    """What is trained, and on what, as the child has to know it.

    Parameters
    ----------
    network : dict
        The network.
    identity : dict
        What tells it from all others, whatever folders it is in.
    layers : tuple of LayerRow
        Its table of layers.
    sources : list of Source
        Of each phase in turn.
    notes : tuple of str
        What is worth saying of them.
    """

    network: dict[str, Any]
    identity: dict[str, Any]
    layers: tuple[LayerRow, ...]
    sources: list[Source]
    notes: tuple[str, ...] = ()

    def close(self) -> None:
        """Let the cache prune what was held."""
        for held in {id(source.held): source.held for source in self.sources}.values():
            if held is not None:
                held.close()

    def write(self, folder: Path, rows: Rows, targets: Rows, val_rows: Rows, val: Rows) -> Path:
        """Write which images are learned from and judged by, and their classes, for the child."""
        path, arrays = folder / "data.npz", {}
        for number, source in enumerate(self.sources):
            several = source.places.shape[1] > 1
            arrays[f"rows_{number}"] = source.places[rows] if several else source.places[rows, 0]
            arrays[f"val_rows_{number}"] = source.places[val_rows, 0]
        np.savez(path, targets=targets, val_targets=val, **arrays)  # type: ignore[arg-type]
        return path

    def to_job(self) -> dict[str, Any]:
        """Return what a job is told of it."""
        sources = [
            {"file": str(s.file.resolve()), "shape": list(s.shape), "layer": s.layer}
            for s in self.sources
        ]
        return {"network": self.network, "sources": sources}
