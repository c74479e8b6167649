"""The run that is to be improved: its settings, times and findings, and what a budget chose."""

from __future__ import annotations

import json

from kindsight.diagnosis import Diagnosis
from kindsight.errors import KindsightError, UsageError
from kindsight.models.networks.small_cnn import NETWORKS
from kindsight.runs.improve.changes import changed
from kindsight.runs.improve.remedies import Changes
from kindsight.runs.record import RunRecord
from kindsight.runs.settings import TrainSettings
from kindsight.training.frozen.settings import FrozenTrainer

__all__ = ["budget_choices", "computing_seconds", "findings_of", "seconds_of", "settings_of"]

DIAGNOSIS_FILE = "diagnosis.json"
MAX_DIAGNOSIS_BYTES = 1 << 24
# Seconds of a final training beside its epochs: files, verification, report.
FINISH_SECONDS = 15.0
# Another backbone may be larger than the run's.
COMPUTING = 1.5


def settings_of(record: RunRecord) -> TrainSettings:
    """Return the settings of the run, with its input size; UsageError where they are unknown."""
    if record.settings is None:
        raise UsageError(
            f"{record.folder} is a bundle without settings.toml: the settings of its training are "
            "unknown. Give the folder of a run of 'kindsight train'."
        )
    trainer, size = record.settings.training(), record.bundle.spec.size
    if not isinstance(trainer, FrozenTrainer) or trainer.budget is not None or trainer.size:
        return record.settings
    if size == trainer.spec().size:
        return record.settings
    # It was chosen for small images: experiments start from it.
    return record.settings.with_options(size=size[0])


def budget_choices(record: RunRecord, settings: TrainSettings) -> Changes | None:
    """Return the settings that a run's time budget chose, as changes; None without a budget.

    They are its model, size and test-time augmentation, and whether it is fine-tuned. What no
    option can express is left out: a size or crops of the first backbone of an ensemble.
    """
    trainer = settings.training()
    if not isinstance(trainer, FrozenTrainer) or trainer.budget is None:
        return None
    accepted = bool(record.bundle.facts.get("fine_tuning"))
    stated = record.bundle.facts.get("settings")
    values = stated if isinstance(stated, dict) else {}
    if values.get("model") in NETWORKS:
        return _network_choices(values, settings)
    plain: dict[str, object] = {"budget": None, "fine_tune": trainer.fine_tune_mode}
    if not accepted:
        plain["fine_tune"] = "off"
    found = dict(plain)
    if "first_size" in values and "+" not in str(values.get("model")):
        # The backbone resizes the images itself: the input's own size brings it nothing.
        values = {**values, "size": values["first_size"]}
    for name in ("model", "size", "tta_crops"):
        value = values.get(name)
        value = tuple(value) if isinstance(value, list) else value
        if value is not None and value != getattr(trainer, name):
            found[name] = value
    flips = values.get("flip_ids")
    if isinstance(flips, (list, tuple)) and len(flips) > 1:
        found["tta_flips"] = len(flips)
    size = found.get("size")
    if isinstance(size, tuple) and size == trainer.spec().size:
        del found["size"]
    elif isinstance(size, tuple) and len(set(size)) == 1:
        found["size"] = size[0]
    return found if changed(settings, found) is not None else plain


def _network_choices(values: Changes, settings: TrainSettings) -> Changes | None:
    """Return the changes to a network from scratch; None where they are invalid."""
    chosen = {name: values[name] for name in ("model", "preset") if name in values}
    network = {"budget": None, **chosen}
    plain = changed(settings, network)
    if plain is None:
        return None
    usual = plain.to_dict()
    found = network | {name: each for name, each in values.items() if usual.get(name) != each}
    return found if changed(settings, found) is not None else network


def seconds_of(record: RunRecord) -> tuple[float, float]:
    """Return how long the original was trained, and how long the rest of its run took."""
    stated = record.bundle.facts.get("seconds")
    names = ("fit", "total", "prepare", "folds")
    known = stated if isinstance(stated, dict) else {}
    fit, total, prepare, folds = (
        float(value) if isinstance(value := known.get(name), (int, float)) else 0.0
        for name in names
    )
    rest = total - prepare - fit - folds
    if record.history is not None:  # of an interrupted training, too
        fit = max(fit, sum(row.seconds for row in record.history))
    return max(0.1, fit), max(FINISH_SECONDS, rest)


def computing_seconds(record: RunRecord) -> float:
    """Return how long features of another backbone may take, where that of the run is known."""
    stated = record.bundle.facts.get("seconds")
    known = stated if isinstance(stated, dict) else {}
    found = [known.get(name) for name in ("prepare", "backbone")]
    return COMPUTING * sum(float(value) for value in found if isinstance(value, (int, float)))


def findings_of(record: RunRecord) -> tuple[Diagnosis, ...]:
    """Return the run's diagnosis; none where it was not made or is damaged."""
    try:
        with (record.folder / DIAGNOSIS_FILE).open("rb") as file:
            stored = json.loads(file.read(MAX_DIAGNOSIS_BYTES))
        return tuple(Diagnosis.from_dict(item) for item in stored["findings"])
    except (OSError, ValueError, KeyError, TypeError, KindsightError):
        return ()
