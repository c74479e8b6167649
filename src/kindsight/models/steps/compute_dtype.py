"""In which numbers a network's convolutions are multiplied while it is trained.

bfloat16 is a float32 with 8 instead of 24 binary digits (Kalamkar et al. 2019, arXiv:1905.12322).
Some processors multiply tiles of them and add up in float32 by instructions of their own (AMX), at
more than twice the rate of float32; those that only multiply pairs (AVX512_BF16) were seen to take
longer than with float32, 1.4 times as long for a step above a cut. Weights, updates, dense layers,
losses and everything that is measured stay in float32; pixels are whole numbers to 255, which
bfloat16 holds exactly.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["COMPUTE_DTYPES", "choose_compute_dtype", "has_fast_bfloat16", "multiplying"]

COMPUTE_DTYPES = ("auto", "float32", "bfloat16")
"""What can be asked for; ``"auto"`` is bfloat16 where the processor is faster with it."""

# As Linux names the instructions of x86 that multiply bfloat16 faster.
FLAGS = frozenset({"amx_bf16"})
CPUINFO = Path("/proc/cpuinfo")


def choose_compute_dtype(asked: str, *, batch_norm: bool) -> str:
    """Return ``"float32"`` or ``"bfloat16"``.

    Parameters
    ----------
    asked : str
        One of :data:`COMPUTE_DTYPES`.
    batch_norm : bool
        Whether the network has batch normalisation, which is always trained in float32.
    """
    if asked != "auto":
        return asked
    return "bfloat16" if has_fast_bfloat16() and not batch_norm else "float32"


def has_fast_bfloat16() -> bool:
    """Whether TensorFlow multiplies bfloat16 by the processor's own instructions."""
    # Without oneDNN TensorFlow would turn each number into a float32 first.
    if os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1") == "0":
        return False
    try:
        with CPUINFO.open(encoding="utf-8", errors="replace") as file:
            flags = next((line for line in file if line.startswith("flags")), "")
    except OSError:  # another system than Linux
        return False
    return not FLAGS.isdisjoint(flags.split())


@contextlib.contextmanager
def multiplying(model: Any, compute_dtype: str) -> Iterator[None]:
    """Trace the Conv2D layers of a Keras model in a compute dtype while the block runs.

    Those of one channel each would gain nothing.
    """
    if compute_dtype == "float32":
        yield
        return
    _set_policy(model, "mixed_bfloat16")
    try:
        yield
    finally:
        _set_policy(model, "float32")


def _set_policy(model: Any, policy: str) -> None:
    import keras

    for layer in model.layers:
        if type(layer).__name__ == "Conv2D":
            layer.dtype_policy = keras.DTypePolicy(policy)
