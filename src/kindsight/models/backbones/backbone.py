"""What is known of a backbone without building it: sizes, features, weights, licence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kindsight.errors import SettingsError
from kindsight.models.backbones.layout import FeatureBlock, FeatureLayout

__all__ = [
    "PROFILES",
    "SIZE_RANGE",
    "STATISTICS",
    "Backbone",
    "PublishedFile",
    "Stage",
    "check_size",
    "make_layout",
]

STATISTICS = ("mean", "max", "std")
"""Over all places of a map."""

PROFILES = tuple(f"{line}{word}" for line in ("row", "column") for word in ("std", "max", "min"))
"""Over the means of a map's rows, and of its columns: lines and bands stand out in them."""

# Of wider stages these would be more numbers than images have need of.
MOST_PROFILED = 256
SIZE_RANGE = (32, 1024)
"""Smallest and largest height or width in pixels that a backbone is built for."""

TOP = "top_mean"
"""The layer, and the block of features, of the last mean."""


@dataclass(frozen=True)
class Stage:
    """A layer whose statistics over space are features.

    Parameters
    ----------
    layer : str
        The layer's name.
    channels : int
        How many maps it gives.
    """

    layer: str
    channels: int

    @property
    def name(self) -> str:
        """What its blocks of features are called."""
        return self.layer.removesuffix("_out")

    @property
    def statistics(self) -> tuple[str, ...]:
        """Which statistics of its maps are features, in that order."""
        return (*STATISTICS, *PROFILES) if self.channels <= MOST_PROFILED else STATISTICS


@dataclass(frozen=True)
class PublishedFile:
    """A weights file that Keras downloads.

    Parameters
    ----------
    url : str
        Where from.
    digest : str
        MD5 or SHA-256, as Keras knows it; empty where it knows none.
    """

    url: str
    digest: str = ""

    @property
    def name(self) -> str:
        """The file's name, in Keras's own folder, too."""
        return self.url.rpartition("/")[2]

    @property
    def host(self) -> str:
        """Who sends it."""
        return self.url.split("/")[2]


@dataclass(frozen=True)
class Backbone:
    """A network without its classifier.

    Parameters
    ----------
    name : str
        As users write it.
    size : tuple of int
        (height, width) in pixels of the images that its weights were trained on.
    parameters : int
        Numbers in it, the running means and variances of its batch normalisations among them;
        0 where that is not known before it is loaded.
    licence : str
        Of the weights, as an SPDX identifier.
    weights_source : str
        Where the weights come from.
    scaling : str
        What it makes of pixels of 0-255, inside the network.
    stages : tuple of Stage
        The layers whose statistics over space are features; empty where they are found by rule
        when it is loaded.
    top_width : int
        How many maps its last layer gives, whose means are features, too.
    min_size : int
        The smallest height or width in pixels that it can take.
    cuts : tuple of str
        Layers after which it is best cut.
    builder : str
        The function of ``keras.applications`` that builds it; empty for others.
    published : PublishedFile, optional
        Its ImageNet weights, where Keras downloads them.
    file : pathlib.Path, optional
        The user's own Keras file that it is read from.
    fixed_size : bool
        Whether that file takes images of `size` alone.
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

    def check_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the (height, width) in pixels, if this backbone can be built for it.

        Raises
        ------
        SettingsError
            For anything but two whole numbers of pixels that it can take.
        """
        if self.fixed_size and tuple(size) != self.size:
            raise SettingsError(
                f"{self.file} takes images of {self.size[0]} x {self.size[1]} pixels alone. "
                f"Received: {size!r}."
            )
        return check_size(size, self.min_size)

    @property
    def top(self) -> str:
        """The layer of the last mean, whose numbers are features as they are."""
        return TOP

    def layout(self) -> FeatureLayout:
        """Compute the layout of the features: the statistics of each stage, then the top.

        Raises
        ------
        SettingsError
            For a user's own file, whose layers are known only when it has been loaded.
        """
        if not self.stages:
            raise SettingsError(f"{self.name}: the features of a file are known once it is built.")
        return make_layout(self.stages, self.top_width)


def make_layout(stages: tuple[Stage, ...], top_width: int) -> FeatureLayout:
    """Lay out the features of some stages and the last mean, one after the other."""
    parts = [
        (f"{stage.name}_{statistic}", stage.channels)
        for stage in stages
        for statistic in stage.statistics
    ]
    found: list[FeatureBlock] = []
    for name, width in [*parts, (TOP, top_width)]:
        start = found[-1].stop if found else 0
        found.append(FeatureBlock(name, start, start + width))
    return FeatureLayout(tuple(found))


def check_size(size: tuple[int, int], min_size: int = SIZE_RANGE[0]) -> tuple[int, int]:
    """Return the (height, width) in pixels, if a backbone can be built for it.

    Parameters
    ----------
    size : tuple of int
    min_size : int
        The smallest that this backbone can take.

    Raises
    ------
    SettingsError
        For anything but two whole numbers within the backbone's range.
    """
    high = SIZE_RANGE[1]
    try:
        height, width = (int(side) for side in size)
        fits = (height, width) == tuple(size) and min_size <= min(height, width)
        fits = fits and max(height, width) <= high
    except (TypeError, ValueError, OverflowError):
        fits = False
    if not fits:
        raise SettingsError(
            f"A backbone's size must be (height, width), each of {min_size} to {high} pixels. "
            f"Received: {size!r}."
        )
    return height, width
