"""scikit-learn's estimator contract, without scikit-learn, and the images of each step."""

from __future__ import annotations

import inspect
import textwrap
import warnings
from typing import Any, ClassVar, TypeVar

from kindsight.dataset import ImageDataset
from kindsight.dataset.splits.stratified import random_split
from kindsight.errors import DatasetError, SettingsError
from kindsight.options import CLASSIFIER_OPTIONS
from kindsight.training.network.settings import OF_PRESETS
from kindsight.training.option_rules import option_faults, unknown_name_fault
from kindsight.training.protocols import Trainer
from kindsight.training.trainer import foreign_options, make_training

__all__ = [
    "Estimator", "document", "labelled_images", "trainer_of", "used_splits", "with_validation",
]  # fmt: skip

Self = TypeVar("Self", bound="Estimator")


class Estimator:
    """scikit-learn's estimator contract without scikit-learn; the parameters are the options.

    Options of which each kind of training has its own default, and those that select a kind of
    training, are None where omitted.
    """

    _defaults: ClassVar[dict[str, Any]] = {
        name: None
        if option.selects or name == "validation" or name in OF_PRESETS
        else option.default
        for name, option in CLASSIFIER_OPTIONS.items()
    }

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the constructor's parameters by name."""
        return {name: getattr(self, name) for name in self._defaults}

    def set_params(self: Self, **params: Any) -> Self:
        """Set parameters by name.

        Raises
        ------
        SettingsError
            For an unknown name.
        """
        for name in params:
            if name not in self._defaults:
                raise SettingsError(unknown_name_fault(name, self._defaults, "parameter"))
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        changed = (
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if value != self._defaults[name]
        )
        return f"{type(self).__name__}({', '.join(changed)})"

    def _repr_html_(self) -> str:
        from kindsight.notebook.values import classifier_html

        changed = {
            name: value
            for name, value in self.get_params().items()
            if value != self._defaults[name]
        }
        return classifier_html(self, changed)

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's tags."""
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags(),
            input_tags=InputTags(two_d_array=False, string=True),
        )

    def __sklearn_is_fitted__(self) -> bool:
        """Return whether the classifier was fitted or loaded."""
        return hasattr(self, "classes_")


def trainer_of(params: dict[str, Any], defaults: dict[str, Any]) -> Trainer:
    """Return the trainer for the parameters of a classifier, or raise with all faults."""
    changed = {name: value for name, value in params.items() if _differs(value, defaults[name])}
    given = {**dict.fromkeys(params), **changed, "model": params["model"]}
    validation = given.pop("validation")
    wrong = option_faults(params)
    training = make_training({k: v for k, v in given.items() if k not in wrong})
    faults = [*wrong.values(), *foreign_options(given)]
    if validation is not None and not training.by_gradient:
        faults.append(
            "`validation` is not used with a frozen backbone, whose head is selected by "
            "cross-validation. Leave it out, or set `fine_tune` or `budget`."
        )
    if faults:
        raise SettingsError("\n".join(dict.fromkeys([*faults, *training.faults()])))
    return training


def _differs(value: Any, default: Any) -> bool:
    """Return whether a parameter was changed; arrays and other objects count as changed."""
    same = value == default
    return not (isinstance(same, bool) and same)


def document(cls: type[Estimator]) -> None:
    """Write the options into the signature and the docstring."""
    this = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    parameters = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=cls._defaults[name],
            annotation=option.type,
        )
        for name, option in CLASSIFIER_OPTIONS.items()
    ]
    setattr(cls, "__signature__", inspect.Signature(parameters))  # noqa: B010
    setattr(cls.__init__, "__signature__", inspect.Signature([this, *parameters]))  # noqa: B010
    lines = []
    for name, option in CLASSIFIER_OPTIONS.items():
        text = option.python_help or option.help.removesuffix(" *")
        if option.shown_default and name != "validation":
            text += f" Default: {option.shown_default}."
        lines.append(f"{name} : {option.type_text}")
        lines += textwrap.wrap(text, 92, initial_indent="    ", subsequent_indent="    ")
    start, found, end = inspect.cleandoc(cls.__doc__ or "").partition("\nAttributes\n")
    if found:  # not with python -OO
        cls.__doc__ = start + "\n".join(lines) + "\n" + found + end


VALIDATION = 0.1
"""The default fraction of images for validation, where a training needs a validation split."""


def labelled_images(dataset: ImageDataset) -> ImageDataset:
    """Return the images that have a label, with a warning if there are others."""
    missing = sum(label is None for label in dataset.label)
    if missing == len(dataset):
        raise DatasetError(
            "Images must have labels; got none. Give y, or a folder of class folders."
        )
    if not missing:
        return dataset
    warnings.warn(
        f"{missing} of {len(dataset)} images have no label and were left out.", stacklevel=3
    )
    return dataset[[label is not None for label in dataset.label]]


def used_splits(dataset: ImageDataset, validates: bool) -> ImageDataset:
    """Return the train split, and the validation split where it is used; all without splits."""
    if all(split is None for split in dataset.split):
        return dataset
    wanted = ("train", "validation") if validates else ("train",)
    return dataset[[split in wanted for split in dataset.split]]


def with_validation(dataset: ImageDataset, size: float | None, seed: int) -> ImageDataset:
    """Return the dataset with a validation split of a fraction or a number of images."""
    share = VALIDATION if size is None else size
    if any(dataset.split) or not share:
        return dataset
    return random_split(dataset, validation=int(share) if share >= 1 else share, seed=seed)
