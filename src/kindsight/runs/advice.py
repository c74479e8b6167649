"""What a longer training could bring, at the end of one without a budget."""

from __future__ import annotations

from kindsight.dataset.properties import typical_sides
from kindsight.diagnosis.commands import train_command
from kindsight.report.format import percent
from kindsight.runs.settings import TrainSettings
from kindsight.training.budget.scratch_plan import MIN_IMAGES, SMALL
from kindsight.training.fine_tuning.state import MIN_VALIDATION_IMAGES
from kindsight.training.frozen.settings import FrozenTrainer
from kindsight.training.protocols import FittedModel

__all__ = ["hint_of"]

FINE_TUNING = "--budget 10m also fine-tunes the network, and uses the result if it is better"

HIGH_ACCURACY = 0.97
"""From this cross-validated accuracy of the frozen head on, little is left to gain."""


def hint_of(model: FittedModel, settings: TrainSettings, validation: int, run: str = "") -> str:
    """Return the hint on what a time budget could bring; empty where nothing could.

    Parameters
    ----------
    model : FittedModel
    settings : TrainSettings
    validation : int
        Number of validation images, which decide on what a budget brings.
    run : str
        The run folder, whose settings the command takes where they cannot be typed.
    """
    if not model.can_be_fine_tuned or validation < MIN_VALIDATION_IMAGES:
        return ""
    return _from_scratch(model, settings, run) or FINE_TUNING


def _from_scratch(model: FittedModel, settings: TrainSettings, run: str) -> str:
    """Return the hint where a network from scratch would probably do better; else empty."""
    trainer, images = model.training, len(model.rows)
    if not isinstance(trainer, FrozenTrainer):
        return ""
    accuracy = model.head.chosen.accuracy
    if images < MIN_IMAGES or accuracy >= HIGH_ACCURACY:
        return ""
    # It imports the code of fine-tuning.
    from kindsight.training.budget.plan import is_default_backbone

    if not is_default_backbone(trainer):
        return ""
    sides = typical_sides(model.dataset)
    if sides is None or sides[0] > SMALL:
        return ""
    command = train_command(settings.to_dict(), {"budget": "10m"}, run)
    return (
        f"the images are small ({sides[0]:.0f} pixels) and many ({images:,}), and the frozen head "
        f"has {percent(accuracy)} accuracy in cross-validation: a network from scratch may do "
        f"better. A training with a time budget tries one: {command}"
    )
