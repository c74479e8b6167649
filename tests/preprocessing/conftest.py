"""Class folders for the tests of the drop-in, and filters for expected warnings."""

from __future__ import annotations

from pathlib import Path

import pytest
from side_by_side import write_class_folders


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ignore KerasTrapWarning except in the tests about warnings."""
    traps = pytest.mark.filterwarnings("ignore::kindsight.preprocessing._warnings.KerasTrapWarning")
    # Keras calls SciPy by a deprecated name.
    scipy = pytest.mark.filterwarnings("ignore:Please import `affine_transform`:DeprecationWarning")
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(scipy)
            if not {"traps", "messages"} & set(item.path.stem.split("_")):
                item.add_marker(traps)


@pytest.fixture(scope="session")
def class_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return two classes of 11 and 5 images in several formats, with subfolders and other files."""
    return write_class_folders(tmp_path_factory.mktemp("dropin") / "photos")
