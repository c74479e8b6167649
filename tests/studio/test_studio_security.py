"""The studio answers its own page, and nobody else."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from kindsight.studio.security import load_token
from kindsight.studio.state.adding import LIMITS
from studio_page import PORT, TOKEN, Page, png


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Kindsight-Token": ""},
        {"X-Kindsight-Token": "0" * 48},
        {"Host": "evil.example"},
        {"Host": f"evil.example:{PORT}"},
        {"Host": "127.0.0.1:9999"},
        {"Host": "127.0.0.1"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_other_sites_and_strangers_are_refused(page: Page, headers: dict[str, str]):
    page.add(("1.png", png(1)))
    for method, path in (("GET", "/api/project"), ("POST", "/api/undo")):
        answer = page.client.request(method, path, headers=headers)
        assert answer.status_code == 403, (path, answer.text)
    assert page.get("/project")["images"] == 1


@pytest.mark.parametrize("path", ["/api/images/0", "/api/thumbnails/0", "/api/events?x=1"])
def test_what_a_page_embeds_needs_the_cookie(page: Page, path: str):
    page.add(("1.png", png(1)))
    del page.client.headers["X-Kindsight-Token"]
    assert page.client.get(path).status_code == 403
    if "events" in path:
        return  # it does not end
    page.client.get(f"/?token={TOKEN}")
    assert page.client.get(path).status_code == 200
    assert page.client.post("/api/undo").status_code == 403
    assert page.client.get("/api/project").status_code == 403
    assert page.client.get(path, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403


def test_the_page_needs_the_token_once(page: Page):
    del page.client.headers["X-Kindsight-Token"]
    refused = page.client.get("/")
    assert refused.status_code == 403
    assert TOKEN not in refused.text
    first = page.client.get(f"/?token={TOKEN}", follow_redirects=False)
    assert first.status_code == 303
    assert first.headers["location"] == "/"
    cookie = first.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    shown = page.client.get("/")
    assert shown.status_code == 200
    assert TOKEN in shown.text


def test_answers_have_the_headers_that_keep_a_page_to_itself(page: Page):
    page.add(("1.png", png(1)))
    page.client.get(f"/?token={TOKEN}")
    for path in ("/", "/api/project", "/api/images/0", "/assets/studio/none.js", "/api/none"):
        headers = page.client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff", path
        assert "access-control-allow-origin" not in headers, path
        assert headers["referrer-policy"] == "no-referrer", path
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy, path
        assert "unsafe" not in policy, path
        assert "frame-ancestors 'none'" in policy, path
    preflight = page.client.options(
        "/api/label",
        headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"},
    )
    assert preflight.status_code == 403


@pytest.mark.parametrize(
    "path",
    ["/assets/../studio.py", "/assets/studio/../../library.py", "/assets/%2e%2e/library.py",
     "/assets/vendor/package.json", "/assets/page/index.html"],
)  # fmt: skip
def test_only_the_files_of_the_page_are_served(page: Page, path: str):
    answer = page.client.get(path)
    assert answer.status_code in (403, 404), answer.text[:100]


@pytest.mark.parametrize(
    "path",
    ["/api/runs/%2e%2e", "/api/runs/a%2fb", "/api/reports/runs/%2e%2e",
     "/api/exports/x/web/..%2f..%2fdataset.csv", "/api/exports/%2e%2e/web/x",
     "/api/images/99", "/api/images/-1", "/api/thumbnails/99", "/api/jobs/7"],
)  # fmt: skip
def test_what_does_not_exist_is_404(page: Page, path: str):
    assert page.client.get(path).status_code in (400, 404)


def test_an_image_never_becomes_a_page(page: Page):
    page.add(("1.png", png(1) + b"<script>alert(1)</script>"))
    answer = page.client.get("/api/images/0")
    assert answer.headers["content-type"] == "image/png"
    added = page.add(("evil.svg", b"<svg xmlns='http://www.w3.org/2000/svg'></svg>"))
    assert added["added"] == []
    assert len(added["unreadable"]) == 1


def test_a_request_that_is_too_large_is_refused_at_once(page: Page):
    answer = page.client.post(
        "/api/images", content=b"x", headers={"Content-Length": str(LIMITS["request_bytes"] + 1)}
    )
    assert answer.status_code == 413


def test_the_token_is_kept_for_this_user_alone(tmp_path: Path):
    path = tmp_path / "token"
    token = load_token(path)
    assert len(token) == 48
    assert load_token(path) == token
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text("short")
    assert load_token(path) != "short"
