"""Checks of options by their declaration: all faults at once, in sentences."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from kindsight.options import OPTIONS, Option

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["option_faults", "plain_value", "read_option", "unknown_name_fault"]


def option_faults(values: Mapping[str, Any], names: Iterable[str] | None = None) -> dict[str, str]:
    """Return a sentence for each option whose value has a wrong type, range or choice, by name.

    Parameters
    ----------
    values : mapping
        Values by option name; None stands for an omitted option. Other names are ignored.
    names : iterable of str, optional
        The options to check; all if omitted.
    """
    chosen = OPTIONS if names is None else {name for name in names if name in OPTIONS}
    given = {
        name: plain_value(value)
        for name, value in values.items()
        if name in chosen and value is not None
    }
    given = {
        name: value for name, value in given.items() if not _fits_plainly(OPTIONS[name], value)
    }
    if not given:
        return {}
    # Importing pydantic takes a tenth of a second.
    from pydantic import ValidationError

    try:
        _model().model_validate(given)
    except ValidationError as error:
        names = dict.fromkeys(str(item["loc"][0]) for item in error.errors())
        return {name: _sentence(OPTIONS[name], given[name]) for name in names}
    return {}


def _fits_plainly(option: Option, value: Any) -> bool:
    """Return True if a value is of a simple type and valid; False if it may be invalid."""
    kind = type(value)
    if kind is str:
        fits = value in option.choices if option.choices else str in option.types
    else:
        fits = kind in (bool, int, float) and kind in option.types and _within(option, value)
    return fits and (option.check is None or option.check(value))


def _within(option: Option, value: float) -> bool:
    """Return whether a number is finite and within the option's bounds."""
    return (
        (type(value) is not float or math.isfinite(value))
        and (option.ge is None or value >= option.ge)
        and (option.gt is None or value > option.gt)
        and (option.le is None or value <= option.le)
        and (option.lt is None or value < option.lt)
    )


def unknown_name_fault(name: object, known: Collection[str], kind: str = "setting") -> str:
    """Return the sentence for a name that does not exist, with the nearest one that does."""
    near = difflib.get_close_matches(str(name), list(known), 1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."
    return f"Unknown {kind} {name!r}. {hint}"


def plain_value(value: Any) -> Any:
    """Return a value with NumPy scalars as Python numbers and lists as tuples."""
    if isinstance(value, list):
        return tuple(value)
    item = getattr(value, "item", None)
    return item() if callable(item) and getattr(value, "shape", None) == () else value


def read_option(option: Option, text: str | Sequence[str]) -> Any:
    """Return the value of an option given as text; the text itself where it cannot be read.

    Parameters
    ----------
    option : Option
    text : str or sequence of str
        From the command line; a sequence for an option that can be repeated.
    """
    if not isinstance(text, str):
        return text
    kinds = option.types
    if any(str(kind).startswith("collections.abc.Sequence") for kind in kinds):
        parts = [] if text.strip().lower() == "none" else [part.strip() for part in text.split(",")]
        number = next(
            (k for k in (int, float) if f"Sequence[{k.__name__}]" in str(option.type)), None
        )
        if number is None:
            return tuple(parts)
        numbers = [_number(part, number) for part in parts]
        return text if any(isinstance(number, str) for number in numbers) else tuple(numbers)
    if str in kinds or option.choices:
        return text
    for kind in (int, float):
        if kind in kinds and not isinstance(value := _number(text, kind), str):
            return value
    return text


def _number(text: str, kind: type[int] | type[float]) -> int | float | str:
    try:
        return kind(text)
    except ValueError:
        return text


@lru_cache(maxsize=1)
def _model() -> type[BaseModel]:
    """Return the pydantic model with a field for each option.

    Fields end in an underscore: some names, such as ``model``, would shadow pydantic's own.
    """
    from pydantic import AfterValidator, ConfigDict, Field, create_model

    fields: dict[str, Any] = {}
    for name, option in OPTIONS.items():
        rules: dict[str, Any] = {key: getattr(option, key) for key in ("ge", "gt", "le", "lt")}
        rules = {key: bound for key, bound in rules.items() if bound is not None}
        if option.types[0] is float:
            rules["allow_inf_nan"] = False
        kind: Any = option.type
        if option.check is not None:
            kind = _annotated(kind, AfterValidator(_checker(option)))
        fields[f"{name}_"] = (kind, Field(None, alias=name, **rules))
    return create_model(
        "Options", __config__=ConfigDict(strict=True, arbitrary_types_allowed=True), **fields
    )


def _annotated(kind: Any, validator: Any) -> Any:
    from typing import Annotated

    return Annotated[kind, validator]


def _checker(option: Option) -> Any:
    def check(value: Any) -> Any:
        assert option.check is not None
        if value is not None and not option.check(value):
            raise ValueError(option.rule)
        return value

    return check


def _sentence(option: Option, value: Any) -> str:
    shown = list(value) if isinstance(value, tuple) else value
    near = difflib.get_close_matches(str(value), option.choices, 1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"`{option.name}` must be {_rule(option)}; got {shown!r}.{hint}"


def _rule(option: Option) -> str:
    if option.rule:
        return option.rule
    if option.choices:
        return f"one of {', '.join(option.choices)}"
    kinds = option.types
    if bool in kinds:
        return "true or false"
    if float in kinds and str not in kinds:
        return f"a number {_range(option)}".rstrip()
    if kinds == (int,):
        return f"a whole number {_range(option)}".rstrip()
    return "text or a number" if {int, float} & set(kinds) else "text"


def _range(option: Option) -> str:
    low = f"above {option.gt:g}" if option.gt is not None else f"from {option.ge or 0:,}"
    if option.le is not None:
        return f"{low} to {option.le:,}"
    return f"{low} to below {option.lt:g}" if option.lt is not None else low
