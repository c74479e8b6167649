"""Images in class folders for the drop-in's tests: several formats, kinds and sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
from side_by_side import write_class_folders


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the traps be, where a test is not about them."""
    traps = pytest.mark.filterwarnings("ignore::kindsight.preprocessing._messages.KerasTrapWarning")
    # Of Keras's, not ours: it calls SciPy by an old name.
    scipy = pytest.mark.filterwarnings("ignore:Please import `affine_transform`:DeprecationWarning")
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(scipy)
            if "traps" not in item.path.name:
                item.add_marker(traps)


@pytest.fixture(scope="session")
def class_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 11 and 5 readable images, some in folders of folders, and other files."""
    return write_class_folders(tmp_path_factory.mktemp("dropin") / "photos")
