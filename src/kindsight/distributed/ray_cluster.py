"""Connect to a Ray cluster, or start one; check its nodes; disconnect or stop it."""

from __future__ import annotations

import logging
import os
import warnings
from types import TracebackType
from typing import Any

from kindsight.distributed.cluster_address import cluster_address, require_cluster
from kindsight.distributed.ray_executor import RayExecutor, on_every_node, reason_of
from kindsight.distributed.ray_worker import installed_versions, require_versions
from kindsight.errors import ClusterError, KindsightError
from kindsight.files import standard_error_hidden
from kindsight.threads import count_cores

__all__ = ["RayCluster"]

# Read by Ray when it is imported or started; the user's settings take precedence.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DEDUP_LOGS": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Workers have the same priority as threads of this process.
    "RAY_worker_niceness": "0",
}


class RayCluster:
    """The context of an executor on a cluster.

    Parameters
    ----------
    on : str
        ``"ray"`` or ``"ray://HOST:PORT"``.
    """

    def __init__(self, on: str) -> None:
        self._on = on
        self._connected = False

    def __enter__(self) -> RayExecutor:
        """Connect, or start a cluster; check every node."""
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        with standard_error_hidden():
            import ray
            import ray.data

            _silence()
            if not ray.is_initialized():
                self._connect()
                self._connected = True
        try:
            _configure(ray.data.DataContext.get_current())
            versions = installed_versions()
            for node, found in on_every_node(installed_versions):
                require_versions(versions, found, node)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return RayExecutor(versions)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Disconnect; stop the cluster if it was started here."""
        if self._connected:
            import ray

            ray.shutdown()
            self._connected = False

    def _connect(self) -> None:
        require_cluster(self._on)
        address = cluster_address(self._on)
        if address:
            _join(address)
            return
        try:
            _init(address="local", num_cpus=count_cores(), include_dashboard=False)
        except _ERRORS as error:
            raise KindsightError(f"Ray could not be started: {reason_of(error)}") from error


_ERRORS = (ConnectionError, RuntimeError, ValueError, OSError)


def _init(**options: Any) -> None:
    import ray

    ray.init(
        log_to_driver=False, configure_logging=False, logging_level=logging.CRITICAL, **options
    )


def _join(address: str) -> None:
    """Join a cluster by its address, or by that of its Ray Client server.

    Ray Data does not run over Ray Client, which only serves to find the cluster's address.
    """
    _use_token()
    plain = address.removeprefix("ray://")
    # An attempt with the wrong kind of server takes twenty to thirty seconds to fail.
    attempts = [("its head", _join_head), ("its Ray Client server", _join_behind_client)]
    if plain.endswith(f":{_CLIENT_PORT}"):
        attempts.reverse()
    reasons = []
    for server, join in attempts:
        try:
            join(plain)
            return
        except _ERRORS as error:
            reasons.append(f"As the address of {server}: {reason_of(error)}")
    raise ClusterError(
        f"Could not join the Ray cluster at {plain}. {' '.join(reasons)} Check the address, and "
        "run the command on a machine of the cluster, or add this machine to it."
    )


_CLIENT_PORT = 10001
"""Default port of a Ray Client server."""


def _join_head(address: str) -> None:
    _init(address=address)


def _join_behind_client(address: str) -> None:
    _init(address=_address_behind_client(address))


def _address_behind_client(address: str) -> str:
    """Return the address of the cluster that a Ray Client server belongs to."""
    import ray

    _init(address=f"ray://{address}")
    try:
        found: str = ray.get_runtime_context().gcs_address
    finally:
        ray.shutdown()
    return found


def _use_token() -> None:
    """Send the token of this user, if there is one, as Ray does to clusters that it starts."""
    # Private: Ray has no public API for it.
    try:
        from ray._private.authentication import authentication_token_setup as setup

        setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    except (ImportError, AttributeError, TypeError):  # versions of Ray without it
        pass


def _silence() -> None:
    """Turn off the logs, warnings and messages of Ray's Python libraries in this process."""
    from ray._private import worker
    from ray.util.annotations import RayDeprecationWarning

    warnings.filterwarnings("ignore", category=RayDeprecationWarning)
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # Private: with logs to the driver off, lost workers are still reported on standard output.
    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = _print_nothing


def _print_nothing(*_: object, **__: object) -> None:
    """Replace Ray's function that prints the cluster's messages."""


def _configure(context: Any) -> None:
    """Set Ray Data's options for this process."""
    context.execution_options.preserve_order = True
    # A task that is lost in every attempt leaves a gap in the results, which is detected.
    context.max_errored_blocks = -1
    context.enable_progress_bars = False
    context.enable_auto_log_stats = False
    for name in ("enable_operator_progress_bars", "print_on_execution_start"):
        if hasattr(context, name):
            setattr(context, name, False)
