"""A hint on the gain of a longer training, shown after a training without a time budget."""

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
"""Cross-validated accuracy of the frozen head from which little is left to gain."""


def hint_of(model: FittedModel, settings: TrainSettings, validation: int, run: str = "") -> str:
    """Return the hint on the gain of a time budget; empty if none is expected.

    Parameters
    ----------
    model : FittedModel
    settings : TrainSettings
    validation : int
        Number of validation images, on which the results of a budget are accepted.
    run : str
        The run folder; the command uses its settings file if they cannot be given as options.
    """
    if not model.can_be_fine_tuned or validation < MIN_VALIDATION_IMAGES:
        return ""
    return _from_scratch(model, settings, run) or FINE_TUNING


def _from_scratch(model: FittedModel, settings: TrainSettings, run: str) -> str:
    """Return the hint if a network from scratch would probably be more accurate; else empty."""
    trainer, images = model.training, len(model.rows)
    if not isinstance(trainer, FrozenTrainer):
        return ""
    accuracy = model.head.chosen.accuracy
    if images < MIN_IMAGES or accuracy >= HIGH_ACCURACY:
        return ""
    # Imported here because it imports the code of fine-tuning.
    from kindsight.training.budget.plan import is_default_backbone

    if not is_default_backbone(trainer):
        return ""
    sides = typical_sides(model.dataset)
    if sides is None or sides[0] > SMALL:
        return ""
    command = train_command(settings.to_dict(), {"budget": "10m"}, run)
    return (
        f"the images are small ({sides[0]:.0f} pixels) and many ({images:,}), and the frozen head "
        f"has {percent(accuracy)} accuracy in cross-validation: a network from scratch may be more "
        f"accurate. A training with a time budget tries one: {command}"
    )
