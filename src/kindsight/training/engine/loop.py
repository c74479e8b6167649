"""The training loop: phases, epochs and steps, from the start or from a checkpoint.

It runs in the Keras worker process, but trains any :class:`Trainable`.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import DivergedError
from kindsight.models.steps.optimizers import Optimizer
from kindsight.models.worker.device import on_gpu
from kindsight.models.worker.serve import Connection
from kindsight.training.engine.batches import Batches, prefetch
from kindsight.training.engine.checkpoints import (
    Arrays,
    Checkpoint,
    CheckpointWriter,
    read_checkpoint,
)
from kindsight.training.engine.history import EpochRow, History
from kindsight.training.engine.plan import Phase, Plan

__all__ = [
    "EVALUATION_BATCH", "Loop", "StoppedError", "Trainable", "TrainingData", "job_checkpoint",
    "run_loop", "shard_count",
]  # fmt: skip

EVALUATION_BATCH = 64
# Least seconds between two events within an epoch.
EVENT_SECONDS = 0.2


class StoppedError(Exception):
    """The training was stopped, and its checkpoint is written."""


class Trainable(Protocol):
    """See :class:`~kindsight.models.steps.trainable.TrainableNetwork`."""

    def begin(
        self, optimizer: Optimizer, label_smoothing: float = 0.0, freeze: str | int = "none"
    ) -> None:
        """Start a phase with a new optimizer state."""

    def step(
        self,
        images: NDArray[np.uint8],
        targets: NDArray[np.float32],
        learning_rate: float,
        random_key: tuple[int, int],
    ) -> tuple[float, int]:
        """Train on a batch; return the sum of losses and the number of correct predictions."""

    def evaluate(self, images: NDArray[np.uint8], targets: NDArray[np.int64]) -> tuple[float, int]:
        """Return the sum of losses and the number of correct predictions."""

    def weights(self) -> Arrays:
        """Return copies of the weights."""

    def set_weights(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        """Restore weights."""

    def state(self) -> Arrays:
        """Return copies of the weights and the optimizer's state."""

    def set_state(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        """Restore a state; ValueError if it does not fit."""


@dataclass(frozen=True)
class TrainingData:
    """Training and validation images of a phase; the latter may be empty.

    `inputs` and the int64 (images,) `rows` and `targets` are as of :class:`.batches.Batches`.
    """

    inputs: NDArray[np.uint8]
    rows: NDArray[np.int64]
    targets: NDArray[np.int64]
    val_rows: NDArray[np.int64]
    val_targets: NDArray[np.int64]
    classes: int

    def batches(self, phase: Phase, seed: int) -> Batches:
        """Return the batches of a phase."""
        return Batches(
            self.inputs, self.rows, self.targets, self.classes, phase.batch_size, phase.augment,
            seed,
        )  # fmt: skip


@dataclass
class _Position:
    """How far the training is; stored in checkpoints."""

    phase: int = 0
    epoch: int = 0  # epochs done in the phase
    step: int = 0  # steps done in the current epoch
    seen: int = 0  # images of these steps, with their sum of losses and correct predictions
    loss: float = 0.0
    correct: int = 0
    seconds: float = 0.0

    def next_epoch(self) -> None:
        self.epoch += 1
        self.step = self.seen = self.correct = 0
        self.loss = self.seconds = 0.0


class Loop:
    """A training from its first step, or from a checkpoint, to its end.

    Parameters
    ----------
    data : TrainingData or sequence of TrainingData
        Of all phases, or one for each: the same images, as pixels or cached activations.
    network : Trainable
        New.
    key : str
        Identifies the training's checkpoints.
    send : callable
        Receives events as JSON values: ``{"event": "start" | "step" | "epoch", ...}`` with the
        arguments of the methods of :class:`.callbacks.TrainingCallback`.
    stop : threading.Event
        When set, the training stops after the current step.
    workers : int
        Threads that prepare batches.
    extra : mapping, optional
        JSON values to store in checkpoints for the caller.
    """

    def __init__(
        self,
        plan: Plan,
        data: TrainingData | Sequence[TrainingData],
        network: Trainable,
        *,
        seed: int,
        key: str,
        writer: CheckpointWriter,
        send: Callable[[dict[str, Any]], None],
        stop: threading.Event,
        workers: int,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self.plan, self.network = plan, network
        self.data = [data] * len(plan.phases) if isinstance(data, TrainingData) else list(data)
        self.seed, self.key, self.workers = seed, key, workers
        self._extra = dict(extra or {})
        self._deadline = math.inf
        self._writer, self._send, self._stop = writer, send, stop
        self._history = History(monitor=plan.monitor)
        self._position = _Position()
        self._best: Arrays = {}

    def run(self, checkpoint: Checkpoint | None = None, deadline: float | None = None) -> History:
        """Train; the network ends with the weights of the best or last epoch, as planned.

        A checkpoint that does not fit is ignored. `deadline`, of ``time.monotonic()``, ends the
        training also within an epoch, which is then validated. DivergedError if the loss becomes
        infinite or NaN before an epoch is complete; StoppedError if `stop` was set.
        """
        self._deadline = math.inf if deadline is None else deadline
        resumed = checkpoint is not None and self._resume(checkpoint)
        self._send({"event": "start", "epochs": self.plan.epochs, "done": len(self._history)})
        for row in self._history:
            self._send({"event": "epoch", **asdict(row)})
        with ThreadPoolExecutor(self.workers, thread_name_prefix="batches") as executor:
            while not self._finished():
                phase = self.plan.phases[self._position.phase]
                if not resumed:
                    self._begin(phase)
                resumed = False
                self._train(phase, executor)
        if deadline is not None and len(self._history):
            # A Ctrl-C while the files are written repeats only that.
            self._save()
        if self._best and (self.plan.final_weights == "best" or self._diverged()):
            self.network.set_weights(self._best)
        return self._history

    def _begin(self, phase: Phase) -> None:
        self.network.begin(phase.update_rule(), phase.label_smoothing, phase.freeze)

    def _train(self, phase: Phase, executor: ThreadPoolExecutor) -> None:
        """Train the rest of a phase."""
        data, position = self.data[self._position.phase], self._position
        batches = data.batches(phase, self.seed)
        before = len(self._history) - position.epoch
        while (
            position.epoch < self.plan.end(position.phase)
            and not self._patience_exceeded(phase, before)
            and not self._is_late()
        ):
            self._epoch(phase, batches, executor)
            diverged = self._diverged()
            if diverged:
                position.phase = len(self.plan.phases)
            self._save(when_due=True)
            if diverged:
                return
        self._position = _Position(phase=position.phase + 1)

    def _epoch(self, phase: Phase, batches: Batches, executor: ThreadPoolExecutor) -> None:
        """Train the rest of an epoch, and validate it."""
        position, epoch, steps = self._position, len(self._history) + 1, len(batches)
        order = batches.order(epoch)
        sent, sent_images = time.monotonic(), position.seen
        begun = sent - position.seconds
        rate = 0.0
        for batch in prefetch(
            lambda step: batches.make(epoch, step, order), position.step, steps, executor
        ):
            rate = phase.learning_rate_at(position.epoch * steps + position.step, steps)
            loss, correct = self.network.step(batch.images, batch.targets, rate, batch.random_key)
            position.step += 1
            position.seen += len(batch.images)
            position.loss += loss
            position.correct += correct
            now = time.monotonic()
            position.seconds = now - begun
            if now - sent >= EVENT_SECONDS or position.step == steps:
                speed = (position.seen - sent_images) / max(now - sent, 1e-9)
                sent, sent_images = now, position.seen
                self._send_step(phase, epoch, steps, speed)
            if self._stop.is_set():
                self._save()
                raise StoppedError
            if self._is_late():
                break
            self._save(when_due=True)
        if not rate:  # all steps of the epoch were done before the training was stopped
            rate = phase.learning_rate_at((position.epoch + 1) * steps - 1, steps)
        val_loss, val_accuracy = self._validate()
        row = EpochRow(
            epoch, phase.name, time.monotonic() - begun, rate, position.loss / position.seen,
            position.correct / position.seen, val_loss, val_accuracy,
        )  # fmt: skip
        history = self._history.with_row(row)
        if history.best_epoch == epoch and not row.diverged:
            weights = self.network.weights()
            if all(np.isfinite(array).all() for array in weights.values()):
                self._best = weights
            else:  # The last step made them NaN, and without validation no loss shows it.
                row = replace(row, loss=math.nan)
                history = self._history.with_row(row)
        if row.diverged and not self._best:
            self._writer.discard()
            raise DivergedError(history.divergence())
        self._history = history
        position.next_epoch()
        self._send({"event": "epoch", **asdict(row)})

    def _send_step(self, phase: Phase, epoch: int, steps: int, speed: float) -> None:
        position = self._position
        event = {
            "event": "step", "phase": phase.name, "epoch": epoch, "step": position.step,
            "steps": steps, "loss": position.loss / position.seen,
            "accuracy": position.correct / position.seen, "images_per_second": speed,
        }  # fmt: skip
        self._send(event)

    def _validate(self) -> tuple[float | None, float | None]:
        """Return mean loss and accuracy of the validation images; None without any."""
        data = self.data[self._position.phase]
        rows, targets = data.val_rows, data.val_targets
        if not len(rows):
            return None, None
        loss, correct = 0.0, 0
        for start in range(0, len(rows), EVALUATION_BATCH):
            batch = slice(start, start + EVALUATION_BATCH)
            found = self.network.evaluate(data.inputs[rows[batch]], targets[batch])
            loss, correct = loss + found[0], correct + found[1]
            self._send({"event": "alive"})
        return loss / len(rows), correct / len(rows)

    def _patience_exceeded(self, phase: Phase, before: int) -> bool:
        """Whether early stopping ends the phase, which began after `before` epochs."""
        best = self._history.best_epoch
        if phase.patience is None or best is None or self.plan.ends is not None:
            return False
        return len(self._history) - max(best, before) >= phase.patience

    def _diverged(self) -> bool:
        return len(self._history) > 0 and self._history.rows()[-1].diverged

    def _is_late(self) -> bool:
        return time.monotonic() > self._deadline

    def _finished(self) -> bool:
        return self._position.phase >= len(self.plan.phases) or self._is_late()

    def _save(self, *, when_due: bool = False) -> None:
        if when_due and not self._writer.due:
            return
        numbers = {
            **self._extra,
            "position": asdict(self._position),
            "history": [asdict(row) for row in self._history],
        }
        arrays = {f"now/{name}": value for name, value in self.network.state().items()}
        arrays |= {f"best/{name}": value for name, value in self._best.items()}
        self._writer.write(Checkpoint(self.key, numbers, arrays), now=not when_due)

    def _resume(self, checkpoint: Checkpoint) -> bool:
        """Restore a checkpoint; return whether it is within a phase."""
        try:
            rows = [EpochRow(**row) for row in checkpoint.numbers["history"]]
            history = History(rows, self.plan.monitor)
            position = _Position(**checkpoint.numbers["position"])
            phase = self.plan.phases[min(position.phase, len(self.plan.phases) - 1)]
            best = _without_prefix(checkpoint.arrays, "best/")
            shapes = {name: value.shape for name, value in self.network.weights().items()}
            if best and shapes != {name: value.shape for name, value in best.items()}:
                return False
            self._begin(phase)
            self.network.set_state(_without_prefix(checkpoint.arrays, "now/"))
        except (KeyError, TypeError, ValueError):
            return False
        self._history, self._position, self._best = history, position, best
        return position.phase < len(self.plan.phases)


def _without_prefix(arrays: Arrays, prefix: str) -> Arrays:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def job_checkpoint(job: dict[str, Any]) -> Checkpoint | None:
    """Return the checkpoint from which a job resumes, if any."""
    path = job["checkpoint"]
    return None if path is None else read_checkpoint(Path(path), job["key"])


def shard_count(checkpoint: Checkpoint | None, cores: int) -> int:
    """Return the checkpoint's number of shards, as another rounds differently, or one per core.

    A GPU computes whole batches.
    """
    if on_gpu():
        return 1
    known = 0 if checkpoint is None else int(checkpoint.numbers.get("shards", 0))
    return known if known > 0 else cores


def run_loop(
    job: dict[str, Any],
    line: Connection,
    plan: Plan,
    data: TrainingData | Sequence[TrainingData],
    network: Trainable,
    *,
    extra: dict[str, Any],
    checkpoint: Checkpoint | None,
    deadline: float | None = None,
) -> None:
    """Train as a job of the Keras worker process; see :class:`Loop` and :meth:`Loop.run`."""
    path = None if job["checkpoint"] is None else Path(job["checkpoint"])
    with CheckpointWriter(path, job["checkpoint_seconds"]) as writer:
        loop = Loop(
            plan, data, network, seed=job["seed"], key=job["key"], writer=writer, send=line.send,
            stop=line.stop, workers=job["workers"], extra=extra,
        )  # fmt: skip
        loop.run(checkpoint, deadline)
    line.send({"event": "saving"})
