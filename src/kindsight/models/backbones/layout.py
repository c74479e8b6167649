"""What each feature of a backbone is: named blocks of columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kindsight.errors import SettingsError, WeightsError

__all__ = ["FeatureBlock", "FeatureLayout"]

JOINED = ":"


@dataclass(frozen=True)
class FeatureBlock:
    """Neighbouring features of one origin: ``features[:, start:stop]``."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class FeatureLayout:
    """What each feature is.

    Parameters
    ----------
    blocks : tuple of FeatureBlock
        Without gaps, from 0 on, for example ``stage3_mean``, ``stage3_max``, ``stage3_std``,
        ``stage4_mean``, ..., ``top_mean``.
    """

    blocks: tuple[FeatureBlock, ...]

    def __post_init__(self) -> None:
        starts = [0, *(block.stop for block in self.blocks)]
        gaps = any(
            block.start != start or block.stop <= start
            for block, start in zip(self.blocks, starts, strict=False)
        )
        names = {block.name for block in self.blocks}
        if gaps or not self.blocks or len(names) != len(self.blocks):
            raise WeightsError(
                "The blocks of features must follow one another from 0 on, under different "
                f"names. Received: {self.to_dict()['blocks']}."
            )

    @property
    def width(self) -> int:
        """How many features an image has."""
        return self.blocks[-1].stop

    @property
    def names(self) -> tuple[str, ...]:
        """The blocks' names, in their order."""
        return tuple(block.name for block in self.blocks)

    def networks(self) -> dict[str, slice]:
        """Return each network's columns, where blocks are named ``"network:stage3_mean"``."""
        found: dict[str, slice] = {}
        for block in self.blocks:
            network, _, rest = block.name.rpartition(JOINED)
            if rest and network:
                start = found[network].start if network in found else block.start
                found[network] = slice(start, block.stop)
        return found

    def part(self, network: str) -> FeatureLayout:
        """Return the layout of one network's features by themselves."""
        columns, prefix = self.networks()[network], network + JOINED
        return FeatureLayout(
            tuple(
                FeatureBlock(
                    block.name.removeprefix(prefix),
                    block.start - columns.start,
                    block.stop - columns.start,
                )
                for block in self.blocks
                if columns.start <= block.start < columns.stop
            )
        )

    @classmethod
    def joined(cls, parts: Mapping[str, FeatureLayout]) -> FeatureLayout:
        """Lay the features of several networks side by side.

        Parameters
        ----------
        parts : mapping
            Layouts by the networks' names.
        """
        blocks: list[FeatureBlock] = []
        for network, layout in parts.items():
            start = blocks[-1].stop if blocks else 0
            blocks += [
                FeatureBlock(
                    f"{network}{JOINED}{block.name}", start + block.start, start + block.stop
                )
                for block in layout.blocks
            ]
        return cls(tuple(blocks))

    def __getitem__(self, name: str) -> slice:
        """Return the columns of a block."""
        for block in self.blocks:
            if block.name == name:
                return slice(block.start, block.stop)
        raise SettingsError(
            f"The block must be one of {', '.join(self.names)}. Received: {name!r}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the layout as JSON can hold it."""
        return {"blocks": [[block.name, block.start, block.stop] for block in self.blocks]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FeatureLayout:
        """Read what :meth:`to_dict` gave.

        Raises
        ------
        WeightsError
            For anything else.
        """
        try:
            rows = [(name, start, stop) for name, start, stop in data["blocks"]]
        except (KeyError, TypeError, ValueError):
            raise WeightsError(
                f"A layout of features must hold blocks of name, start and stop. Received: {data}."
            ) from None
        if not all(type(row[0]) is str and type(row[1]) is type(row[2]) is int for row in rows):
            raise WeightsError(
                f"A block of features must be a name and two whole numbers. Received: {rows}."
            )
        return cls(tuple(FeatureBlock(*row) for row in rows))
