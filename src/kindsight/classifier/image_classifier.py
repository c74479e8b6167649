"""ImageClassifier: an image classifier that follows scikit-learn's contract."""

from __future__ import annotations

import contextlib
import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kindsight.bundle import JSON_FILE, KERAS_FILE, TFLITE_FILE, Bundle
from kindsight.classifier.estimator import (
    Estimator,
    document,
    labelled_images,
    trainer_of,
    used_splits,
    with_validation,
)
from kindsight.dataset import as_dataset, with_value_range
from kindsight.dataset.labels import as_labels, class_indices, distinct_labels
from kindsight.dataset.names import ignored_notes, quoted_list, reasons_by_class
from kindsight.errors import BundleError, DatasetError, UsageError
from kindsight.evaluation import distinct_images, to_probabilities
from kindsight.evaluation.conformal import LEVEL, ConformalSets, check_level, smallest_count
from kindsight.predictor import Predictor
from kindsight.trained_images import TRAINED_ON_FILE
from kindsight.training.common import Progress
from kindsight.training.engine.callbacks import TrainingCallback
from kindsight.training.engine.history import HISTORY_FILE, load_history
from kindsight.training.fine_tuning.state import MONITOR
from kindsight.training.near_duplicates import record_trained_images
from kindsight.training.option_rules import unknown_name_fault
from kindsight.training.protocols import FittedModel, Trainer
from kindsight.training.trainer import prepare
from kindsight.training.write_bundle import (
    measure_sets,
    measure_uncertainty,
    measure_unsure,
    write_bundle,
)
from kindsight.uncertainty.stored import StoredSets, Unsure

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from kindsight.explain import Explanation
    from kindsight.export.run import Export
    from kindsight.options import ModelOptions

__all__ = ["ImageClassifier"]


class ImageClassifier(Estimator):
    """Image classifier: a head on a frozen backbone, a fine-tuned backbone, or a small network.

    It follows scikit-learn's contract: parameters are stored unchanged, fitted attributes end in an
    underscore, and ``clone``, ``cross_val_score`` and ``GridSearchCV`` work. scikit-learn itself is
    not needed.

    Parameters
    ----------
    **options
        The options of ``kindsight train`` that describe the model and its training, by the same
        names, with underscores; see :class:`kindsight.options.ModelOptions`. Wrong values are
        reported by :meth:`fit`, all at once. ``validation`` is 0.1 if omitted, and used by
        trainings by epochs and by fine-tuning only.

    Attributes
    ----------
    classes_ : array
        The labels, sorted; the order of the columns of ``predict_proba``.
    temperature_ : float
        Divides the logits before the softmax.
    head_ : FittedHead
        The frozen backbone's head, with all candidates of its cross-validation.
    input_size_ : SizeChoice
        The input size of small images and how it was chosen, where `size` was not given.
    history_ : History
        The epochs, where there were any.
    fine_tuning_ : FineTuningResult
        The result of fine-tuning, where it was requested.
    problems_ : tuple of ImageError
        Images skipped in ``fit`` because they could not be read.
    risk_coverage_ : RiskCoverage
        Accuracy and coverage by threshold of confidence, on held-out images; not after a training
        without any.
    confidence_levels_ : tuple of float
        The levels of :meth:`predict_set`.
    """

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __init__(self, **options: Unpack[ModelOptions]) -> None:
        for name in options:
            if name not in self._defaults:
                fault = unknown_name_fault(name, self._defaults, "parameter")
                raise TypeError(f"{type(self).__name__}: {fault}")
        for name, default in self._defaults.items():
            setattr(self, name, options.get(name, default))
        self._fitted: FittedModel
        self._predictor: Predictor | None

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        progress: Progress | None = None,
        callback: TrainingCallback | None = None,
    ) -> ImageClassifier:
        """Train on images.

        Parameters
        ----------
        X : ImageDataset, path, sequence of paths, or array
            A dataset; a folder, a table or arrays in a file, as :meth:`kindsight.ImageDataset.open`
            takes them; image files; or uint8 (images, height, width, 3). Of a dataset with splits,
            the train split (and the validation split, where one is used).
        y : sequence or array, optional
            A label for each image, or one-hot rows; not needed where `X` has labels. Images whose
            label is None or NaN are left out, with a warning.
        progress : callable, optional
            Called with (stage, done, total).
        callback : TrainingCallback, optional
            Notified of the epochs.

        Returns
        -------
        ImageClassifier
            Itself.

        Raises
        ------
        DatasetError
            If there are fewer than two classes, or no image has a label.
        SettingsError
            Naming every wrong parameter.
        DivergedError
            If the loss of a network becomes NaN or infinite in the first epoch.
        """
        training = trainer_of(self.get_params(), self._defaults)
        training.spec()
        validates = training.by_gradient
        value_range = training.value_range
        given = with_value_range(as_dataset(X, y, value_range=value_range), value_range)
        dataset = labelled_images(used_splits(given, validates))
        present = np.array(dataset.present_classes())
        labels = present if y is None else distinct_labels(y, given.label)
        if download := training.download():
            warnings.warn(download, stacklevel=2)
        with training.process() as keras:
            if validates:
                keras.start()
            images = prepare(training, dataset, progress, keras)
            for note in ignored_notes(dataset.ignored_files):
                warnings.warn(note, stacklevel=2)
            if images.problems:
                codes = [error.code for error in images.problems]
                pairs = zip(images.problem_labels, codes, strict=True)
                warnings.warn(
                    f"{len(images.problems)} of {len(dataset)} images could not be read and "
                    f"were skipped: {reasons_by_class(pairs)}; see problems_.",
                    stacklevel=2,
                )
            if validates:
                split = with_validation(images.dataset, self.validation, self.seed)
                images = images.with_dataset(split)
            held = np.array([split == "validation" for split in images.dataset.split], bool)
            fitted = images.fit(
                [str(name) for name in as_labels(labels, len(labels))],
                np.flatnonzero(~held),
                np.flatnonzero(held),
                keras=keras,
                progress=progress,
                callback=callback,
            )
        for note in keras.notes:
            warnings.warn(note, stacklevel=2)
        self._set_fitted(fitted, training, labels, held)
        self.problems_ = images.problems
        return self

    def _set_fitted(
        self, fitted: FittedModel, training: Trainer, labels: NDArray[Any], held: NDArray[np.bool_]
    ) -> None:
        for note in fitted.notes if training.by_gradient else ():
            warnings.warn(note, stacklevel=3)
        if fitted.fine_tuning:
            self.fine_tuning_ = fitted.fine_tuning
        elif fitted.history is not None and (diverged := fitted.history.divergence()):
            warnings.warn(
                f"{diverged} The weights of epoch {fitted.history.best_epoch} are used.",
                stacklevel=3,
            )
        if held.any():  # a head that was selected without the validation images uses them, too
            fitted = fitted.refit(np.arange(len(held)))
        if fitted.head is not None:
            self.head_ = fitted.head
        self.__dict__.pop("input_size_", None)
        if (choice := getattr(fitted.training, "size_choice", None)) is not None:
            self.input_size_ = choice
        if fitted.history is not None:
            self.history_ = fitted.history
        self._requested, self._fitted, self._predictor = training, fitted, None
        self.classes_ = labels
        self.temperature_ = fitted.temperature
        self._forget_uncertainty()
        held_out = fitted.held_out()
        if held_out is not None:
            self.risk_coverage_ = measure_unsure(held_out).curve
            self._set_sets(measure_sets(held_out))

    def _forget_uncertainty(self) -> None:
        for name in ("risk_coverage_", "confidence_levels_", "_sets"):
            self.__dict__.pop(name, None)

    def _set_sets(self, sets: StoredSets, levels: Sequence[float] = ()) -> None:
        self._sets = sets
        self.confidence_levels_ = tuple(levels) or (sets.confidence_level,)

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """Return the probability of each class for each image.

        Parameters
        ----------
        X : ImageDataset, path, sequence of paths, or array
            As in :meth:`fit`; labels are ignored.

        Returns
        -------
        array
            float32 (images, classes), in the order of ``classes_``; rows sum to 1.

        Raises
        ------
        ImageError
            For an unreadable image. ``kindsight.Predictor`` continues after it.
        """
        self._check_fitted()
        dataset = as_dataset(X, labelled=False, value_range=self._trained_range())
        if self._predictor is None:
            return to_probabilities(self._fitted.logits_of(dataset), self.temperature_)
        rows = []
        for prediction in self._predictor.predict_dataset(dataset):
            if prediction.error is not None:
                raise prediction.error
            rows.append(prediction.probabilities)
        return np.array(rows, np.float32).reshape(len(rows), len(self.classes_))

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable label of each image; see :meth:`predict_proba`."""
        best = self.predict_proba(X).argmax(1)
        result: NDArray[Any] = self.classes_[best]
        return result

    def conformalize(
        self,
        X: Any,
        y: Any = None,
        *,
        confidence_level: float | Sequence[float] = LEVEL,
        per_class: bool = False,
    ) -> ImageClassifier:
        """Measure the prediction sets of :meth:`predict_set` on labelled images.

        :meth:`fit` does so by itself, with out-of-fold predictions of a head on a frozen backbone
        and with the validation images of a network. Images of your own give the sets a coverage
        that holds for images like these. See :mod:`kindsight.evaluation.conformal`.

        Parameters
        ----------
        X : ImageDataset, path, sequence of paths, or array
            As in :meth:`fit`; none of them may have been trained on. In a dataset with digests,
            byte-identical images of one class count once.
        y : sequence, optional
            A label for each image; not needed where `X` has labels.
        confidence_level : float or sequence of float
            Probability that a set has the true class, 0 to 1; one or several.
        per_class : bool
            Whether each class has this probability, not all images together.

        Returns
        -------
        ImageClassifier
            Itself.

        Raises
        ------
        SettingsError
            For a level that is not between 0 and 1.
        DatasetError
            For a label that the classifier does not have.
        """
        self._check_fitted()
        levels = _levels(confidence_level)
        dataset = labelled_images(as_dataset(X, y, value_range=self._trained_range()))
        names = [str(name) for name in as_labels(self.classes_, len(self.classes_))]
        if strange := sorted({str(label) for label in dataset.label} - {*names}):
            raise DatasetError(
                f"The classes of the images must be those of the classifier; got {strange[0]!r}. "
                "Leave such images out."
            )
        targets = class_indices(dataset.label, names)
        counted = distinct_images(dataset.digest, targets)
        probabilities, targets = self.predict_proba(dataset)[counted], targets[counted]
        found = ConformalSets.measure(probabilities, targets, per_class=per_class)
        for level in levels:
            if (few := np.isinf(found.quantiles(level))).any():
                whose = f" of {quoted_list(np.array(names)[few].tolist())}" if per_class else ""
                warnings.warn(
                    f"There are too few images{whose} for a level of {level:g}: every prediction "
                    f"set has all {'these' if per_class else 'the'} classes. At least "
                    f"{smallest_count(level)} are needed{' of each' if per_class else ''}.",
                    stacklevel=2,
                )
        sets = StoredSets(found, levels[0], "given images").with_mean_size(probabilities)
        self._set_sets(sets, levels)
        return self

    def predict_set(
        self, X: Any, confidence_level: float | Sequence[float] | None = None
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return the most probable label and the prediction set of each image.

        Parameters
        ----------
        X : ImageDataset, path, sequence of paths, or array
            As in :meth:`fit`; labels are ignored.
        confidence_level : float or sequence of float, optional
            In place of that of :meth:`conformalize`, 0.9 by default.

        Returns
        -------
        labels : array
            (images,).
        sets : array
            bool (images, classes, levels): whether the class is in the set. A set may be empty.

        Raises
        ------
        UsageError
            If nothing was fitted, or without held-out images; see :meth:`conformalize`.
        """
        self._check_fitted()
        stored = self.__dict__.get("_sets")
        if not isinstance(stored, StoredSets):
            raise UsageError(
                "There are no held-out images to measure prediction sets on. Call conformalize "
                "with labelled images that were not trained on."
            )
        given = confidence_level is not None
        levels = _levels(confidence_level) if given else self.confidence_levels_
        probabilities = self.predict_proba(X)
        inside = [stored.sets.predict(probabilities, level) for level in levels]
        labels: NDArray[Any] = self.classes_[probabilities.argmax(1)]
        return labels, np.stack(inside, axis=-1)

    def explain(
        self,
        X: Any,
        *,
        methods: Sequence[str] = ("grad-cam", "occlusion"),
        target: Any = None,
        versus: Any = None,
        nearest: int = 5,
        progress: Progress | None = None,
    ) -> list[Explanation]:
        """Return saliency maps and the nearest training images of each image.

        A classifier that was fitted, not loaded, first writes its network files to a temporary
        folder: give all images in one call.

        Parameters
        ----------
        X : ImageDataset, path, sequence of paths, or array
            As in :meth:`fit`; labels are ignored.
        methods : sequence of str
            ``"grad-cam"``, ``"occlusion"``; see :func:`kindsight.explain.explain_images`.
        target : label, optional
            The class to explain, one of ``classes_``; the most probable one of each image by
            default.
        versus : label, optional
            Explain why `target` rather than this class; by default, rather than all others.
        nearest : int
            Number of nearest training images. After :meth:`load` of a bundle without the records
            of a run there are none, with a note.
        progress : callable, optional
            Called with (stage, done, total).

        Returns
        -------
        list of Explanation
            Of each image: ``maps[method].values``, float32 (height, width), 0 to 1;
            ``overlay(method)``, uint8 (height, width, 3); ``nearest``.

        Raises
        ------
        UsageError
            For an unknown class or method, or if nothing was fitted.
        ImageError
            For an unreadable image.
        """
        from kindsight.classifier.explaining import explain_dataset

        self._check_fitted()
        dataset = as_dataset(X, labelled=False, value_range=self._trained_range())
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            loaded = self._predictor
            return explain_dataset(
                dataset,
                self._write(Path(folder)) if loaded is None else loaded.bundle,
                self._fitted if loaded is None else None,
                methods=methods,
                target=None if target is None else str(as_labels([target], 1)[0]),
                versus=None if versus is None else str(as_labels([versus], 1)[0]),
                nearest=nearest,
                progress=progress,
            )

    def score(self, X: Any, y: Any = None) -> float:
        """Return the accuracy, 0 to 1.

        In a dataset with digests, byte-identical images of one class count once.

        Parameters
        ----------
        X : ImageDataset, path, sequence of paths, or array
            As in :meth:`fit`.
        y : sequence, optional
            A label for each image; not needed where `X` has labels.
        """
        self._check_fitted()
        dataset = labelled_images(as_dataset(X, y, value_range=self._trained_range()))
        names = as_labels(self.classes_, len(self.classes_))
        predicted = [names[k] for k in self.predict_proba(dataset).argmax(1)]
        correct = np.array([a == b for a, b in zip(dataset.label, predicted, strict=True)])
        counted = distinct_images(dataset.digest, dataset.targets)
        return float(correct[counted].mean())

    def save(self, folder: str | os.PathLike[str]) -> Bundle:
        """Write the classifier as a bundle, for :meth:`load` and ``kindsight predict``.

        Raises
        ------
        UsageError
            If `folder` exists and is not empty, or nothing was fitted.
        ParityError
            If the Keras and the LiteRT model disagree.
        """
        self._check_fitted()
        path = Path(folder)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UsageError(f"{folder} exists and is not empty. Save to a new folder.")
        if not hasattr(self, "_fitted"):
            raise UsageError(
                "A loaded classifier cannot be saved: copy the folder it was loaded from instead."
            )
        existed = path.exists()
        try:
            return self._write(path)
        except Exception:
            # What is left must not block the next attempt; before, the folder was empty.
            for name in (TFLITE_FILE, KERAS_FILE, HISTORY_FILE, TRAINED_ON_FILE):
                (path / name).unlink(missing_ok=True)
            if not existed:
                with contextlib.suppress(OSError):
                    path.rmdir()
            raise

    def export(
        self,
        folder: str | os.PathLike[str],
        to: str | Sequence[str] = "litert",
        X: Any = None,
        y: Any = None,
        *,
        images: int = 500,
        accept: bool = False,
        progress: Progress | None = None,
    ) -> tuple[Export, ...]:
        """Convert the classifier for other runtimes, and compare each export with it.

        Parameters
        ----------
        folder : path
            Each format gets a new folder of its name in it.
        to : str or sequence of str
            Formats, as of ``kindsight export``: ``"litert"``, ``"onnx"`` and others.
        X : ImageDataset, path, sequence of paths, or array, optional
            The images to compare on, as in :meth:`fit`. By default the validation images of the
            run that was loaded, or the images that were fitted on.
        y : sequence, optional
            A label for each image of `X`, by which the accuracy is measured.
        images : int
            Most images to compare on.
        accept : bool
            Whether to write an export that differs by more than its format allows.
        progress : callable, optional
            Called with (stage, done, total).

        Returns
        -------
        tuple of Export
            Of each format: ``folder``, ``status``, ``proof`` with the measured differences.

        Raises
        ------
        SettingsError
            For an unknown format.
        UsageError
            If the folder of a format exists, or a package for it is missing.
        ParityError
            If an export failed, once the others are written.
        """
        from kindsight.export.images import choose_images, images_of_run
        from kindsight.export.run import check_folders, export_bundle, raise_failures
        from kindsight.export.targets import find_targets

        self._check_fitted()
        targets = find_targets(to)
        check_folders(targets, folder)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
            loaded = self._predictor
            bundle = self._write(Path(temporary)) if loaded is None else loaded.bundle
            if X is not None:
                given = as_dataset(X, y, value_range=self._trained_range())
                compared = choose_images(given, given.split, images, bundle.classes)
            elif loaded is not None:
                compared = images_of_run(bundle, images)
            else:
                fitted = self._fitted.dataset
                compared = choose_images(fitted, ["train"] * len(fitted), images, bundle.classes)
            done = tuple(
                export_bundle(bundle, targets, folder, compared, accept=accept, progress=progress)
            )
        raise_failures(done)
        return done

    def _write(self, path: Path) -> Bundle:
        uncertainty = measure_uncertainty(self._fitted.held_out())
        if "_sets" in self.__dict__:
            uncertainty["sets"] = self._sets.to_dict()
        facts = {"uncertainty": uncertainty}
        with self._fitted.training.process() as keras:
            bundle = write_bundle(
                path, self._fitted, self._fitted.rows, keras, facts, requested=self._requested
            )
        if self._fitted.history is not None:
            self._fitted.history.write_csv(path / HISTORY_FILE)
        trained_on = (str(self._fitted.dataset.digest[row]) for row in self._fitted.rows)
        record_trained_images(trained_on, self._fitted.stored_images).write(path / TRAINED_ON_FILE)
        bundle.write()
        return bundle

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, workers: int | None = None) -> ImageClassifier:
        """Load a classifier from a bundle or a run folder, without TensorFlow.

        Raises
        ------
        BundleError
            If the bundle is incomplete, or its history damaged.
        """
        predictor = Predictor(folder, workers=workers)
        bundle = predictor.bundle
        # The requested settings, not the selected ones: a second fit selects again.
        settings = bundle.facts.get("requested_settings", bundle.facts.get("settings"))
        known = settings if isinstance(settings, dict) else {}
        given: dict[str, Any] = {
            # JSON has no tuples.
            name: tuple(value) if isinstance(value, list) else value
            for name, value in known.items()
            if name in cls._defaults and name not in ("cache", "workers")
        }
        classifier = cls()
        classifier.set_params(**given, workers=workers)
        classifier._predictor = predictor
        classifier.classes_ = np.array(bundle.classes)
        classifier.temperature_ = bundle.temperature
        classifier._load_uncertainty(bundle)
        fine_tuned = known.get("fine_tune") in ("light", "full") or known.get("budget") is not None
        history = load_history(folder, MONITOR if fine_tuned else "accuracy")
        if history is not None:
            classifier.history_ = history
        return classifier

    def _load_uncertainty(self, bundle: Bundle) -> None:
        parts = bundle.uncertainty
        try:
            if "unsure" in parts:
                self.risk_coverage_ = Unsure.from_dict(parts["unsure"]).curve
            if "sets" in parts:
                self._set_sets(StoredSets.from_dict(parts["sets"], len(bundle.classes)))
        except UsageError as error:
            raise BundleError(f"{bundle.folder / JSON_FILE} is invalid: {error}") from error

    def _trained_range(self) -> tuple[float, float] | None:
        """Return the range of values of the training; None without one."""
        predictor = getattr(self, "_predictor", None)
        if isinstance(predictor, Predictor):
            return predictor.bundle.spec.value_range
        return self._fitted.training.spec().value_range if hasattr(self, "_fitted") else None

    def _check_fitted(self) -> None:
        if not hasattr(self, "classes_"):
            raise UsageError("The classifier is not fitted. Call fit, or load a saved one.")


def _levels(confidence_level: float | Sequence[float] | None) -> tuple[float, ...]:
    """Return confidence levels as a tuple; SettingsError for one that is not between 0 and 1."""
    several = isinstance(confidence_level, (Sequence, np.ndarray))
    levels = tuple(confidence_level) if several else (confidence_level,)  # type: ignore[arg-type]
    for level in levels or (None,):
        check_level(level)  # type: ignore[arg-type]
    return tuple(float(level) for level in levels)  # type: ignore[arg-type]


document(ImageClassifier)
