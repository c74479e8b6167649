"""Before a network is trained: what it would be, and how fast it can learn."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from kindsight.errors import SettingsError
from kindsight.models.small_cnn import SmallCNN
from kindsight.rundivision import divide, open_data, rows_of
from kindsight.runfigures import write_learning_rate_figures
from kindsight.runfolder import data_name
from kindsight.settings import TrainSettings
from kindsight.training.common import Progress
from kindsight.training.kinds import prepare
from kindsight.training.network import NETWORKS, NetworkTraining
from kindsight.training.network_fit import NetworkPictures
from kindsight.training.rate_finder import RateSweep

__all__ = ["find_learning_rate", "network_of"]


def network_of(settings: TrainSettings) -> tuple[SmallCNN, int]:
    """Return the network that a training would train, and how many classes it would tell apart.

    Raises
    ------
    SettingsError
        For a model that is not trained from its first weights.
    CatalogError
        If no classifier can be made of the data.
    """
    return _network_training(settings).network(), len(open_data(settings).classes)


def find_learning_rate(
    settings: TrainSettings, *, progress: Progress | None = None
) -> tuple[RateSweep, tuple[Path, Path]]:
    """Try rising learning rates on the training part, and draw what the loss did.

    Parameters
    ----------
    settings : TrainSettings
        Of the training that the rate is for.
    progress : callable, optional
        Called with (stage, done, total); the stages are pictures and rates.

    Returns
    -------
    sweep : RateSweep
    files : svg, png : pathlib.Path
        In the folder for runs, in a folder named after the data; older ones are replaced.

    Raises
    ------
    SettingsError
        For a model that is not trained from its first weights.
    CatalogError
        If no classifier can be made of the data.
    """
    training, catalog = _network_training(settings), open_data(settings)
    with training.process() as keras, ExitStack() as stack:
        keras.start()
        pictures = prepare(training, catalog, progress, keras)
        stack.callback(pictures.close)
        pictures = divide(pictures, settings, catalog, progress).pictures
        assert isinstance(pictures, NetworkPictures)
        rows = rows_of(pictures.catalog, "train")
        sweep = pictures.find_rate(catalog.classes, rows, keras, progress)
    folder = Path(settings.runs, f"{data_name(settings)}-learning-rate")
    drawn = write_learning_rate_figures(sweep.rates, sweep.losses, sweep.suggestion, folder)
    return sweep, drawn


def _network_training(settings: TrainSettings) -> NetworkTraining:
    training = settings.training()
    if not isinstance(training, NetworkTraining):
        raise SettingsError(
            f"The model must be a network that is trained from its first weights "
            f"({', '.join(NETWORKS)}). Received: {settings.model}."
        )
    return training
