"""Settings of a training of the small CNN from random weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kindsight.models.networks.small_cnn import LayerRow, SmallCNN
from kindsight.models.steps.compute_dtype import choose_compute_dtype
from kindsight.training.common import common_faults
from kindsight.training.epoch_settings import EpochTrainer, whole_numbers
from kindsight.training.option_rules import option_faults

__all__ = ["NETWORKS", "NetworkTrainer"]

NETWORKS = ("small-cnn",)
"""Networks that are trained from random weights."""

SIZE = 150
SIZE_RANGE = (4, 1024)


@dataclass(frozen=True)
class NetworkTrainer(EpochTrainer):
    """Train a network, one of :data:`NETWORKS`, from random weights.

    `filters`, `dense`, `dropout`, `batch_norm`, `l2` and `pooling` are as in
    :class:`kindsight.models.networks.small_cnn.SmallCNN`, the other settings as in
    :class:`.epoch_settings.EpochTrainer`. `size` is 150 if omitted.
    """

    model: str = "small-cnn"
    dense: Sequence[int] | int = (512,)
    filters: Sequence[int] = (16, 32, 64)

    def _own_faults(self) -> list[str]:
        found = common_faults(self, SIZE_RANGE)
        model = (
            ""
            if self.model in NETWORKS
            else f"model must be one of {', '.join(NETWORKS)}; got {self.model!r}. "
            f"Did you mean {NETWORKS[0]!r}?"
        )
        layers = ("filters", "dense", "dropout", "batch_norm", "l2", "pooling")
        own = option_faults(vars(self), layers).values()
        valid = not own and not any(fault.startswith("size") for fault in found)
        network = self.network().faults() if valid else []
        return [*filter(None, [model, *self._unsupported_faults()]), *found, *own, *network]

    def _unsupported_faults(self) -> list[str]:
        found = []
        if self.compute_dtype == "bfloat16" and self.batch_norm is True:
            found.append(
                "compute_dtype must be float32 or auto for a network with batch normalisation; "
                "got 'bfloat16'."
            )
        frozen = [phase for phase in self._phases()[0] if phase.freeze != "none"]
        if frozen:
            found.append(
                f"freeze is a setting of backbones, whose layers are pretrained; {self.model} is "
                f"not one (got {frozen[0].freeze!r}). Leave it out, or choose a backbone."
            )
        if any(phase.cached_copies for phase in self._phases()[0]):
            found.append(
                "cached_copies is a setting of backbones, for their frozen layers; "
                f"{self.model} has none. Leave it out, or choose a backbone."
            )
        return found

    def network(self) -> SmallCNN:
        """Return the settings of the network."""
        batch_norm = bool(self.batch_norm) if self.batch_norm in (True, False) else self.batch_norm
        return SmallCNN(
            self._size(), whole_numbers(self.filters), whole_numbers(self.dense), self.dropout,
            batch_norm, self.l2, self.pooling,
        )  # fmt: skip

    def resolved_compute_dtype(self) -> str:
        """Return ``"float32"`` or ``"bfloat16"``, which this machine trains in."""
        return choose_compute_dtype(self.compute_dtype, batch_norm=bool(self.batch_norm))

    def to_dict(self) -> dict[str, Any]:
        """Return the settings that determine the result, as TOML values, None left out."""
        return {**super().to_dict(), "filters": list(whole_numbers(self.filters))}

    def describe(self) -> str:
        """Describe the network in a few words."""
        return f"{self.model}, trained from random weights"

    def words(self, layers: Sequence[LayerRow], classes: int) -> str:
        """Describe the network in a line: layers and parameters."""
        network = self.network()
        parameters = sum(row.parameters for row in layers)
        words = ["-".join(map(str, network.filters)) + " filters", network.pooling]
        words += [f"dense {units}" for units in network.dense]
        words += [f"dropout {network.dropout:g}"] if network.dropout else []
        words += ["batch normalisation"] if network.batch_norm else []
        words.append(f"{'one sigmoid' if classes == 2 else 'softmax'}; {parameters:,} parameters")
        bfloat16 = self.resolved_compute_dtype() == "bfloat16"
        words += ["convolutions in bfloat16"] if bfloat16 else []
        return ", ".join(words)

    def _size(self) -> tuple[int, int]:
        size = SIZE if self.size is None else self.size
        return (size, size) if isinstance(size, int) else tuple(size)  # type: ignore[return-value]
