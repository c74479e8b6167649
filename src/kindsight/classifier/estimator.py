"""scikit-learn's estimator contract, without scikit-learn, for the options of a training."""

from __future__ import annotations

import inspect
import textwrap
from typing import Any, ClassVar, TypeVar

from kindsight.errors import SettingsError
from kindsight.options import CLASSIFIER_OPTIONS
from kindsight.training.network.presets import OF_PRESETS
from kindsight.training.option_rules import option_faults, unknown_name_fault
from kindsight.training.protocols import Trainer
from kindsight.training.trainer import foreign_options, make_training

__all__ = ["Estimator", "document", "trainer_of"]

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
