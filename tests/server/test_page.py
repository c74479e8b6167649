"""The page of a server, without a browser: policy, files, what needs no token."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

import tiny_bundle
from kindsight.server.app import create_app
from kindsight.server.settings import ServerSettings


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return tiny_bundle.write_bundle(tmp_path_factory.mktemp("served") / "colours")


@pytest.fixture(scope="module")
def client(bundle) -> TestClient:
    return TestClient(create_app([bundle], ServerSettings(token="t" * 20)))


def about(page: str) -> dict:
    return json.loads(re.search(r'id="server-info">(.*?)</script>', page)[1])


def test_the_page_and_its_files_need_no_token_and_state_a_strict_policy(client):
    page = client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    # Every script is a file of this server; the address may have a prefix behind a proxy.
    assert re.findall(r"<script (?!type=\"application/json\")([^>]*)>", page.text) == [
        'src="assets/page.js"'
    ]
    assert "<style" not in page.text
    assert not re.search(r"\s(style|on\w+)=", page.text)
    kinds = {"page.js": "text/javascript", "shrink.js": "text/javascript", "style.css": "text/css"}
    for name, kind in kinds.items():
        file = client.get(f"/assets/{name}")
        assert file.status_code == 200
        assert file.headers["content-type"] == f"{kind}; charset=utf-8"
        assert file.headers["x-content-type-options"] == "nosniff"
        assert not re.search(r"https?://(?!www\.w3\.org)", file.text)
    assert client.get("/v1/models").status_code == 401


def test_a_file_is_sent_again_only_when_it_has_changed(client):
    first = client.get("/assets/page.js")
    tag = first.headers["etag"]
    again = client.get("/assets/page.js", headers={"If-None-Match": f'"other", W/{tag}'})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/assets/page.js", headers={"If-None-Match": '"x"'}).status_code == 200
    assert client.head("/assets/page.js").content == b""


@pytest.mark.parametrize("name", ["index.html", "..%2Fpage.py", "%2e%2e/page.py", "page.js/", ""])
def test_no_other_file_is_served(client, name):
    assert client.get(f"/assets/{name}").status_code == 404


def test_the_page_knows_whether_corrections_are_kept(client, bundle, tmp_path):
    assert about(client.get("/").text) == {"keeps": False, "bytes": 32 * 2**20}
    settings = ServerSettings(keep=tmp_path / "kept", body_bytes=1000)
    keeping = TestClient(create_app([bundle], settings)).get("/").text
    assert about(keeping) == {"keeps": True, "bytes": 1000}
    assert "stores only corrected images, each with its correction." in keeping
