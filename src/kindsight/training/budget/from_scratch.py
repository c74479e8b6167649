"""A network from scratch as a candidate within a budget: trials, training, acceptance.

The trials decide whether it is trained: two to four short trainings of a narrow network, each
twice as long as the one before, predict its log loss at the end of the budget. It is accepted by
the same rule as a fine-tuned network, on the same validation images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.properties import typical_sides
from kindsight.errors import DatasetError, DivergedError
from kindsight.models.networks.small_cnn import default_filters
from kindsight.training.budget.plan import is_default_backbone, seconds_left
from kindsight.training.budget.scratch_plan import (
    FILTERS,
    MEASURED_IMAGES,
    Trial,
    choose_filters,
    fits_epoch,
    is_candidate,
    needs_another,
    planned_epochs,
    predict_log_loss,
    trial_rows,
    trial_seconds,
)
from kindsight.training.common import class_targets
from kindsight.training.engine.callbacks import notify_interrupt
from kindsight.training.engine.checkpoints import CHECKPOINT_FILE
from kindsight.training.fine_tuning.state import DECISIONS_FILE, FineTuningState
from kindsight.training.fine_tuning.train import ENDED, StopNow, compare, keep_frozen
from kindsight.training.frozen.fitted import FittedFrozenHead
from kindsight.training.network.fit import EpochRecorder, NetworkImages, prepare_network
from kindsight.training.network.fitted import FittedNetwork
from kindsight.training.network.settings import MODERN, NetworkTrainer, input_size, preset_settings
from kindsight.training.protocols import ReportSections

__all__ = ["FittedFromScratch", "try_from_scratch"]

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class FittedFromScratch(FittedNetwork):
    """A network from scratch that a budget preferred to the frozen head.

    Parameters
    ----------
    choice : str
        What was compared.
    """

    choice: str = ""

    def describe(self) -> dict[str, str]:
        """Return the rows of the summary: the network, its training, and why it was chosen."""
        return {**super().describe(), "chosen": self.choice}

    def report_sections(self) -> ReportSections:
        """Return the details of the training, and why the network was chosen."""
        sections = super().report_sections()
        return replace(sections, details={**sections.details, "Chosen": self.choice})

    def clear_away(self) -> None:
        """Delete the files for resuming: the bundle has everything else."""
        super().clear_away()
        self.keras.with_name(DECISIONS_FILE).unlink(missing_ok=True)


def try_from_scratch(
    state: FineTuningState, flips: Sequence[int], own: Any
) -> FittedFromScratch | FittedFrozenHead | None:
    """Try a network from scratch, and train it if it is expected to be better.

    Parameters
    ----------
    state : FineTuningState
        With a budget; its notes receive the outcome.
    flips : sequence of int
        Flips that preserve the class: indices of :data:`kindsight.models.backbones.tta.FLIPS`.
    own : tempfile.TemporaryDirectory, optional
        The state's folder, where it belongs to the result.

    Returns
    -------
    FittedFromScratch or FittedFrozenHead or None
        The network; the head, where the network took the time and is not clearly better; None
        where it was not trained.
    """
    fitted, before = state.fitted, state.decisions().get("scratch")
    left = seconds_left(state)
    assert left is not None
    if before is False or not is_default_backbone(fitted.training):
        return None
    if before is None:
        sides = typical_sides(fitted.dataset)
        if sides is None or not is_candidate(sides[0], len(state.rows), left):
            state.decide(scratch=False)
            return None
    with state.timed("network from scratch"):
        trainer = _trainer(fitted, flips)
        images = prepare_network(trainer, fitted.dataset, state.progress)
        try:
            if len(images.dataset) != len(fitted.dataset):
                raise DatasetError(
                    "Some images disappeared during training. Restore them, or run the command "
                    "again."
                )
            candidate = _Candidate(state, images)
            plan = _valid_plan(before) or candidate.plan()
            state.decide(scratch=plan or False)
            network = None if plan is None else candidate.train(plan[0], plan[1], own)
        except BaseException:
            images.close()
            raise
        if network is None:
            images.close()
            return None
        return _accept(state, network, own)


def _trainer(fitted: FittedFrozenHead, flips: Sequence[int]) -> NetworkTrainer:
    """Return the settings of the network that is tried."""
    frozen = fitted.training
    settings = preset_settings({"model": "small-cnn", "preset": MODERN})
    size = input_size(fitted.dataset)
    settings["augment"] = {
        **settings["augment"], "horizontal_flip": 1 in flips, "vertical_flip": 2 in flips,
    }  # fmt: skip
    return NetworkTrainer(
        **{**settings, "filters": default_filters((size, size), FILTERS[0])},
        size=size, resize=frozen.resize, class_weight=frozen.class_weight, seed=frozen.seed,
        workers=frozen.workers, cache=frozen.cache, value_range=frozen.value_range,
        device=frozen.device,
    )  # fmt: skip


def _valid_plan(stored: Any) -> list[int] | None:
    """Return filters and epochs of a decisions file; None where they are not valid."""
    valid = (
        isinstance(stored, list)
        and len(stored) == 2
        and stored[0] in FILTERS
        and type(stored[1]) is int
        and stored[1] >= 1
    )
    return stored if valid else None


class _Candidate:
    """The network from scratch in one fine-tuning: its trials and its training."""

    def __init__(self, state: FineTuningState, images: NetworkImages) -> None:
        self._state, self._images = state, images
        self._targets = class_targets(images.dataset[state.rows], state.fitted.classes)

    def plan(self) -> list[int] | None:
        """Return filters and epochs for the time left; None if the head is likely to be better."""
        try:
            return self._plan()
        except DivergedError:
            self._state.notes.append("a network from scratch diverged")
            return None

    def _plan(self) -> list[int] | None:
        state, left = self._state, self._left()
        rate = self._measure_rate()
        head = compare(state).before.log_loss
        trials: list[Trial] = []
        for seconds in trial_seconds(left):
            rows, epochs = trial_rows(
                state.rows, self._targets, rate, seconds, state.fitted.training.seed
            )
            trials.append(Trial(len(rows) * epochs, self._try(rows, epochs)))
            now = self._left()
            if not fits_epoch(len(state.rows), rate, now):
                state.notes.append("the budget leaves no time for a network from scratch")
                return None
            images = planned_epochs(len(state.rows), rate, now) * len(state.rows)
            expected = predict_log_loss(trials[-2:], images)
            if not needs_another(trials, expected, head, len(state.fitted.classes)):
                break
        if not expected < head:
            state.notes.append(
                f"a network from scratch was tried on {trials[-1].images:,} images and not trained "
                f"further: its expected log loss is {expected:.3f}, that of the frozen head "
                f"{head:.3f}"
            )
            return None
        filters = choose_filters(len(state.rows), rate, now)
        if filters != FILTERS[0]:
            rate = self._measure_rate(filters)
        return [filters, planned_epochs(len(state.rows), rate, self._left())]

    def train(self, filters: int, epochs: int, own: Any) -> FittedNetwork | None:
        """Train within the time left; in a run the best epoch so far counts after Ctrl-C."""
        state = self._state
        images = replace(self._images, training=self._with(filters, epochs))
        arguments: dict[str, Any] = {
            "keras": state.keras, "folder": state.folder, "progress": state.progress,
        }  # fmt: skip
        given = state.fitted.classes, state.rows, state.validation
        try:
            return images.fit(
                *given, **arguments, callback=state.callback, seconds=max(1.0, self._left())
            )
        except DivergedError:
            state.notes.append("a network from scratch diverged")
            return None
        except KeyboardInterrupt:
            checkpoint = (state.folder / CHECKPOINT_FILE).exists()
            if own is not None or not checkpoint or state.keras.interrupted_twice:
                raise
        notify_interrupt(state.callback)
        try:
            return images.fit(*given, **arguments, seconds=0.0)
        except KeyboardInterrupt as second:
            raise StopNow from second

    def _left(self) -> float:
        left = seconds_left(self._state)
        assert left is not None
        return left

    def _with(self, filters: int, epochs: int) -> NetworkTrainer:
        training = self._images.training
        assert isinstance(training, NetworkTrainer)
        widths = default_filters(training.spec().size, filters)
        return replace(training, filters=widths, epochs=epochs)

    def _measure_rate(self, filters: int = FILTERS[0]) -> float:
        """Return the training speed of a network in images per second."""
        seed = self._state.fitted.training.seed
        rows, _ = trial_rows(self._state.rows, self._targets, MEASURED_IMAGES, 1.0, seed)
        return self._run(rows, np.zeros(0, np.int64), self._with(filters, 1))[1]

    def _try(self, rows: Rows, epochs: int) -> float:
        """Return the validation log loss of a short training."""
        # Label smoothing lowers probabilities until temperature scaling corrects them: the log loss
        # of a trial would not compare with that of the calibrated head.
        plain = replace(self._with(FILTERS[0], epochs), label_smoothing=0.0)
        recorder, _ = self._run(rows, self._state.validation, plain)
        losses = [row.val_loss for row in recorder.rows if row.val_loss is not None]
        return min(losses, default=float("inf"))

    def _run(
        self, rows: Rows, validation: Rows, training: NetworkTrainer
    ) -> tuple[EpochRecorder, float]:
        """Train without writing a network; return the epochs and the last measured speed."""
        state, images = self._state, replace(self._images, training=training)
        speeds = [1e-9]

        class Steps:
            """Notes the speed, and shows progress."""

            def on_step(self, **message: Any) -> None:
                speeds.append(message["images_per_second"])
                if state.progress is not None:
                    done = (message["epoch"] - 1) * message["steps"] + message["step"]
                    state.progress("scratch", done, training.epochs * message["steps"])

            def on_epoch(self, row: Any) -> None:
                """Do nothing."""

            def on_start(self, **message: Any) -> None:
                """Do nothing."""

        recorder = EpochRecorder(Steps(), None)  # type: ignore[arg-type]
        images.try_out(state.fitted.classes, rows, validation, state.keras, recorder)
        return recorder, speeds[-1]


def _accept(
    state: FineTuningState, network: FittedNetwork, own: Any
) -> FittedFromScratch | FittedFrozenHead:
    """Return the network where it is clearly better on the validation images, else the head."""
    if not len(network.history):  # Ctrl-C within the first epoch
        network.clear_away()
        network.stored.close()
        return keep_frozen(state, ENDED)
    found = compare(state, network)
    assert found.after is not None
    text = (
        f"network from scratch: {found.after.accuracy:.1%} accuracy against "
        f"{found.before.accuracy:.1%} of the frozen head on {found.before.images:,} validation "
        f"images (log loss {found.after.log_loss:.3f} against {found.before.log_loss:.3f})"
    )
    if found.accepted:
        values = {item.name: getattr(network, item.name) for item in fields(FittedNetwork)}
        return FittedFromScratch(**{**values, "own": own}, choice=f"{text}: accepted")
    network.clear_away()
    network.stored.close()
    state.notes.append(f"{text}: not accepted")
    return keep_frozen(state, "the network from scratch used up the time")
