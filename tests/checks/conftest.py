from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from check_images import context_of

from kindsight.checks import CheckContext

MakeContext = Callable[[Mapping[str, "bytes | np.ndarray"]], CheckContext]


@pytest.fixture
def make_context(tmp_path: Path) -> MakeContext:
    """Return a function that writes class folders and returns their measured context."""

    def of(files: Mapping[str, bytes | np.ndarray]) -> CheckContext:
        return context_of(tmp_path / "photos", tmp_path / "cache", files)

    return of
