"""One process with Keras for all tests that train networks: starting it takes seconds."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from kindsight.models.worker.process import KerasProcess


class SharedProcess(KerasProcess):
    """Stays alive when a training is done with it."""

    def __exit__(self, kind, error, trace):
        if kind is not None and not isinstance(error, Exception):
            self.close(kill=True)


class SharedKeras(KerasProcess):
    """A worker that outlives a run."""

    def __exit__(self, *_):
        self.interrupted_twice = False

    def close_in_background(self):
        """Stay for the next run."""


@contextmanager
def shared_process():
    """Let all trainings of networks in this process use one child while the block runs."""
    process = SharedProcess(module="kindsight.training.engine.worker")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kindsight.training.network.settings.KerasProcess", lambda **_: process)
        yield process
    process.close()
