"""The settings of a server: limits, security, corrections."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from kindsight.errors import SettingsError

__all__ = ["MIN_TOKEN", "ServerSettings", "is_loopback", "read_token"]

MIN_TOKEN = 16
"""Minimum number of characters of a token."""

MAX_TOKEN_FILE = 4096
"""Limit of the bytes of a token file."""

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
"""Names by which a client on the same machine reaches the server."""


@dataclass(frozen=True)
class ServerSettings:
    """Limits and security of a server.

    Parameters
    ----------
    token : str, optional
        Token that a client must send as ``Authorization: Bearer TOKEN``; if omitted, no token is
        needed.
    hosts : tuple of str, optional
        Accepted names in the header ``Host``; all by default.
    keep : pathlib.Path, optional
        Folder for corrections; if omitted, no image is stored.
    keep_bytes : int
        Limit of bytes of this folder's images.
    workers : int, optional
        Images processed at once; the number of cores by default.
    queue : int
        Maximum number of waiting images; further requests get the status 429.
    files : int
        Maximum number of images of a request.
    body_bytes : int
        Limit of bytes of a request's body.
    memory_bytes : int
        Limit of bytes of all uploads at once.
    pixels : int
        Limit of pixels (height times width) of an image.
    seconds : float
        Time limit in seconds of an upload, and of its predictions.
    grace : float
        Seconds for which a shutdown waits for requests that have begun.
    watch : float
        Seconds between two checks for changed bundles; 0 for none.

    Raises
    ------
    SettingsError
        If a number is out of its range.
    """

    token: str | None = None
    hosts: tuple[str, ...] | None = None
    keep: Path | None = None
    keep_bytes: int = 2 * 2**30
    workers: int | None = None
    queue: int = 256
    files: int = 64
    body_bytes: int = 32 * 2**20
    memory_bytes: int = 512 * 2**20
    pixels: int = 100_000_000
    seconds: float = 60.0
    grace: float = 30.0
    watch: float = 2.0

    def __post_init__(self) -> None:
        counts = ("keep_bytes", "queue", "files", "body_bytes", "memory_bytes", "pixels")
        for name in counts:
            if getattr(self, name) < 1:
                raise SettingsError(f"`{name}` must be at least 1; got {getattr(self, name)}.")
        if self.files > self.queue:
            raise SettingsError(
                f"`queue` must be at least `files`, or a request of {self.files} images would "
                f"always be rejected; got {self.queue}."
            )
        if self.body_bytes > self.memory_bytes:
            raise SettingsError(
                "`memory_bytes` must be at least `body_bytes`, or the largest request would always "
                f"be rejected; got {self.memory_bytes:,} and {self.body_bytes:,}."
            )
        for name in ("seconds", "grace"):
            if not 0 < getattr(self, name) <= 86_400:
                raise SettingsError(
                    f"`{name}` must be a number of seconds above 0, up to 86,400; got "
                    f"{getattr(self, name):g}."
                )


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine alone: ``localhost``, 127.0.0.0/8 or ::1."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def read_token(path: str) -> str:
    """Return the token in a file, without whitespace around it; SettingsError for none."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_TOKEN_FILE + 1)
        token = content.decode("ascii").strip()
    except OSError as error:
        raise SettingsError(
            f"`token_file` must be a readable file; got {path} ({error.strerror})."
        ) from error
    except UnicodeDecodeError:
        token = ""
    if not MIN_TOKEN <= len(token) <= MAX_TOKEN_FILE or not token.isprintable() or " " in token:
        raise SettingsError(
            f"`token_file` must contain one word of {MIN_TOKEN} or more ASCII characters; {path} "
            'does not. Make one: python -c "import secrets; print(secrets.token_urlsafe())" > FILE'
        )
    return token
