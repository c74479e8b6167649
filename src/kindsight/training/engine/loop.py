"""The loop: phases, epochs and steps, from wherever a checkpoint left off.

It runs in the process with Keras but knows nothing of it: what learns is a
:class:`~kindsight.models.steps.trainable.TrainableNetwork`, or anything with its methods.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kindsight.errors import SettingsError
from kindsight.models.worker.serve import Connection
from kindsight.training.engine.batches import Batches, ahead
from kindsight.training.engine.checkpoints import (
    Arrays,
    Checkpoint,
    CheckpointWriter,
    read_checkpoint,
)
from kindsight.training.engine.history import EpochRow, History
from kindsight.training.engine.plan import Phase, Plan
from kindsight.training.engine.trainable import (
    EVALUATION_BATCH,
    StoppedError,
    Trainable,
    TrainingData,
)

__all__ = [
    "Loop",
    "checkpoint_of",
    "run_loop",
    "shards_of",
]

# Seconds between two pieces of news from within an epoch.
NEWS_SECONDS = 0.2


@dataclass
class _Position:
    """How far the training is: what a checkpoint holds besides arrays."""

    phase: int = 0
    epoch: int = 0  # of the phase: how many of its epochs are done
    step: int = 0  # how many steps of the running epoch are done
    seen: int = 0  # the images in them, and what became of these
    loss: float = 0.0
    right: int = 0
    seconds: float = 0.0

    def next_epoch(self) -> None:
        """Go to the beginning of the next epoch."""
        self.epoch += 1
        self.step = self.seen = self.right = 0
        self.loss = self.seconds = 0.0


class Loop:
    """A training from its first step, or from a checkpoint, to its end.

    Parameters
    ----------
    plan : Plan
    data : TrainingData or sequence of TrainingData
        Of all phases, or of each one its own: the same images, otherwise given.
    learner : Trainable
        Newly made.
    seed : int
    key : str
        By which its checkpoints are known.
    writer : CheckpointWriter
    tell : callable
        Given news as JSON can hold it: ``{"event": "start" | "step" | "epoch", ...}``, with the
        arguments of the methods of :class:`.callback.TrainingCallback`.
    stop : threading.Event
        Set, it ends the training after the step under way.
    workers : int
        Threads that prepare batches.
    extra : mapping, optional
        Kept in checkpoints for whoever makes the learner.
    """

    def __init__(
        self,
        plan: Plan,
        data: TrainingData | Sequence[TrainingData],
        learner: Trainable,
        *,
        seed: int,
        key: str,
        writer: CheckpointWriter,
        tell: Callable[[dict[str, Any]], None],
        stop: threading.Event,
        workers: int,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self.plan, self.learner = plan, learner
        given = [data] * len(plan.phases) if isinstance(data, TrainingData) else list(data)
        self.data = given
        self.seed, self.key, self.workers = seed, key, workers
        self._extra = dict(extra or {})
        self._until = math.inf
        self._writer, self._tell, self._stop = writer, tell, stop
        self._history = History(monitor=plan.monitor)
        self._position = _Position()
        self._best: Arrays = {}

    def run(self, checkpoint: Checkpoint | None = None, until: float | None = None) -> History:
        """Train; the learner ends with the weights that the plan says are to be kept.

        Parameters
        ----------
        checkpoint : Checkpoint, optional
            Where to go on from; a checkpoint that does not fit is not used.
        until : float, optional
            When the training ends, of ``time.monotonic()``, wherever it is: the epoch under way
            is judged as it is then.

        Raises
        ------
        SettingsError
            Where the loss became infinite, or no number, in the first epoch.
        StoppedError
            Where `stop` was set.
        """
        self._until = math.inf if until is None else until
        resumed = checkpoint is not None and self._resume(checkpoint)
        self._tell({"event": "start", "epochs": self.plan.epochs, "done": len(self._history)})
        for row in self._history:
            self._tell({"event": "epoch", **asdict(row)})
        with ThreadPoolExecutor(self.workers, thread_name_prefix="batches") as executor:
            while not self._finished():
                phase = self.plan.phases[self._position.phase]
                if not resumed:
                    self._begin(phase)
                resumed = False
                self._train(phase, executor)
        if until is not None and len(self._history):
            # A Ctrl-C from here on, while files are written, is answered by doing that again.
            self._save()
        if self._best and (self.plan.final_weights == "best" or self._diverged()):
            self.learner.set_weights(self._best)
        return self._history

    def _begin(self, phase: Phase) -> None:
        self.learner.begin(phase.rule(), phase.label_smoothing, phase.freeze)

    def _train(self, phase: Phase, executor: ThreadPoolExecutor) -> None:
        """Train the rest of a phase."""
        data, position = self._data(), self._position
        batches = Batches(
            data.inputs, data.rows, data.targets, data.classes,
            phase.batch_size, phase.augment, self.seed,
        )  # fmt: skip
        first = len(self._history) - position.epoch
        while (
            position.epoch < phase.epochs
            and not self._had_enough(phase, first)
            and not self._is_late()
        ):
            self._epoch(phase, batches, executor)
            if self._diverged():
                position.phase = len(self.plan.phases)
                self._save(when_due=True)
                return
            self._save(when_due=True)
        self._position = _Position(phase=position.phase + 1)

    def _epoch(self, phase: Phase, batches: Batches, executor: ThreadPoolExecutor) -> None:
        """Train the rest of an epoch, and judge it."""
        position, epoch, steps = self._position, len(self._history) + 1, len(batches)
        order = batches.order(epoch)
        told, told_at = time.monotonic(), position.seen
        begun = told - position.seconds
        rate = 0.0
        for batch in ahead(
            lambda step: batches.make(epoch, step, order), position.step, steps, executor
        ):
            rate = phase.rate(position.epoch * steps + position.step, steps)
            loss, right = self.learner.step(batch.images, batch.targets, rate, batch.address)
            position.step += 1
            position.seen += len(batch.images)
            position.loss += loss
            position.right += right
            now = time.monotonic()
            position.seconds = now - begun
            if now - told >= NEWS_SECONDS or position.step == steps:
                speed = (position.seen - told_at) / max(now - told, 1e-9)
                told, told_at = now, position.seen
                self._tell_step(phase, epoch, steps, speed)
            if self._stop.is_set():
                self._save()
                raise StoppedError
            if self._is_late():
                break
            self._save(when_due=True)
        if not rate:  # all its steps were done before the training was stopped
            rate = phase.rate((position.epoch + 1) * steps - 1, steps)
        val_loss, val_accuracy = self._judge()
        row = EpochRow(
            epoch, phase.name, time.monotonic() - begun, rate, position.loss / position.seen,
            position.right / position.seen, val_loss, val_accuracy,
        )  # fmt: skip
        self._history = self._history.with_row(row)
        if self._history.best_epoch == epoch and math.isfinite(row.loss):
            self._best = self.learner.weights()
        position.next_epoch()
        self._tell({"event": "epoch", **asdict(row)})

    def _tell_step(self, phase: Phase, epoch: int, steps: int, speed: float) -> None:
        position = self._position
        self._tell(
            {
                "event": "step",
                "phase": phase.name,
                "epoch": epoch,
                "step": position.step,
                "steps": steps,
                "loss": position.loss / position.seen,
                "accuracy": position.right / position.seen,
                "images_per_second": speed,
            }
        )

    def _judge(self) -> tuple[float | None, float | None]:
        """Return mean loss and share right of the validation images, if there are any."""
        data = self._data()
        places, targets = data.val_rows, data.val_targets
        if not len(places):
            return None, None
        loss, right = 0.0, 0
        for start in range(0, len(places), EVALUATION_BATCH):
            part = slice(start, start + EVALUATION_BATCH)
            found = self.learner.evaluate(data.inputs[places[part]], targets[part])
            loss, right = loss + found[0], right + found[1]
            self._tell({"event": "alive"})
        return loss / len(places), right / len(places)

    def _data(self) -> TrainingData:
        """Return those of the phase under way."""
        return self.data[self._position.phase]

    def _had_enough(self, phase: Phase, first: int) -> bool:
        """Whether a phase's patience is over; `first` epochs were before it."""
        best = self._history.best_epoch
        if phase.patience is None or best is None:
            return False
        return len(self._history) - max(best, first) >= phase.patience

    def _diverged(self) -> bool:
        rows = self._history.rows()
        if not rows or math.isfinite(rows[-1].loss):
            return False
        if not self._best:
            raise SettingsError(
                "The training must not diverge. Received: a loss that became infinite, or no "
                f"number, in epoch {len(rows)}, at a learning rate of {rows[-1].learning_rate:g}. "
                "Give a lower --learning-rate; --find-learning-rate suggests one."
            )
        return True

    def _is_late(self) -> bool:
        return time.monotonic() > self._until

    def _finished(self) -> bool:
        return self._position.phase >= len(self.plan.phases) or self._is_late()

    # Going on --------------------------------------------------------------------------------

    def _save(self, *, when_due: bool = False) -> None:
        if when_due and not self._writer.due:
            return
        numbers = {
            **self._extra,
            "position": asdict(self._position),
            "history": [asdict(row) for row in self._history],
        }
        arrays = {f"now/{name}": value for name, value in self.learner.state().items()}
        arrays |= {f"best/{name}": value for name, value in self._best.items()}
        self._writer.write(Checkpoint(self.key, numbers, arrays), now=not when_due)

    def _resume(self, checkpoint: Checkpoint) -> bool:
        """Take a checkpoint up; say whether its phase goes on."""
        try:
            rows = [EpochRow(**row) for row in checkpoint.numbers["history"]]
            history = History(rows, self.plan.monitor)
            position = _Position(**checkpoint.numbers["position"])
            phase = self.plan.phases[min(position.phase, len(self.plan.phases) - 1)]
            best = _under(checkpoint.arrays, "best/")
            shapes = {name: value.shape for name, value in self.learner.weights().items()}
            if best and shapes != {name: value.shape for name, value in best.items()}:
                return False
            self._begin(phase)
            self.learner.set_state(_under(checkpoint.arrays, "now/"))
        except (KeyError, TypeError, ValueError):
            return False
        self._history, self._position, self._best = history, position, best
        return position.phase < len(self.plan.phases)


def _under(arrays: Arrays, start: str) -> Arrays:
    return {k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)}


# SECTION: A training as a job of the process with Keras: its checkpoint, and its loop.


def checkpoint_of(job: dict[str, Any]) -> Checkpoint | None:
    """Return where a job is to go on from; None for its beginning."""
    path = _path(job)
    return None if path is None else read_checkpoint(path, job["key"])


def shards_of(checkpoint: Checkpoint | None, cores: int) -> int:
    """Return in how many shards batches are computed: as before a stop, whatever cores there are.

    Sums are rounded differently with another number.
    """
    known = 0 if checkpoint is None else int(checkpoint.numbers.get("shards", 0))
    return known if known > 0 else cores


def run_loop(
    job: dict[str, Any],
    line: Connection,
    plan: Plan,
    data: TrainingData | Sequence[TrainingData],
    learner: Trainable,
    *,
    extra: dict[str, Any],
    checkpoint: Checkpoint | None,
    until: float | None = None,
) -> None:
    """Train, and say that what was learned is being written.

    Parameters
    ----------
    job : dict
        As the parent told it.
    line : Connection
        Where news go, and the wish to stop comes from.
    plan, data, learner, extra
        As :class:`.loop.Loop` takes them.
    checkpoint, until
        As :meth:`.loop.Loop.run` takes them.
    """
    with CheckpointWriter(_path(job), job["checkpoint_seconds"]) as writer:
        Loop(
            plan,
            data,
            learner,
            seed=job["seed"],
            key=job["key"],
            writer=writer,
            tell=line.send,
            stop=line.stop,
            workers=job["workers"],
            extra=extra,
        ).run(checkpoint, until)
    line.send({"event": "saving"})


def _path(job: dict[str, Any]) -> Path | None:
    return None if job["checkpoint"] is None else Path(job["checkpoint"])
