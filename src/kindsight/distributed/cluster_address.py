"""The option `on`: this machine, or the address of a Ray cluster."""

from __future__ import annotations

import importlib.util
import os
import re
import socket

from kindsight.errors import ClusterError, MissingExtraError, SettingsError
from kindsight.options import EXECUTOR_PATTERN

__all__ = ["LOCAL", "check_on", "cluster_address", "is_remote", "require_cluster"]

# Seconds within which the machine of a cluster must respond.
CONNECT_SECONDS = 5.0

LOCAL = "local"
"""The value of `on` for work in threads of this process."""


def check_on(on: str) -> None:
    """Raise SettingsError for an invalid value of `on`, MissingExtraError if Ray is not installed.

    Parameters
    ----------
    on : str
        ``"local"``, ``"ray"`` or ``"ray://HOST:PORT"``.
    """
    if on == LOCAL:
        return
    if not re.fullmatch(EXECUTOR_PATTERN, on):
        raise SettingsError(
            f"`on` must be local, ray, or ray://HOST:PORT of a running cluster; got {on!r}."
        )
    if importlib.util.find_spec("ray") is None or importlib.util.find_spec("pyarrow") is None:
        raise MissingExtraError("Running on Ray", "ray")


def is_remote(on: str | None) -> bool:
    """Return whether work runs on a cluster instead of in this process."""
    return on is not None and on != LOCAL


def cluster_address(on: str) -> str:
    """Return the address of a running cluster; empty for one that is to be started here."""
    address = os.environ.get("RAY_ADDRESS", "") if on == "ray" else on
    return "" if address == "local" else address


def require_cluster(on: str | None) -> None:
    """Check within seconds, before long work, that something listens at a cluster's address.

    Raises
    ------
    ClusterError
        If nothing listens at a cluster's address.
    SettingsError, MissingExtraError
        As :func:`check_on`.
    """
    if on is None or not is_remote(on):
        return
    check_on(on)
    address = cluster_address(on).removeprefix("ray://")
    if address in ("", "auto"):
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        raise ClusterError(
            f"No Ray cluster responds at {address} ({error}). Start one there, or check the "
            "address."
        ) from error
