"""The folder of the experiments, and their time: used, left, and needed by an experiment."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kindsight.errors import UsageError
from kindsight.files import write_json
from kindsight.runs.settings import TrainSettings
from kindsight.training.frozen.settings import FrozenTrainer
from kindsight.training.network.settings import EpochTrainer, NetworkTrainer

__all__ = ["LOCK_FILE", "Timer", "claimed", "improve_folder", "work", "write_state"]

STATE_FILE, LOCK_FILE = "state.json", ".lock"
MAX_STATE_BYTES = 1 << 20


def improve_folder(run: Path) -> Path:
    """Return the folder of the experiments on a run."""
    return run.with_name(f"{run.name}-improve")


@contextmanager
def claimed(folder: Path, settings: TrainSettings, any_model: bool) -> Iterator[float]:
    """Lock the folder while the block runs; yield the seconds used before.

    UsageError if another process uses it, or it belongs to other settings.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK_FILE)
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(f"{folder} is in use by another process.") from None
    except OSError as error:
        raise UsageError(
            f"Cannot write to {folder}: {error.strerror}. Choose another `folder`."
        ) from error
    try:
        names = {path.name for path in folder.iterdir()} - {LOCK_FILE}
        state = _read_state(folder)
        if state is None and names:
            raise UsageError(
                f"{folder} contains files that do not belong to experiments. Choose another "
                "`folder`."
            )
        if state is not None and state.get("settings") != _plain(settings, any_model):
            raise UsageError(
                f"{folder} has experiments with other settings. Choose another `folder`, or give "
                "the same options to continue them."
            )
        write_state(folder, settings, any_model, 0.0 if state is None else state["seconds"])
        yield 0.0 if state is None else float(state["seconds"])
    finally:
        lock.release()


def _plain(settings: TrainSettings, any_model: bool) -> Any:
    return json.loads(json.dumps({**settings.to_dict(), "any_model": any_model}, default=list))


def write_state(folder: Path, settings: TrainSettings, any_model: bool, used: float) -> None:
    """Store the settings and the seconds used."""
    write_json(
        folder / STATE_FILE,
        {"settings": _plain(settings, any_model), "seconds": round(used, 3)},
    )


def _read_state(folder: Path) -> dict[str, Any] | None:
    """Return the state of interrupted experiments; None if there is none, or it is damaged."""
    try:
        with (folder / STATE_FILE).open("rb") as file:
            state = json.loads(file.read(MAX_STATE_BYTES))
        return {"settings": state["settings"], "seconds": float(state["seconds"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


# Work per training image in addition to its multiplications: reading, augmentation, overhead of a
# step.
IMAGE_WORK = 2e6
# Fraction of an estimate that the next measurement replaces.
UPDATE = 0.5


class Timer:
    """The time of a search, and the measured speed of trainings.

    Parameters
    ----------
    seconds : float
        The budget.
    used : float
        Seconds used before an interruption.
    clock : callable
        Returns seconds.

    Attributes
    ----------
    unknown : float
        Estimate in seconds for a model that has not been trained yet.
    """

    def __init__(
        self, seconds: float, used: float = 0.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.seconds, self.unknown = seconds, 0.0
        self._clock, self._begun = clock, clock() - used
        self._rates: dict[str, float] = {}

    @property
    def used(self) -> float:
        """Seconds used so far."""
        return self._clock() - self._begun

    @property
    def left(self) -> float:
        """Seconds left; negative once the budget is exceeded."""
        return self.seconds - self.used

    def part(self, seconds: float) -> Timer:
        """Return a timer for a part of the budget, with the same speeds."""
        found = Timer(max(0.0, min(seconds, self.left)), clock=self._clock)
        found.unknown, found._rates = self.unknown, self._rates
        return found

    def learn(self, settings: TrainSettings, images: int, seconds: float) -> None:
        """Record the duration of a training."""
        kind = _kind(settings)
        rate = seconds / work(settings, images)
        before = self._rates.get(kind)
        self._rates[kind] = rate if before is None else before + UPDATE * (rate - before)

    def estimate(self, settings: TrainSettings, images: int) -> float:
        """Return the estimated seconds of a training.

        If none of its kind has been run, it is the training's own time budget, or else `unknown`.
        """
        rate = self._rates.get(_kind(settings))
        if rate is not None:
            return rate * work(settings, images)
        trainer = settings.training()
        budget = trainer.budget_seconds if isinstance(trainer, FrozenTrainer) else None
        return self.unknown if budget is None else budget


def work(settings: TrainSettings, images: int) -> float:
    """Return the work of a training, in units that are comparable within one kind of training."""
    trainer = settings.training()
    if not isinstance(trainer, EpochTrainer):
        return 1.0
    passes = float(images * sum(phase.epochs for phase in trainer.plan().phases))
    if not isinstance(trainer, NetworkTrainer):
        return passes
    multiplications, channels = 0, 3
    for row in trainer.network().layers(2):
        if row.name.startswith("conv"):
            multiplications += 9 * channels * prod(row.output)
            channels = row.output[-1]
    return passes * (multiplications + IMAGE_WORK)


def _kind(settings: TrainSettings) -> str:
    trainer, tuned = settings.training(), ""
    if isinstance(trainer, FrozenTrainer):
        tuned = f" {trainer.fine_tune_mode} {trainer.budget}"
    return f"{type(trainer).__name__} {settings.model}{tuned}"
