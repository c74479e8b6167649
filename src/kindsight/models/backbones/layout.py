"""The layout of a backbone's features: named blocks of columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kindsight.errors import SettingsError, WeightsError

__all__ = ["FeatureBlock", "FeatureLayout"]

_SEPARATOR = ":"


@dataclass(frozen=True)
class FeatureBlock:
    """Neighbouring features of one origin: ``features[:, start:stop]``."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class FeatureLayout:
    """The blocks of a backbone's features, without gaps from column 0 on.

    For example ``stage3_mean``, ``stage3_max``, ``stage3_std``, ``stage4_mean``, ..., ``top_mean``.
    In an ensemble the names start with the network's: ``"network:stage3_mean"``.
    """

    blocks: tuple[FeatureBlock, ...]

    def __post_init__(self) -> None:
        starts = [0, *(block.stop for block in self.blocks)]
        gaps = any(
            block.start != start or block.stop <= start
            for block, start in zip(self.blocks, starts, strict=False)
        )
        if gaps or not self.blocks or len(set(self.names)) != len(self.blocks):
            raise WeightsError(
                "Blocks of features must follow one another from 0 on and have different names; "
                f"got {self.to_dict()['blocks']}."
            )

    @property
    def width(self) -> int:
        """Number of features per image."""
        return self.blocks[-1].stop

    @property
    def names(self) -> tuple[str, ...]:
        """The blocks' names, in order."""
        return tuple(block.name for block in self.blocks)

    def networks(self) -> dict[str, slice]:
        """Return the columns of each network of an ensemble; empty for a single backbone."""
        found: dict[str, slice] = {}
        for block in self.blocks:
            network, _, rest = block.name.rpartition(_SEPARATOR)
            if rest and network:
                start = found[network].start if network in found else block.start
                found[network] = slice(start, block.stop)
        return found

    def of_network(self, network: str) -> FeatureLayout:
        """Return the layout of one network of an ensemble, from column 0 on."""
        columns, prefix = self.networks()[network], network + _SEPARATOR
        first = columns.start
        blocks = (
            FeatureBlock(block.name.removeprefix(prefix), block.start - first, block.stop - first)
            for block in self.blocks
            if first <= block.start < columns.stop
        )
        return FeatureLayout(tuple(blocks))

    @classmethod
    def concatenated(cls, layouts: Mapping[str, FeatureLayout]) -> FeatureLayout:
        """Return the layout of the concatenated features of networks, given by name."""
        blocks: list[FeatureBlock] = []
        for network, layout in layouts.items():
            start = blocks[-1].stop if blocks else 0
            blocks += [
                FeatureBlock(
                    f"{network}{_SEPARATOR}{block.name}", start + block.start, start + block.stop
                )
                for block in layout.blocks
            ]
        return cls(tuple(blocks))

    def __getitem__(self, name: str) -> slice:
        """Return the columns of a block; SettingsError for an unknown name."""
        for block in self.blocks:
            if block.name == name:
                return slice(block.start, block.stop)
        raise SettingsError(f"The block must be one of {', '.join(self.names)}; got {name!r}.")

    def to_dict(self) -> dict[str, Any]:
        """Return the layout as a dict for JSON."""
        return {"blocks": [[block.name, block.start, block.stop] for block in self.blocks]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FeatureLayout:
        """Return the layout of a :meth:`to_dict`; WeightsError for anything else."""
        try:
            rows = [(name, start, stop) for name, start, stop in data["blocks"]]
        except (KeyError, TypeError, ValueError):
            raise WeightsError(
                f"A layout of features must hold blocks of name, start and stop; got {data}."
            ) from None
        if not all(type(row[0]) is str and type(row[1]) is type(row[2]) is int for row in rows):
            raise WeightsError(
                f"A block of features must be a name and two whole numbers; got {rows}."
            )
        return cls(tuple(FeatureBlock(*row) for row in rows))
