"""One built backbone and one Keras worker process for all tests of models."""

import pytest

from kindsight.models.backbones.build import ensure_backbone
from kindsight.models.worker.process import KerasProcess

SMALL = (64, 48)


@pytest.fixture(scope="session")
def keras_process():
    with KerasProcess() as process:
        yield process


@pytest.fixture(scope="session")
def built(keras_process, machine_cache):
    """Lite0 for small images, whose height and width differ."""
    return ensure_backbone("efficientnet-lite0", SMALL, machine_cache, process=keras_process)


@pytest.fixture(scope="session")
def images():
    from kindsight.models.runtime import make_images

    return make_images(4, SMALL)
