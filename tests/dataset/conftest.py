from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def make_tree(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes small files by their relative paths; it returns the root."""

    def make(*names: str, root: str = "root") -> Path:
        for name in names:
            file = tmp_path / root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(name.encode("utf-8", "surrogateescape"))
        return tmp_path / root

    return make
