"""Where the weights of a backbone come from: published, random, or a file of the user's.

The networks of ``keras.applications`` have their ImageNet weights on a server, from which Keras's
own downloader gets them, once: only where the user chose such a network, and it is said before.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from kindsight.errors import KindsightError, SettingsError, WeightsError
from kindsight.models.backbone import Backbone
from kindsight.models.weights import IMAGENET_WEIGHTS, find_imagenet_weights, weights_digest

__all__ = [
    "WEIGHTS",
    "check_weights",
    "describe_weights",
    "download_sentence",
    "fetch",
    "is_here",
    "keras_folder",
    "require_weights",
    "source_digest",
]

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
        return _digest(f"{backbone.published.name} {backbone.published.digest}")
    return _digest(f"random {seed}") if weights == "none" else weights_digest(weights)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def describe_weights(backbone: Backbone, weights: str) -> str:
    """Say in a few words which weights these are."""
    if backbone.file is not None:
        return f"weights of {backbone.file.name}"
    words = {"imagenet": "ImageNet weights", "none": "random weights"}
    return words.get(weights) or f"weights of {Path(weights).name}"


def download_sentence(backbone: Backbone, weights: str) -> str | None:
    """Say what would be downloaded, from whom and how large; None where nothing would be."""
    published = backbone.published
    if weights != "imagenet" or published is None or (keras_folder() / published.name).is_file():
        return None
    return (
        f"The ImageNet weights of {backbone.name} are not on this machine: Keras downloads "
        f"{published.name} ({megabytes(backbone)}) from {published.host}, once."
    )


def is_here(backbone: Backbone) -> bool:
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
