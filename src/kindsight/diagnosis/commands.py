"""Commands to copy: the run's own command line with some options changed."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from kindsight.options import OPTIONS

__all__ = ["applied", "check_command", "plain_command", "train_command"]

# Defaults that OPTIONS leaves to the trainer; a setting equal to them need not be typed.
_TRAINER_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "network": {"pooling": "flatten", "dense": [512], "filters": [16, 32, 64]},
    "transfer": {"pooling": "average", "dense": []},
    "frozen": {"fine_tune": "off"},
}
_NOT_TYPED = ("data", "run", "phases")

_OF_DATA = tuple(
    name
    for name, option in OPTIONS.items()
    if (not option.trainers or name == "value_range") and option.panel in ("Data", "Split")
)
"""Options on the data and its split, which a training of another kind keeps."""

_OF_CHECK = (
    *(
        name
        for name in _OF_DATA
        if OPTIONS[name].panel == "Data" and name not in ("data", "group_from")
    ),
    "workers",
    "on",
)
"""Options on how and where the images are read, which ``kindsight check`` has, too."""


def train_command(settings: Mapping[str, Any], changes: Mapping[str, Any], run: str = "") -> str:
    """Return the command line of a training with some of its options changed.

    Parameters
    ----------
    settings : mapping
        The options of the run by name; without ``"data"``, the command names DATA.
    changes : mapping
        Other values, or None for an option that is left out. Another ``"model"`` keeps only the
        options on the data.
    run : str
        The run folder, whose ``settings.toml`` is named where an option cannot be typed, and with
        a preset.
    """
    values = applied(settings, changes)
    untypable = [name for name, value in values.items() if _untypable(name, value)]
    # A preset has its own defaults, which are not known here.
    preset = values.get("preset") not in (None, OPTIONS["preset"].default)
    if run and (untypable or preset):
        return _by_file(settings, changes, run)
    values = {name: value for name, value in values.items() if name not in untypable}
    words = ["kindsight", "train", str(values.get("data", "DATA"))]
    words += _words(values, _defaults(values))
    for phase in values.get("phases") or ():
        words += ["--phase", _phase(phase)]
    return shlex.join(words)


def plain_command(settings: Mapping[str, Any]) -> str:
    """Return the command that trains a head on the default frozen backbone, on the same split."""
    return train_command(settings, {"model": OPTIONS["model"].default})


def check_command(settings: Mapping[str, Any]) -> str:
    """Return the command that checks the data of a run thoroughly."""
    values = {name: settings[name] for name in _OF_CHECK if settings.get(name) is not None}
    words = ["kindsight", "check", str(settings.get("data", "DATA")), "--full"]
    return shlex.join([*words, *_words(values, _defaults({}))])


def applied(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with changes; see :func:`train_command`."""
    values = dict(settings)
    if "model" in changes:
        values = {name: value for name, value in values.items() if name in ("data", *_OF_DATA)}
        if settings.get("seed"):
            values["seed"] = settings["seed"]
    values |= changes
    if phases := values.get("phases"):
        # A phase's own value would hide the changed one.
        own = set(changes) - {"phases"}
        values["phases"] = [
            {name: value for name, value in dict(phase).items() if name not in own}
            for phase in phases
        ]
    return {name: value for name, value in values.items() if value is not None}


def _kind(values: Mapping[str, Any]) -> str:
    if values.get("model") == "small-cnn":
        return "network"
    selected = any(OPTIONS[name].selects for name in values if name in OPTIONS)
    return "transfer" if selected else "frozen"


def _defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that need not be typed."""
    kind = _kind(values)
    found = {
        name: option.default
        for name, option in OPTIONS.items()
        # Without any of the options that select it, a backbone would not be trained by epochs.
        if not (kind == "transfer" and name == "freeze")
    }
    return {**found, **_TRAINER_DEFAULTS[kind]}


def _words(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    return [
        word
        for name, option in OPTIONS.items()
        if name in values
        and name not in _NOT_TYPED
        and option.flag != "-"
        and _plain(values[name]) != _plain(defaults.get(name))
        for word in _option_words(name, values[name])
    ]


def _option_words(name: str, value: Any) -> Iterator[str]:
    spelling = OPTIONS[name].spelling
    if isinstance(value, Mapping):
        for key, text in value.items():
            yield from (spelling, f"{key}={text}")
    elif isinstance(value, bool):
        yield spelling if value else f"--no-{name.replace('_', '-')}"
    else:
        yield from (spelling, _text(value))


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(_text(item) for item in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _phase(values: Mapping[str, Any]) -> str:
    return " ".join(
        f"{name.replace('_', '-')}={shlex.quote(_text(value))}" for name, value in values.items()
    )


def _untypable(name: str, value: Any) -> bool:
    """Return whether a value has no form on the command line: a policy, or two sides."""
    if name == "phases":
        return any(isinstance(item, Mapping) for phase in value for item in dict(phase).values())
    sides = name == "size" and isinstance(value, (list, tuple))
    return sides or (isinstance(value, Mapping) and name != "columns")


def _by_file(settings: Mapping[str, Any], changes: Mapping[str, Any], run: str) -> str:
    """Return the command that takes the other options from the run's settings file."""
    words = ["kindsight", "train", "--settings", f"{run.rstrip('/')}/settings.toml"]
    typed = {name: value for name, value in changes.items() if value is not None}
    words += [word for name in typed for word in _option_words(name, typed[name])]
    if settings.get("run"):
        # The file names the finished run.
        words += ["--run", f"{settings['run']}-2"]
    return shlex.join(words)
