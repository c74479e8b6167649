"""Proof that a written ``.keras`` file holds a template's network and a head, bit for bit."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from kindsight.errors import AgreementError
from kindsight.models.heads import HeadLayers
from kindsight.models.keras_file import MEMBERS, WEIGHTS

__all__ = ["check_written"]


def check_written(template: Path, head: HeadLayers, written: Path) -> None:
    """Compare the weights of a written file with those it was made of.

    Parameters
    ----------
    template : pathlib.Path
        The backbone's ``.keras`` file, pixels to features.
    head : HeadLayers
        What was put behind it.
    written : pathlib.Path
        The result of :func:`.assemble.write_keras`.

    Raises
    ------
    AgreementError
        If any number differs, is missing, or is there too many.
    """
    expected, found = _arrays(template), _arrays(written)
    added = {name: array for name, array in found.items() if name not in expected}
    dense = [step for step in head.steps() if step.kind == "dense"]
    wanted = [array for step in dense for array in (step.kernel, step.bias)]
    same = expected.keys() <= found.keys() and all(
        _same(array, found[name]) for name, array in expected.items()
    )
    # Kernel and bias of each layer, in the order in which the layers were added.
    ordered = [added[name] for name in sorted(added, key=_order)]
    if not same or len(ordered) != len(wanted) or not all(map(_same, wanted, ordered)):
        raise AgreementError(
            f"{written} must hold the network of {template} and the fitted head, number for "
            "number. It does not. Delete the cache (kindsight cache clear) and train again."
        )


def _arrays(path: Path) -> dict[str, Any]:
    """Read all weights of a ``.keras`` file by their names in it."""
    import h5py

    with zipfile.ZipFile(path) as archive, archive.open(WEIGHTS) as member:
        content = member.read(MEMBERS[WEIGHTS] + 1)
    arrays: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            arrays[name] = item[()]

    with h5py.File(io.BytesIO(content), "r") as file:
        file.visititems(visit)
    return arrays


def _order(name: str) -> tuple[int, str]:
    """Sort ``layers/dense_2/vars/1`` by the layer's number, then by the variable's."""
    layer = name.split("/")[1]
    number = layer.rpartition("_")[2]
    return (int(number) if number.isdigit() else 0, name.rpartition("/")[2])


def _same(one: Any, other: Any) -> bool:
    return bool(np.array_equal(np.asarray(one), np.asarray(other), equal_nan=True))
