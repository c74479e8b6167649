"""Run tasks on a cluster of machines, with results in order and retries of lost tasks.

This package knows tasks, not images. Ray is imported only for a cluster.
"""

from kindsight.distributed.cluster_address import LOCAL, check_on, is_remote, require_cluster
from kindsight.distributed.executor import Executor, LostTask, MakeWorker, Shared
from kindsight.distributed.open import open_executor, reuse_executors

__all__ = [
    "LOCAL",
    "Executor",
    "LostTask",
    "MakeWorker",
    "Shared",
    "check_on",
    "is_remote",
    "open_executor",
    "require_cluster",
    "reuse_executors",
]  # fmt: skip
