"""What the studio's page does, without a browser."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from fastapi.testclient import TestClient
from PIL import Image

from kindsight.studio.app import create_app
from kindsight.studio.studio import Studio

PORT = 8710
TOKEN = "0123456789abcdef" * 3


def png(seed: int, side: int = 24) -> bytes:
    """Return an image of coloured noise as a PNG."""
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


class Page:
    """What the studio's page does: requests with the token."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        app = create_app(studio, TOKEN, PORT)
        self.client = TestClient(app, base_url=f"http://127.0.0.1:{PORT}")
        self.client.headers["X-Kindsight-Token"] = TOKEN

    def get(self, path: str, **query: Any) -> Any:
        """Return the JSON of an answer."""
        answer = self.client.get(f"/api{path}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: Any = None, status: int = 200) -> Any:
        """Return the JSON of an answer to a change."""
        answer = self.client.post(f"/api{path}", json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    def add(self, *files: tuple[str, bytes], **fields: str) -> Any:
        """Add files as the page does."""
        parts = [("files", (name, data, "image/png")) for name, data in files]
        answer = self.client.post("/api/images", files=parts, data=fields)
        assert answer.status_code == 200, answer.text
        return answer.json()
