"""The table of targets."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from kindsight.errors import SettingsError
from kindsight.export.keras_formats import COREML_TARGET, ONNX_TARGET, SAVEDMODEL_TARGET
from kindsight.export.litert import (
    DYNAMIC_TARGET,
    FLOAT16_TARGET,
    FLOAT32_TARGET,
    INT8_TARGET,
)
from kindsight.export.openvino import OPENVINO_FLOAT16_TARGET, OPENVINO_TARGET
from kindsight.export.target import Exporter
from kindsight.export.web.target import WEB_TARGET

__all__ = ["TARGETS", "find_targets"]

_TARGETS: tuple[Exporter, ...] = (
    FLOAT32_TARGET,
    FLOAT16_TARGET,
    DYNAMIC_TARGET,
    INT8_TARGET,
    ONNX_TARGET,
    OPENVINO_TARGET,
    OPENVINO_FLOAT16_TARGET,
    SAVEDMODEL_TARGET,
    COREML_TARGET,
    WEB_TARGET,
)

TARGETS = {target.name: target for target in _TARGETS}
"""The targets by name, in the order of the help."""


def find_targets(names: str | Sequence[str]) -> tuple[Exporter, ...]:
    """Return targets by their names, each once; a text may have several, separated by commas.

    Raises
    ------
    SettingsError
        If a name is unknown, or there is none.
    """
    texts = [names] if isinstance(names, str) else list(names)
    wanted = [part.strip() for text in texts for part in str(text).split(",") if part.strip()]
    for name in wanted:
        if name not in TARGETS:
            near = difflib.get_close_matches(name, TARGETS, 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise SettingsError(f"`to` must be one of {', '.join(TARGETS)}; got {name!r}.{hint}")
    if not wanted:
        raise SettingsError(f"`to` must name at least one of {', '.join(TARGETS)}.")
    return tuple(TARGETS[name] for name in dict.fromkeys(wanted))
