"""What the tests of models share: one built backbone, and one process with Keras."""

import pytest

from kindsight.models.build import ensure_backbone
from kindsight.models.keras_process import KerasProcess

SMALL = (64, 48)


@pytest.fixture(scope="session")
def keras_process():
    with KerasProcess() as process:
        yield process


@pytest.fixture(scope="session")
def built(keras_process, tmp_path_factory):
    """Lite0 for small pictures, higher than wide so that the two cannot be mistaken."""
    cache = tmp_path_factory.mktemp("cache")
    return ensure_backbone("efficientnet-lite0", SMALL, cache, process=keras_process)


@pytest.fixture(scope="session")
def pictures():
    from kindsight.models.convert import make_pictures

    return make_pictures(4, SMALL)
