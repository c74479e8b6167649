"""Before a network is trained: what it would be, and how fast it can learn."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from kindsight.errors import SettingsError
from kindsight.models.networks.small_cnn import LayerRow
from kindsight.runs.figures import write_learning_rate_figures
from kindsight.runs.folder import data_name
from kindsight.runs.settings import TrainSettings
from kindsight.runs.split import open_data, rows_of, split_images
from kindsight.training.common import Progress
from kindsight.training.engine.learning_rate_finder import RateSweep
from kindsight.training.network.fit import NetworkImages
from kindsight.training.network.settings import NETWORKS, NetworkTrainer
from kindsight.training.trainer import prepare
from kindsight.training.transfer.fit import describe_layers
from kindsight.training.transfer.settings import TransferTrainer

__all__ = ["find_learning_rate", "layers_of"]


def layers_of(settings: TrainSettings, *, progress: Progress | None = None) -> tuple[LayerRow, ...]:
    """Return the table of layers of the network that a training would train.

    Parameters
    ----------
    settings : TrainSettings
    progress : callable, optional
        Called with (stage, done, total) where a backbone has to be built.

    Raises
    ------
    SettingsError
        For a model whose layers do not learn, a cut or a layer that it does not have.
    DatasetError
        If no classifier can be made of the data.
    """
    training, classes = _epoch_training(settings), len(open_data(settings).classes)
    if isinstance(training, NetworkTrainer):
        return training.network().layers(classes)
    with training.process() as keras:
        return describe_layers(training, classes, keras, progress)


def find_learning_rate(
    settings: TrainSettings, *, progress: Progress | None = None
) -> tuple[RateSweep, tuple[Path, Path]]:
    """Try rising learning rates on the training part, and draw what the loss did.

    Parameters
    ----------
    settings : TrainSettings
        Of the training that the rate is for.
    progress : callable, optional
        Called with (stage, done, total); the stages are images and rates.

    Returns
    -------
    sweep : RateSweep
    files : svg, png : pathlib.Path
        In the folder for runs, in a folder named after the data; older ones are replaced.

    Raises
    ------
    SettingsError
        For a model whose layers do not learn.
    DatasetError
        If no classifier can be made of the data.
    """
    training, dataset = _epoch_training(settings), open_data(settings)
    with training.process() as keras, ExitStack() as stack:
        keras.start()
        images = prepare(training, dataset, progress, keras)
        stack.callback(images.close)
        images = split_images(images, settings, dataset, progress).images
        assert isinstance(images, NetworkImages)
        rows = rows_of(images.dataset, "train")
        sweep = images.find_rate(dataset.classes, rows, keras, progress)
    folder = Path(settings.runs, f"{data_name(settings)}-learning-rate")
    drawn = write_learning_rate_figures(sweep.rates, sweep.losses, sweep.suggestion, folder)
    return sweep, drawn


def _epoch_training(settings: TrainSettings) -> NetworkTrainer | TransferTrainer:
    training = settings.training()
    if not isinstance(training, (NetworkTrainer, TransferTrainer)):
        raise SettingsError(
            f"The model must be a network that is trained from its first weights "
            f"({', '.join(NETWORKS)}), or a backbone that learns. Received: {settings.model}, "
            "frozen. --freeze all trains a head on it by gradient."
        )
    return training
