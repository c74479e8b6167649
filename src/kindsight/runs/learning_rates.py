"""Before a training by gradient: its table of layers, and the learning-rate finder."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from kindsight.errors import SettingsError
from kindsight.models.networks.small_cnn import LayerRow
from kindsight.runs.folder import data_name
from kindsight.runs.reporting.make import write_learning_rate_figures
from kindsight.runs.settings import TrainSettings
from kindsight.runs.split import open_data, rows_of, split_images
from kindsight.training.common import Progress
from kindsight.training.engine.learning_rate_finder import RateSweep
from kindsight.training.network.fit import for_dataset
from kindsight.training.trainer import Kind, kind_of, prepare

__all__ = ["find_learning_rate", "layers_of"]


def layers_of(settings: TrainSettings, *, progress: Progress | None = None) -> tuple[LayerRow, ...]:
    """Return the table of layers of the network that these settings would train.

    Parameters
    ----------
    settings : TrainSettings
    progress : callable, optional
        Called with (stage, done, total) where a backbone has to be built.

    Raises
    ------
    SettingsError
        If the backbone is frozen, or the model lacks a given cut or layer.
    DatasetError
        If no classifier can be trained on the data.
    """
    kind, trainer = _kind_by_gradient(settings), settings.training()
    assert kind.code.layers is not None
    dataset = open_data(settings)
    with trainer.process() as keras:
        sized = for_dataset(trainer, dataset)
        return kind.code.layers(sized, len(dataset.classes), keras, progress)


def find_learning_rate(
    settings: TrainSettings, *, progress: Progress | None = None
) -> tuple[RateSweep, tuple[Path, Path]]:
    """Run the learning-rate finder on the train split, and plot its result.

    Parameters
    ----------
    settings : TrainSettings
        The settings of the training that needs a learning rate.
    progress : callable, optional
        Called with (stage, done, total); the stages are images and rates.

    Returns
    -------
    sweep : RateSweep
    files : svg, png : pathlib.Path
        The plots, in the runs folder, in a folder named after the data; older ones are replaced.

    Raises
    ------
    SettingsError
        If the backbone is frozen.
    DatasetError
        If no classifier can be trained on the data.
    """
    kind, trainer, dataset = _kind_by_gradient(settings), settings.training(), open_data(settings)
    assert kind.code.find_rate is not None
    with trainer.process() as keras, ExitStack() as stack:
        keras.start()
        prepared = prepare(trainer, dataset, progress, keras)
        stack.callback(prepared.close)
        prepared = split_images(prepared, settings, dataset, progress).images
        rows = rows_of(prepared.dataset, "train")
        sweep = kind.code.find_rate(prepared, dataset.classes, rows, keras, progress)
    folder = Path(settings.runs, f"{data_name(settings)}-learning-rate")
    drawn = write_learning_rate_figures(sweep.rates, sweep.losses, sweep.suggestion, folder)
    return sweep, drawn


def _kind_by_gradient(settings: TrainSettings) -> Kind:
    kind = kind_of(settings.training().to_dict())
    if kind.code.layers is None:
        raise SettingsError(
            f"{settings.model} is frozen: its head is fitted without a learning rate. "
            'Add `freeze="all"` to train a head by gradient, or choose `model="small-cnn"`.'
        )
    return kind
