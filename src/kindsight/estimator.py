"""What scikit-learn asks of an estimator, without scikit-learn."""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

from kindsight.errors import SettingsError

__all__ = ["Estimator"]

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
