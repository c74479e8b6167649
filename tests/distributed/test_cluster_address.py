"""The place of the work: what is refused before it starts, and how."""

import importlib.util

import pytest

from kindsight.distributed import open_executor, require_cluster
from kindsight.distributed.ray_worker import require_versions
from kindsight.errors import ClusterError, MissingExtraError, SettingsError


@pytest.mark.parametrize(
    "on", ["", "Ray", "ray://", "ray://host", "ray:6379", "spark", "ray://a b:1"]
)
def test_a_place_that_is_none(on):
    with pytest.raises(SettingsError, match=r"`on` must be local, ray, or ray://HOST:PORT"):
        require_cluster(on)


def test_local_needs_nothing():
    require_cluster("local")
    with open_executor("local") as executor, open_executor(None) as other:
        assert executor is other is None


def test_ray_that_is_not_installed(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *more: None if name == "ray" else real(name, *more),
    )
    with pytest.raises(MissingExtraError, match=r"pip install 'kindsight\[ray\]'"):
        require_cluster("ray")


def test_a_cluster_that_is_not_there(monkeypatch):
    pytest.importorskip("ray")
    with pytest.raises(ClusterError, match=r"No Ray cluster responds at 127\.0\.0\.1:1 "):
        require_cluster("ray://127.0.0.1:1")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ClusterError, match=r"No Ray cluster responds at 127\.0\.0\.1:1 "):
        require_cluster("ray")


def test_a_node_with_another_version_is_named():
    here = {"Python": "3.11.7", "kindsight": "0.2"}
    require_versions(here, dict(here), "10.0.0.5")
    with pytest.raises(ClusterError, match=r"The node 10\.0\.0\.5 has kindsight 0\.1, this"):
        require_versions(here, {**here, "kindsight": "0.1"}, "10.0.0.5")
