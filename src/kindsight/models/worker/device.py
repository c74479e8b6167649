"""The processor of the Keras worker process: the CPU, or an NVIDIA GPU by TensorFlow.

Device files show whether a GPU is visible, without TensorFlow. Only the worker process finds out
whether TensorFlow can use it, and reports that when it starts.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, TypeAlias

__all__ = [
    "Device",
    "choose_device",
    "device_environment",
    "device_faults",
    "hidden_by",
    "installed_fault",
    "may_use_gpu",
    "on_cpu",
    "on_gpu",
    "start_gpu",
    "visible_gpus",
]

Device: TypeAlias = Literal["auto", "cpu", "gpu"]

VISIBLE = "CUDA_VISIBLE_DEVICES"
# Set for a worker process that is to use a GPU.
WANTED = "KINDSIGHT_WORKER_GPU"
INSTALL = "pip uninstall -y tensorflow-cpu, then pip install 'kindsight[cuda]'"
_NAME = re.compile(r"Model:\s*(.+)")
_MAX_NAME_BYTES = 4096
_ROOT = Path("/")


def visible_gpus(root: Path | None = None) -> tuple[str, ...]:
    """Return the names of the NVIDIA GPUs that this process may use, without TensorFlow.

    TensorFlow uses CUDA on Linux only, and on Linux under Windows (WSL 2).
    `root` is the folder of ``dev`` and ``proc``; default: that of the system.
    """
    if platform.system() != "Linux" or hidden_by():
        return ()
    root = _ROOT if root is None else root
    found = sorted(path.name for path in root.glob("dev/nvidia[0-9]*") if path.name[6:].isdecimal())
    if not found:
        under_windows = (root / "dev/dxg").exists() and any(root.glob("usr/lib/wsl/lib/libcuda*"))
        return ("NVIDIA GPU",) if under_windows else ()
    names = [_name(path) for path in sorted(root.glob("proc/driver/nvidia/gpus/*/information"))]
    return tuple(names) if len(names) == len(found) else ("NVIDIA GPU",) * len(found)


def hidden_by() -> str:
    """Return the environment variable, with its value, that hides all GPUs; empty for none."""
    value = os.environ.get(VISIBLE)
    # CUDA ignores what follows the first invalid entry.
    hides = value is not None and value.split(",")[0].strip() in ("", "-1", "NoDevFiles")
    return f"{VISIBLE}={value}" if hides else ""


def _name(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            text = opened.read(_MAX_NAME_BYTES).decode("utf-8", "replace")
    except OSError:
        text = ""
    found = _NAME.search(text)
    return found[1].strip() if found else "NVIDIA GPU"


def installed_fault() -> str:
    """Return why the installed TensorFlow cannot use a GPU; empty if it might."""
    if importlib.util.find_spec("tensorflow") is None:
        return "TensorFlow is not installed. For a GPU: pip install 'kindsight[cuda]'."
    if _is_installed("tensorflow") or not _is_installed("tensorflow-cpu"):
        return ""
    return f"tensorflow-cpu has no CUDA. For a GPU: {INSTALL}."


def _is_installed(distribution: str) -> bool:
    from importlib import metadata

    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def may_use_gpu(device: str) -> bool:
    """Return whether a setting allows a GPU, one is visible, and TensorFlow might use it."""
    return device != "cpu" and bool(visible_gpus()) and not installed_fault()


def device_faults(device: str) -> list[str]:
    """Return an error text if the setting is ``"gpu"`` and certainly no GPU can be used."""
    if device != "gpu" or may_use_gpu(device):
        return []
    reason = installed_fault()
    if not visible_gpus():
        hidden = hidden_by()
        reason = "No NVIDIA GPU is visible: there is no /dev/nvidia0. Check nvidia-smi."
        if hidden:
            reason = f"{hidden} hides every GPU. Unset it."
        elif platform.system() != "Linux":
            reason = f"TensorFlow uses NVIDIA GPUs on Linux and WSL 2, not on {platform.system()}."
    return [f'A GPU cannot be used. {reason} Or use `device="cpu"`.']


def choose_device(device: str) -> tuple[bool, str]:
    """Return whether a worker should try a GPU, and a note where one is visible but not usable."""
    if device == "cpu" or not (found := visible_gpus()):
        return False, ""
    fault = installed_fault()
    return not fault, unused_note(found, fault) if fault else ""


def unused_note(found: tuple[str, ...], reason: str) -> str:
    """Return the sentences that say why the CPU was used in place of a GPU."""
    name = found[0] if found else "NVIDIA GPU"
    return f"The CPU was used, not the {name}: {reason} Choose the device cpu to hide this note."


def device_environment(gpu: bool) -> dict[str, str]:
    """Return the environment variables of a worker process on the GPU, or on the CPU alone."""
    return {WANTED: "1"} if gpu else {WANTED: "", VISIBLE: "-1"}


# In the worker process.
_gpu = ""


def on_gpu() -> bool:
    """Return whether this is a worker process that uses a GPU."""
    return bool(_gpu)


def start_gpu() -> dict[str, str]:
    """Let TensorFlow use the first GPU, where this worker process is to use one.

    Returns
    -------
    dict
        ``"gpu"``, the GPU's name, or ``"gpu_fault"``, why it cannot be used; empty for a worker
        on the CPU.
    """
    global _gpu  # noqa: PLW0603 - a process has one device
    if not os.environ.get(WANTED):
        return {}
    import tensorflow as tf

    if not tf.test.is_built_with_cuda():
        return {"gpu_fault": f"TensorFlow {tf.__version__} is built without CUDA. {INSTALL}."}
    try:
        gpus = tf.config.list_physical_devices("GPU")
        if not gpus:
            fault = (
                "TensorFlow finds no GPU; the CUDA libraries are missing, or do not fit the "
                "GPU's driver. Try: pip install 'kindsight[cuda]'."
            )
            return {"gpu_fault": fault}
        tf.config.set_visible_devices(gpus[:1], "GPU")
        # Other processes keep what memory this one does not need.
        tf.config.experimental.set_memory_growth(gpus[0], True)
        # Its significand of 10 bits would change features by a thousandth.
        tf.config.experimental.enable_tensor_float_32_execution(False)
        _try_convolution()
        details = tf.config.experimental.get_device_details(gpus[0])
    except Exception as error:  # TensorFlow has an error class for each of its libraries
        return {"gpu_fault": f"{type(error).__name__}: {str(error)[:200]}"}
    _gpu = str(details.get("device_name", "NVIDIA GPU"))
    return {"gpu": _gpu}


def _try_convolution() -> None:
    """Run a convolution, which raises an error if libraries or memory are missing."""
    import tensorflow as tf

    with tf.device("GPU:0"):
        tf.nn.conv2d(tf.ones((1, 8, 8, 3)), tf.ones((3, 3, 3, 4)), 1, "SAME").numpy()


def device_name() -> str:
    """Return TensorFlow's name of the device of this worker process."""
    return "GPU:0" if on_gpu() else "CPU:0"


def on_cpu(
    job: Callable[[dict[str, Any], Any], Mapping[str, Any]],
) -> Callable[[dict[str, Any], Any], dict[str, Any]]:
    """Return a job that a worker process on a GPU runs on the CPU.

    Networks are then built, converted and verified as on a machine without a GPU.
    """

    def run(values: dict[str, Any], connection: Any) -> dict[str, Any]:
        import tensorflow as tf

        with tf.device("CPU:0") if on_gpu() else nullcontext():
            return dict(job(values, connection))

    return run
