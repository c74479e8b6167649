"""How a running cluster is joined, by the address of its head or of its Ray Client server."""

import pytest

from kindsight.distributed import ray_cluster
from kindsight.errors import ClusterError


@pytest.fixture
def joined(monkeypatch):
    """The addresses that were tried, with the errors they raise in `joined.errors`."""

    class Joined(list):
        errors: dict[str, Exception] = {}  # noqa: RUF012 (replaced by each test)
        head = "10.0.0.1:6379"

    tried = Joined()

    def init(address):
        tried.append(address)
        if address in tried.errors:
            raise tried.errors[address]

    def head_of(address):
        init(f"ray://{address}")
        return tried.head

    monkeypatch.setattr(ray_cluster, "_init", init)
    monkeypatch.setattr(ray_cluster, "_address_behind_client", head_of)
    monkeypatch.setattr(ray_cluster, "_use_token", lambda: None)
    return tried


def test_the_head_is_joined(joined):
    ray_cluster._join("ray://10.0.0.1:6379")
    assert joined == ["10.0.0.1:6379"]


def test_a_client_server_leads_to_the_head(joined):
    ray_cluster._join("ray://10.0.0.1:10001")
    assert joined == ["ray://10.0.0.1:10001", "10.0.0.1:6379"]
    del joined[:]
    joined.errors = {"10.0.0.1:7777": ConnectionError("Failed to connect")}
    ray_cluster._join("ray://10.0.0.1:7777")
    assert joined == ["10.0.0.1:7777", "ray://10.0.0.1:7777", "10.0.0.1:6379"]


def test_an_error_without_words_is_stated_by_its_type():
    assert ray_cluster.reason_of(ConnectionResetError()) == "ConnectionResetError."
    assert ray_cluster.reason_of(OSError("\n failed.\nmore")) == "failed."


def test_both_reasons_are_stated(joined):
    joined.errors = {
        "10.0.0.1:10001": ConnectionError("Failed to connect"),
        "ray://10.0.0.1:10001": ConnectionAbortedError(
            "Initialization failure from server:\nTraceback (most recent call last):\n"
            "FileNotFoundError: No such file"
        ),
    }
    with pytest.raises(ClusterError) as error:
        ray_cluster._join("ray://10.0.0.1:10001")
    assert str(error.value) == (
        "Could not join the Ray cluster at 10.0.0.1:10001. As the address of its Ray Client "
        "server: FileNotFoundError: No such file. As the address of its head: Failed to connect. "
        "Check the address, and run the command on a machine of the cluster, or add this machine "
        "to it."
    )
