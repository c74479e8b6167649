"""The compute dtype of convolutions in training: float32 or bfloat16.

bfloat16 has 8 significant bits instead of float32's 24 (Kalamkar et al. 2019, arXiv:1905.12322).
Processors with AMX multiply it more than twice as fast as float32, accumulating in float32; with
AVX512_BF16 alone a training step took 1.4 times as long as with float32. Weights, updates, dense
layers, losses and evaluation stay float32. bfloat16 represents pixels 0-255 exactly.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kindsight.models.worker.device import may_use_gpu

__all__ = ["choose_compute_dtype", "computing_in", "has_fast_bfloat16"]

# Linux's names of x86 instructions that make bfloat16 faster than float32.
FLAGS = frozenset({"amx_bf16"})
CPUINFO = Path("/proc/cpuinfo")


def choose_compute_dtype(setting: str, *, batch_norm: bool, device: str = "cpu") -> str:
    """Return ``"float32"`` or ``"bfloat16"`` for a setting of these or ``"auto"``.

    ``"auto"`` is bfloat16 if the processor is faster with it and the network has no batch
    normalisation; float32 if the `device`, as of :mod:`kindsight.models.worker.device`, may be a
    GPU, many of which lack bfloat16.
    """
    if setting != "auto":
        return setting
    faster = has_fast_bfloat16() and not batch_norm and not may_use_gpu(device)
    return "bfloat16" if faster else "float32"


def has_fast_bfloat16() -> bool:
    """Whether TensorFlow computes bfloat16 with fast instructions of the processor."""
    # Without oneDNN TensorFlow converts bfloat16 to float32 first.
    if os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1") == "0":
        return False
    try:
        with CPUINFO.open(encoding="utf-8", errors="replace") as file:
            flags = next((line for line in file if line.startswith("flags")), "")
    except OSError:  # another system than Linux
        return False
    return not FLAGS.isdisjoint(flags.split())


@contextlib.contextmanager
def computing_in(compute_dtype: str, model: Any) -> Iterator[None]:
    """Trace a Keras model's Conv2D layers, which alone gain from it, in a compute dtype."""
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
