from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from check_images import context_of

from kindsight.checks import CheckContext

Look = Callable[[Mapping[str, "bytes | np.ndarray"]], CheckContext]


@pytest.fixture
def look(tmp_path: Path) -> Look:
    """Return a function that writes class folders and gives what checks see of them."""

    def of(files: Mapping[str, bytes | np.ndarray]) -> CheckContext:
        return context_of(tmp_path / "photos", tmp_path / "cache", files)

    return of
