"""A backbone: its facts, and the layout of its features, named blocks of columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kindsight.errors import SettingsError, WeightsError

__all__ = [
    "PROFILES",
    "SIZE_RANGE",
    "STATISTICS",
    "TOP",
    "Backbone",
    "FeatureBlock",
    "FeatureLayout",
    "PublishedFile",
    "RequiredFile",
    "Stage",
    "check_size",
    "make_layout",
]

_SEPARATOR = ":"

STATISTICS = ("mean", "max", "std")
"""Statistics of each feature map, over all of its pixels."""

PROFILES = tuple(f"{line}{word}" for line in ("row", "column") for word in ("std", "max", "min"))
"""Statistics of the means of a map's rows, and of its columns: they respond to lines and bands."""

# Wider stages have no profiles: there would be too many features for the usual number of images.
MAX_PROFILED_CHANNELS = 256

SIZE_RANGE = (32, 1024)
"""Smallest and largest height or width in pixels that a backbone is built for."""

TOP = "top_mean"
"""The layer, and the block of features, of the global average pooling at the end."""


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


@dataclass(frozen=True)
class Stage:
    """A layer whose statistics over space are features, and its number of feature maps.

    `only` are the statistics where not all of them are features: ``("mean",)``, or none.
    """

    layer: str
    channels: int
    only: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The prefix of the names of its blocks of features."""
        return self.layer.removesuffix("_out")

    @property
    def statistics(self) -> tuple[str, ...]:
        """The statistics of its maps that are features, in that order."""
        if self.only:
            return self.only
        return (*STATISTICS, *PROFILES) if self.channels <= MAX_PROFILED_CHANNELS else STATISTICS


@dataclass(frozen=True)
class PublishedFile:
    """A weights file that Keras downloads; `digest` is MD5, SHA-256 or empty, as Keras has it."""

    url: str
    digest: str = ""

    @property
    def name(self) -> str:
        """The file's name, also in Keras's own folder."""
        return self.url.rpartition("/")[2]

    @property
    def host(self) -> str:
        """The server's name."""
        return self.url.split("/")[2]


@dataclass(frozen=True)
class RequiredFile:
    """A weights file that the user downloads: ``model.safetensors`` of a Hugging Face repository.

    `megabytes` is its size.
    """

    repository: str
    megabytes: int

    @property
    def page(self) -> str:
        """The repository's page, without ``https://``."""
        return f"huggingface.co/{self.repository}"

    @property
    def url(self) -> str:
        """The file itself."""
        return f"https://{self.page}/resolve/main/model.safetensors"


@dataclass(frozen=True)
class Backbone:
    """A pretrained network without its classifier.

    Parameters
    ----------
    name : str
        Its name in settings.
    size : tuple of int
        (height, width) in pixels of the images that its weights were trained on.
    parameters : int
        Moving means and variances included; 0 for a user's own file.
    licence : str
        Of the weights, as an SPDX identifier.
    weights_source : str
    scaling : str
        How pixels of 0-255 are scaled inside the network.
    stages : tuple of Stage
        Empty for a user's own file, whose stages are found when it is built.
    top_width : int
        Channels of its last layer, whose means are features, too.
    min_size : int
        The smallest height or width in pixels that it accepts.
    cuts : tuple of str
        Recommended cut layers.
    builder : str
        The function of ``keras.applications`` that builds it; empty for others.
    published : PublishedFile, optional
        Its ImageNet weights, where Keras downloads them.
    file : pathlib.Path, optional
        The user's own Keras file.
    fixed_size : bool
        Whether that file accepts images of `size` only.
    size_step : int
        Height and width are multiples of it: the side of a patch in pixels, or 1.
    required_file : RequiredFile, optional
        The weights file to be given as `weights`, where neither kindsight nor Keras has any.
    """

    name: str
    size: tuple[int, int]
    parameters: int
    licence: str
    weights_source: str
    scaling: str
    stages: tuple[Stage, ...]
    top_width: int
    min_size: int = SIZE_RANGE[0]
    cuts: tuple[str, ...] = ()
    builder: str = ""
    published: PublishedFile | None = None
    file: Path | None = None
    fixed_size: bool = False
    size_step: int = 1
    required_file: RequiredFile | None = None

    def check_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the (height, width) in pixels; SettingsError if the backbone cannot have it."""
        if self.fixed_size and tuple(size) != self.size:
            raise SettingsError(
                f"{self.file} accepts images of {self.size[0]} x {self.size[1]} pixels only; "
                f"got {size!r}."
            )
        height, width = check_size(size, self.min_size)
        if height % self.size_step or width % self.size_step:
            raise SettingsError(
                f"{self.name} accepts heights and widths that are multiples of {self.size_step} "
                f"pixels; got {size!r}. Use {self._near(height, width)}."
            )
        return height, width

    def _near(self, height: int, width: int) -> str:
        """Return the nearest sizes that are multiples of the step, as they are typed."""
        below = tuple(side // self.size_step * self.size_step for side in (height, width))
        above = tuple(-(-side // self.size_step) * self.size_step for side in (height, width))
        return " or ".join(
            f"{sides[0]}" if sides[0] == sides[1] else f"{sides[0]} x {sides[1]}"
            for sides in (below, above)
            if min(sides) >= self.min_size and max(sides) <= SIZE_RANGE[1]
        )

    def layout(self) -> FeatureLayout:
        """Return the layout of the features: the statistics of each stage, then the top.

        SettingsError for a user's own file, whose stages are known only once it is built.
        """
        if not self.stages:
            raise SettingsError(f"The features of {self.name} are known only once it is built.")
        return make_layout(self.stages, self.top_width)


def make_layout(stages: tuple[Stage, ...], top_width: int) -> FeatureLayout:
    """Return the layout of the statistics of some stages, followed by the top."""
    widths = [
        (f"{stage.name}_{statistic}", stage.channels)
        for stage in stages
        for statistic in stage.statistics
    ]
    blocks: list[FeatureBlock] = []
    for name, width in [*widths, (TOP, top_width)]:
        start = blocks[-1].stop if blocks else 0
        blocks.append(FeatureBlock(name, start, start + width))
    return FeatureLayout(tuple(blocks))


def check_size(size: tuple[int, int], min_size: int = SIZE_RANGE[0]) -> tuple[int, int]:
    """Return the (height, width) in pixels; SettingsError unless both are within the range."""
    max_size = SIZE_RANGE[1]
    try:
        height, width = (int(side) for side in size)
        valid = (height, width) == tuple(size)
        valid = valid and min_size <= min(height, width) and max(height, width) <= max_size
    except (TypeError, ValueError, OverflowError):
        valid = False
    if not valid:
        raise SettingsError(
            f"A backbone's size must be (height, width), each of {min_size} to {max_size} pixels; "
            f"got {size!r}."
        )
    return height, width
