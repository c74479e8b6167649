"""ImageClassifier: images in, a classifier out, by scikit-learn's contract."""

from __future__ import annotations

import inspect
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from kindsight.bundle import Bundle
from kindsight.dataset import ImageDataset, as_dataset
from kindsight.dataset.splits.split import random_split
from kindsight.errors import DatasetError, SettingsError, UsageError
from kindsight.evaluation import to_probabilities
from kindsight.predictor import Predictor
from kindsight.trained_images import TRAINED_ON_FILE
from kindsight.training.common import Progress, number_fault
from kindsight.training.engine.callbacks import TrainingCallback
from kindsight.training.engine.history import HISTORY_FILE, load_history
from kindsight.training.epoch_settings import EpochTrainer
from kindsight.training.fine_tuning.settings import MONITOR
from kindsight.training.frozen.settings import FrozenTrainer
from kindsight.training.near_duplicates import remember
from kindsight.training.protocols import FittedModel, Trainer
from kindsight.training.trainer import (
    foreign_options,
    make_training,
    prepare,
)
from kindsight.training.write_bundle import write_bundle

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kindsight.augment import Augment
    from kindsight.training.engine.plan import Phase

__all__ = [
    "Estimator",
    "ImageClassifier",
    "chosen_training",
    "learned_from",
    "parted",
]

# SECTION: What scikit-learn asks of an estimator, without scikit-learn.

Self = TypeVar("Self", bound="Estimator")


class Estimator:
    """A base for classifiers whose parameters are those of their constructor.

    The constructor stores each of them under its own name, as it is given.
    """

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Return the constructor's parameters with their defaults."""
        signature = inspect.signature(cls.__init__)
        return {
            name: parameter.default
            for name, parameter in signature.parameters.items()
            if name != "self"
        }

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the constructor's parameters by name."""
        return {name: getattr(self, name) for name in self.defaults()}

    def set_params(self: Self, **params: Any) -> Self:
        """Set parameters by name.

        Raises
        ------
        SettingsError
            For a name that is not a parameter.
        """
        known = self.defaults()
        for name in params:
            if name not in known:
                raise SettingsError(
                    f"A parameter must be one of {', '.join(known)}. Received: {name!r}."
                )
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        defaults = self.defaults()
        changed = (
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if value != defaults[name]
        )
        return f"{type(self).__name__}({', '.join(changed)})"

    def __sklearn_tags__(self) -> Any:
        """Say to scikit-learn what this is."""
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags(),
            input_tags=InputTags(two_d_array=False, string=True),
        )

    def __sklearn_is_fitted__(self) -> bool:
        """Say to scikit-learn whether the classifier was fitted, or loaded."""
        return hasattr(self, "classes_")


# SECTION: What an estimator's parameters mean, and which images it learns from and is judged by.

VALIDATION = 0.1
"""The share of the images by which a network is judged, where nothing else is said."""

# What the model has no use for is ignored where it says nothing: "auto" is no choice.
_SAYS_NOTHING = {"head": "auto", "weights": "imagenet", "tta_flips": 1, "tta_crops": 1}


def chosen_training(params: dict[str, Any]) -> Trainer:
    """Return the training that an estimator's parameters describe.

    Parameters
    ----------
    params : dict
        As ``ImageClassifier.get_params`` returns them.

    Raises
    ------
    SettingsError
        For parameters outside what they take, or that the model has no use for.
    """
    validation = params["validation"]
    params = {name: value for name, value in params.items() if name != "validation"}
    if isinstance(make_training(params), EpochTrainer):
        said = {name: value for name, value in params.items() if _SAYS_NOTHING.get(name) != value}
        params = {**dict.fromkeys(params), **said}
    faults = foreign_options(params)
    training = make_training(params)
    frozen = isinstance(training, FrozenTrainer) and training.tunes == "off"
    if validation is not None and frozen:
        faults.append(
            "validation is a setting of a network that learns. Received: it "
            f"with the model {params['model']}. A backbone's head is chosen by cross-validation; "
            "fine_tune, or a budget, needs a validation part."
        )
    if validation is not None:
        faults += filter(None, [number_fault("validation", validation, 0, 1)])
    if faults:
        raise SettingsError("\n".join([*faults, *training.faults()]))
    return training


def learned_from(dataset: ImageDataset, network: bool) -> ImageDataset:
    """Leave out the parts of a dataset that a training has no use for.

    Parameters
    ----------
    dataset : ImageDataset
        With or without splits; without, all of it is learned from.
    network : bool
        Whether it is a network that learns, which a validation part is of use for.
    """
    if all(split is None for split in dataset.split):
        return dataset
    wanted = ("train", "validation") if network else ("train",)
    return dataset[[split in wanted for split in dataset.split]]


def parted(dataset: ImageDataset, validation: float | None, seed: int) -> ImageDataset:
    """Keep a part of what a network learns from for its validation.

    Parameters
    ----------
    dataset : ImageDataset
        One with splits stays as it is.
    validation : float or None
        The part's share, 0 for none; :data:`VALIDATION` if None.
    seed : int
        Of the drawing.
    """
    share = VALIDATION if validation is None else validation
    if any(dataset.split) or not share:
        return dataset
    return random_split(dataset, validation=share, seed=seed)


class ImageClassifier(Estimator):
    """An image classifier: a convex head on a frozen network's features, or a trained network.

    It follows scikit-learn's contract: parameters are stored as they are given, what is learned
    ends in an underscore, and ``clone``, ``cross_val_score`` and ``GridSearchCV`` work on it.
    scikit-learn itself is not needed.

    Parameters
    ----------
    model : str
        A backbone's name, such as ``"efficientnet-lite0"`` (``kindsight backbones`` lists them),
        or a ``.keras`` file of your own, or up to three joined by ``+``; or ``"small-cnn"``, a
        network that is trained from its first weights.
    weights : str
        Of a backbone: ``"imagenet"``, ``"none"`` (random, by the seed), or a weights file for it.
    cut, freeze, train_batch_norm, cached_copies : optional
        Which part of a backbone is used, which of its layers learn, and how many augmented views
        pass the frozen ones once for all epochs, as in
        :class:`kindsight.training.transfer.settings.TransferTrainer`. Any of them, or of the
        parts of a
        head below, or phases, means that the backbone is trained by gradient.
    size : int or (height, width), optional
        Pixels of the images that the network sees; its own size if omitted.
    resize : str
        ``"crop"``, ``"stretch"`` or ``"pad"``: how other proportions are met.
    head : str, optional
        Of a backbone: ``"auto"``, ``"linear"`` or ``"rbf"``; ``"auto"``, as if omitted, lets
        cross-validation choose.
    tta_flips : int
        Of a backbone: over how many flipped views of an image its features are averaged, 1 to 4.
    tta_crops : int
        Of a backbone: over how many crops besides, each in all those flips, 1 to 6: the whole
        image, its middle seven eighths, and as much of each corner.
    class_weight : str, optional
        ``"balanced"`` makes each class count alike, whatever its number of images.
    seed : int
        Same seed, same result.
    workers : int, optional
        How many images are run at once; the number of cores if omitted.
    cache : path, optional
        The cache's folder; this machine's own if omitted.
    validation : float, optional
        Of a network, and of fine-tuning: the share of the images that is not learned from, but
        chooses the best epoch and the temperature; 0.1 if omitted, 0 for none. A dataset's own
        validation part takes its place.
    fine_tune : str, optional
        Of a backbone: ``"off"``, ``"light"`` (the upper part learns) or ``"full"`` (everything
        does). Its result is kept where it is better than the frozen head on the validation part.
    budget : str or float, optional
        Of a backbone: how long ``fit`` may take, such as ``"10m"``, or in seconds. What answers
        may then be several networks over several flips of an image, which takes longer to ask.
    filters, dense, dropout, batch_norm, l2, pooling : optional
        The parts of a network, as in :class:`kindsight.models.networks.small_cnn.SmallCNN`; all
        but the
        filters are those of a backbone's head, too.
    epochs, batch_size, optimizer, learning_rate, momentum, weight_decay : optional
        How a network learns, as in :class:`kindsight.training.engine.plan.Phase`; and so
    schedule, warmup, label_smoothing, patience : optional
    augment : str, mapping or Augment, optional
        What is done to a network's images each time they are seen.
    mix : str, optional
        ``"mixup"`` or ``"cutmix"``: the images of a batch are mixed.
    phases : sequence of (mapping or Phase), optional
        Phases one after another, each with its own ``freeze``, ``epochs``, ``learning_rate``,
        ``augment`` and the like; what a phase does not say is as above.
    layer_decay, ema_decay : float, optional
        Each layer at this share of the pace of the one above it; a running mean of the weights
        that keeps this share of itself in each step.
    final_weights : str, optional
        ``"best"`` or ``"last"``: which epoch's weights of a network are kept.
    compute_dtype : str, optional
        ``"auto"``, ``"float32"`` or ``"bfloat16"``: in which numbers a network's convolutions are
        multiplied in training; ``"auto"``, as if omitted, is bfloat16 where that is faster.

    Attributes
    ----------
    classes_ : array
        The labels, sorted, in the order of the columns of ``predict_proba``.
    temperature_ : float
        Divides the logits before the softmax.
    head_ : FittedHead
        The head, and all that cross-validation tried; of a backbone only.
    history_ : History
        The epochs; of a network, and of a fine-tuned backbone.
    fine_tuning_ : FineTuningResult
        What fine-tuning did, and whether its result was kept; where it was asked for.
    problems_ : tuple of ImageError
        Images that could not be read and were set aside in ``fit``.
    """

    def __init__(  # noqa: PLR0913 (scikit-learn's contract: one argument a setting)
        self,
        *,
        model: str = "efficientnet-lite0",
        weights: str = "imagenet",
        cut: str | None = None,
        freeze: str | int | None = None,
        train_batch_norm: bool | None = None,
        cached_copies: int | None = None,
        size: int | tuple[int, int] | None = None,
        resize: str = "crop",
        head: str | None = None,
        tta_flips: int = 1,
        tta_crops: int = 1,
        class_weight: str | None = None,
        seed: int = 0,
        workers: int | None = None,
        cache: str | os.PathLike[str] | None = None,
        validation: float | None = None,
        fine_tune: str | None = None,
        budget: str | float | None = None,
        filters: Sequence[int] | None = None,
        dense: Sequence[int] | int | None = None,
        dropout: float | None = None,
        batch_norm: bool | None = None,
        l2: float | None = None,
        pooling: str | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        augment: str | Mapping[str, Any] | Augment | None = None,
        mix: str | None = None,
        optimizer: str | None = None,
        learning_rate: float | None = None,
        momentum: float | None = None,
        weight_decay: float | None = None,
        schedule: str | None = None,
        warmup: float | None = None,
        label_smoothing: float | None = None,
        patience: int | None = None,
        phases: Sequence[Mapping[str, Any] | Phase] | None = None,
        layer_decay: float | None = None,
        ema_decay: float | None = None,
        final_weights: str | None = None,
        compute_dtype: str | None = None,
    ) -> None:
        self.model = model
        self.weights = weights
        self.cut = cut
        self.freeze = freeze
        self.train_batch_norm = train_batch_norm
        self.cached_copies = cached_copies
        self.size = size
        self.resize = resize
        self.head = head
        self.tta_flips = tta_flips
        self.tta_crops = tta_crops
        self.class_weight = class_weight
        self.seed = seed
        self.workers = workers
        self.cache = cache
        self.validation = validation
        self.fine_tune = fine_tune
        self.budget = budget
        self.filters = filters
        self.dense = dense
        self.dropout = dropout
        self.batch_norm = batch_norm
        self.l2 = l2
        self.pooling = pooling
        self.epochs = epochs
        self.batch_size = batch_size
        self.augment = augment
        self.mix = mix
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.warmup = warmup
        self.label_smoothing = label_smoothing
        self.patience = patience
        self.phases = phases
        self.layer_decay = layer_decay
        self.ema_decay = ema_decay
        self.final_weights = final_weights
        self.compute_dtype = compute_dtype
        self._fitted: FittedModel
        self._predictor: Predictor | None

    # Fitting ---------------------------------------------------------------------------------

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        progress: Progress | None = None,
        callback: TrainingCallback | None = None,
    ) -> ImageClassifier:
        """Learn from images.

        Parameters
        ----------
        X : ImageDataset, path, sequence of paths, or array
            A dataset; a folder, a table or arrays in a file, as :meth:`kindsight.ImageDataset.open`
            takes them; files; or uint8 (images, height, width, 3).
            Of a dataset with splits only the training part is learned from.
        y : sequence, optional
            A label for each image; not needed where `X` has labels.
        progress : callable, optional
            Called with (stage, done, total).
        callback : TrainingCallback, optional
            Told of the epochs of a network.

        Returns
        -------
        ImageClassifier
            Itself.

        Raises
        ------
        DatasetError
            If there are fewer than two classes, or images without a label.
        SettingsError
            For parameters outside what they take.
        """
        training = chosen_training(self.get_params())
        training.spec()
        network = training.by_gradient
        dataset = learned_from(as_dataset(X, y), network)
        if missing := sum(label is None for label in dataset.label):
            raise DatasetError(
                f"Every image to learn from must have a label. Received: {missing} without one. "
                "Give y, or a folder of class folders."
            )
        labels = np.array(dataset.present_classes()) if y is None else np.unique(np.asarray(y))
        if coming := training.download():
            warnings.warn(coming, stacklevel=2)
        with training.process() as keras:
            if network:
                keras.start()
            images = prepare(training, dataset, progress, keras)
            if images.problems:
                warnings.warn(
                    f"{len(images.problems)} of {len(dataset)} images could not be read and "
                    "were set aside; problems_ names them.",
                    stacklevel=2,
                )
            if network:
                dataset = parted(images.dataset, self.validation, self.seed)
                images = images.with_dataset(dataset)
            held = np.array([split == "validation" for split in images.dataset.split], bool)
            self._fitted = images.fit(
                [str(label) for label in labels],
                np.flatnonzero(~held),
                np.flatnonzero(held),
                keras=keras,
                progress=progress,
                callback=callback,
            )
        for note in self._fitted.notes if network else ():
            warnings.warn(note, stacklevel=2)
        self._asked = training
        self._predictor = None
        self.classes_ = labels
        if self._fitted.fine_tuning:
            self.fine_tuning_ = self._fitted.fine_tuning
        if held.any():  # a head that was selected without the validation images uses them, too
            self._fitted = self._fitted.refit(np.arange(len(held)))
        if self._fitted.head is not None:
            self.head_ = self._fitted.head
        if self._fitted.history is not None:
            self.history_ = self._fitted.history
        self.temperature_ = self._fitted.temperature
        self.problems_ = images.problems
        return self

    # Answering -------------------------------------------------------------------------------

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """Return the probability of each class for each image.

        Parameters
        ----------
        X : ImageDataset, path, sequence of paths, or array
            As in :meth:`fit`; labels are not looked at.

        Returns
        -------
        array
            float32 (images, classes), in the order of ``classes_``; rows sum to 1.

        Raises
        ------
        ImageError
            For an image that cannot be read. ``kindsight.Predictor`` goes on past it.
        """
        self._check_fitted()
        dataset = as_dataset(X, labelled=False)
        if self._predictor is not None:
            answers = list(self._predictor.predict_dataset(dataset))
            for answer in answers:
                if answer.error is not None:
                    raise answer.error
            rows = [answer.probabilities for answer in answers]
            return np.array(rows, np.float32).reshape(len(rows), len(self.classes_))
        return to_probabilities(self._fitted.logits_of(dataset), self.temperature_)

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable label of each image; see :meth:`predict_proba`."""
        best = self.predict_proba(X).argmax(1)
        result: NDArray[Any] = self.classes_[best]
        return result

    def score(self, X: Any, y: Any = None) -> float:
        """Return the share of images that are answered right.

        Parameters
        ----------
        X : ImageDataset, path, sequence of paths, or array
            As in :meth:`fit`.
        y : sequence, optional
            A label for each image; not needed where `X` has labels.
        """
        dataset = as_dataset(X, y)
        truth = np.array([str(label) for label in dataset.label])
        answers = np.array([str(label) for label in self.predict(dataset)])
        return float((truth == answers).mean())

    # Keeping ---------------------------------------------------------------------------------

    def save(self, folder: str | os.PathLike[str]) -> Bundle:
        """Write the classifier as a bundle; ``kindsight predict`` and :meth:`load` read it.

        Raises
        ------
        UsageError
            If there is something at `folder` already, or nothing was fitted.
        ParityError
            If the Keras and the LiteRT network disagree.
        """
        self._check_fitted()
        path = Path(folder)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UsageError(
                f"A bundle must be saved to a folder that is not there yet. Received: {folder}."
            )
        if not hasattr(self, "_fitted"):
            raise UsageError(
                "Only a classifier that was fitted here can be saved. Received: a loaded one; "
                "copy its folder instead."
            )
        with self._fitted.training.process() as keras:
            bundle = write_bundle(
                path, self._fitted, self._fitted.rows, keras, {}, asked=self._asked
            )
        if self._fitted.history is not None:
            self._fitted.history.write_csv(path / HISTORY_FILE)
        learned = (str(self._fitted.dataset.digest[row]) for row in self._fitted.rows)
        remember(learned, self._fitted.kept).write(path / TRAINED_ON_FILE)
        bundle.write()
        return bundle

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, workers: int | None = None) -> ImageClassifier:
        """Read a classifier that was saved, or a run.

        Raises
        ------
        BundleError
            Where there is no whole bundle, or a damaged history.
        """
        predictor = Predictor(folder, workers=workers)
        bundle = predictor.bundle
        # Fitted anew it is to choose anew what was left to it.
        settings = bundle.facts.get("asked", bundle.facts.get("settings"))
        known = settings if isinstance(settings, dict) else {}
        names = set(cls.defaults()) - {"cache", "workers"}
        given: dict[str, Any] = {
            # JSON has no tuples.
            name: tuple(value) if isinstance(value, list) else value
            for name, value in known.items()
            if name in names
        }
        classifier = cls(**given, workers=workers)
        classifier._predictor = predictor
        classifier.classes_ = np.array(bundle.classes)
        classifier.temperature_ = bundle.temperature
        tuned = known.get("fine_tune") in ("light", "full") or known.get("budget") is not None
        history = load_history(folder, MONITOR if tuned else "accuracy")
        if history is not None:
            classifier.history_ = history
        return classifier

    # Within ----------------------------------------------------------------------------------

    def _check_fitted(self) -> None:
        if not hasattr(self, "classes_"):
            raise UsageError("The classifier must be fitted or loaded first: call fit.")
