"""Work on a cluster of machines: tasks, results in their order, and what happens when one is lost.

This package knows tasks, not images. Ray is imported only for a cluster.
"""

from kindsight.distributed.executor import Executor, LostTask, MakeWorker, Shared
from kindsight.distributed.open import executors_kept_open, open_executor
from kindsight.distributed.place import LOCAL, check_on, is_remote, require_cluster

__all__ = [
    "LOCAL", "Executor", "LostTask", "MakeWorker", "Shared", "check_on", "executors_kept_open",
    "is_remote", "open_executor", "require_cluster",
]  # fmt: skip
