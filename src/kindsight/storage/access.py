"""Read, list and write files at addresses through fsspec, with limits of time and size.

Credentials and endpoints are those of fsspec and of each storage's own package: environment
variables, configuration files, roles of a machine. The packages are imported when the first
address of their kind is used.

Missing files are FileNotFoundError and forbidden ones PermissionError, as for local files; an error
of the storage as a whole is a :class:`kindsight.errors.StorageError`.
"""

from __future__ import annotations

import datetime
import logging
import os
import random
import socket
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple, TypeVar, cast

from kindsight.digest import content_digest
from kindsight.errors import MissingExtraError, StorageError
from kindsight.storage.address import scheme_of, shown, undirected

__all__ = [
    "Entry", "entries", "file_info", "forget_file_systems", "glob_files", "move", "open_file",
    "read", "read_range", "write",
]  # fmt: skip

CONNECT_SECONDS = 10
READ_SECONDS = 30
"""Limits of the wait for a connection, and for the next bytes."""

CALL_SECONDS = 300.0
LISTING_SECONDS = 900.0
"""Limits of the time of one request with its retries, and of listing one folder."""

TRIES = 4
"""Number of attempts where the storage's package does not retry by itself."""

MAX_IN_FLIGHT = 64
"""Limit of connections to one storage."""

_T = TypeVar("_T")

_HTTP = ("http", "https")

# Scheme -> the extra of kindsight, and another package that is needed.
_PACKAGES = {
    **dict.fromkeys(("s3", "s3a"), ("s3", "")),
    **dict.fromkeys(("gs", "gcs"), ("remote", "gcsfs")),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), ("remote", "adlfs")),
    **dict.fromkeys(_HTTP, ("remote", "")),  # aiohttp
}

# Schemes whose file system is the same for all addresses.
_HOSTLESS = {*_PACKAGES, "memory", "file", "local"}

_CREDENTIALS = {
    "s3": "Run 'aws configure', or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; for a public "
    "bucket, set FSSPEC_S3_ANON=true",
    "gs": "Run 'gcloud auth application-default login', or set GOOGLE_APPLICATION_CREDENTIALS; for "
    "a public bucket, set FSSPEC_GS_TOKEN=anon",
    "az": "Set AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME and "
    "AZURE_STORAGE_ACCOUNT_KEY",
}


# Environment variables that set another server than the default one of the store.
_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "gs": ("FSSPEC_GS_ENDPOINT_URL", "STORAGE_EMULATOR_HOST"),
    "az": ("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT_NAME"),
}


class Entry(NamedTuple):
    """A file or folder in a storage."""

    name: str  # the last component, as the storage spells it
    is_folder: bool
    size: int  # bytes; 0 if unknown
    version: int  # 63 bits; changes whenever the content does; 0 if unknown


class _FileSystems:
    """The file systems of this process by scheme."""

    lock = threading.Lock()
    of: dict[tuple[int, str, str], Any] = {}  # noqa: RUF012 (process-wide on purpose)


def forget_file_systems() -> None:
    """Open new connections the next time, with the credentials and endpoints of that moment."""
    with _FileSystems.lock:
        _FileSystems.of.clear()


def file_system(address: str) -> Any:
    """Return the fsspec file system of an address.

    Raises MissingExtraError if a package is missing, StorageError if the scheme is unknown.
    """
    scheme = scheme_of(address)
    # Other file systems are opened for a host, which is the first part of the address.
    host = "" if scheme in _HOSTLESS else address.partition("://")[2].partition("/")[0]
    key = (os.getpid(), scheme, host)  # a forked process needs its own connections
    with _FileSystems.lock:
        if key not in _FileSystems.of:
            _FileSystems.of[key] = _new_file_system(scheme, address)
        return _FileSystems.of[key]


def _new_file_system(scheme: str, address: str) -> Any:
    extra, package = _PACKAGES.get(scheme, ("remote", ""))
    what = f"Reading {scheme}:// addresses"
    for package_name in ("adlfs", "fsspec", "gcsfs", "s3fs"):
        # They would print warnings and retries; errors are raised anyway.
        logging.getLogger(package_name).addHandler(logging.NullHandler())
    try:
        import fsspec
    except ImportError:
        raise MissingExtraError(what, extra, package) from None
    try:
        kind = fsspec.get_filesystem_class(scheme)
        if scheme in ("gs", "gcs"):  # also looks for credentials on the network
            _check_server(_google_url(), address)
        options = _options(scheme)
        if scheme not in _HOSTLESS:
            options = {**kind._get_kwargs_from_urls(address), **options}
        found = kind(skip_instance_cache=True, **options)
        if _store_of(address) == "az":
            _check_server(getattr(found, "account_url", None) or "", address)
        if getattr(found, "async_impl", False) and hasattr(found, "set_session"):
            # Otherwise, each thread that starts before the first response would make one.
            _call(found, found.set_session, CALL_SECONDS)
        return found
    except ImportError as error:
        if scheme in _PACKAGES:
            raise MissingExtraError(what, extra, package) from None
        raise StorageError(f"{what} needs another package: {error}.") from None
    except ValueError as error:
        if "protocol not known" in str(error).lower() or scheme in str(error):
            raise StorageError(
                f"{shown(address)} is in no known kind of storage ({scheme}://). Known are s3, gs, "
                "az, http, https, file and memory, and others of fsspec that are installed."
            ) from None
        raise _translated(error, address) from error
    except StorageError:
        raise
    except Exception as error:  # each package has its own errors
        raise _translated(error, address) from error


def _google_url() -> str:
    """Return the URL of the server of gs:// addresses, as gcsfs chooses it."""
    variables = _ENDPOINTS["gs"]
    url = next((os.environ[name] for name in variables if os.environ.get(name)), "")
    if url in ("", "default"):
        return "https://storage.googleapis.com"
    return url if "://" in url else f"http://{url}"


def _options(scheme: str) -> dict[str, Any]:
    if scheme in ("s3", "s3a"):
        limits = {
            "connect_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS,
            "max_pool_connections": MAX_IN_FLIGHT, "retries": {"max_attempts": 2},
        }  # fmt: skip
        return {"config_kwargs": limits, "use_listings_cache": False}
    if scheme in _HTTP:
        import aiohttp

        limit = aiohttp.ClientTimeout(
            total=None, connect=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS
        )
        return {"client_kwargs": {"timeout": limit, "trust_env": True}}
    return {}


def _call(system: Any, function: Any, seconds: float, *args: Any, **kwargs: Any) -> Any:
    """Call a coroutine function on its file system's event loop."""
    from fsspec.asyn import sync

    return sync(system.loop, function, *args, timeout=seconds, **kwargs)


def _method(system: Any, name: str, seconds: float = CALL_SECONDS) -> Callable[..., Any]:
    """Return a method of a file system, with a time limit if it is asynchronous."""
    if not getattr(system, "async_impl", False):
        return cast("Callable[..., Any]", getattr(system, name))
    function = getattr(system, f"_{name}")
    return lambda *args, **kwargs: _call(system, function, seconds, *args, **kwargs)


def _attempt(action: Callable[[], _T], address: str) -> _T:
    """Return the result of an action; retry it if the storage's package does not."""
    tries = TRIES if scheme_of(address) in _HTTP else 1
    for left in reversed(range(tries)):
        try:
            return action()
        except (StorageError, MissingExtraError):
            raise
        except Exception as error:  # each package has its own errors
            translated = _translated(error, address)
            if not left or not isinstance(translated, _UnreachableError):
                raise translated from error
            time.sleep(0.3 * 2 ** (tries - left) * random.uniform(0.5, 1))
    raise AssertionError  # unreachable: the last attempt returns or raises


class _UnreachableError(StorageError):
    """The storage did not respond; a later attempt may succeed."""


_DENIED = {"PermissionError", "Forbidden"}
_NO_CREDENTIALS = {
    "NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError", "ProfileNotFound",
    "UnauthorizedSSOTokenError", "SSOTokenLoadError", "DefaultCredentialsError",
    "CredentialUnavailableError", "ClientAuthenticationError", "RefreshError",
}  # fmt: skip
_OFFLINE = {
    "TimeoutError", "ConnectionError", "gaierror", "ClientConnectionError", "ClientPayloadError",
    "ConnectTimeoutError", "ReadTimeoutError", "EndpointConnectionError", "HTTPClientError",
    "ConnectionClosedError", "ServiceRequestError", "ServerTimeoutError", "TransportError",
}  # fmt: skip
_REFUSED = ("ExpiredToken", "InvalidAccessKeyId", "SignatureDoesNotMatch", "TokenRefreshRequired")
_BUSY = ("SlowDown", "ServiceUnavailable", "InternalError")
# Permanently unknown; EAI_AGAIN means that the name server does not respond at the moment.
_UNKNOWN_HOST = {
    getattr(socket, name) for name in ("EAI_NONAME", "EAI_NODATA") if hasattr(socket, name)
}
_MISSING = {"FileNotFoundError", "NotADirectoryError", "ResourceNotFoundError"}


def _translated(error: BaseException, address: str) -> Exception:
    """Convert an error of a storage's package to one of Python or kindsight."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain and len(chain) < 10:
        chain.append(link)
        link = link.__cause__ or link.__context__
    kinds = {kind.__name__ for link in chain for kind in type(link).__mro__}
    statuses = [getattr(link, "status", getattr(link, "code", None)) for link in chain]
    codes = [getattr(link, "response", None) for link in chain]
    code = next((c["Error"].get("Code") for c in codes if isinstance(c, dict) and "Error" in c), "")
    lines = str(error).splitlines() or [""]
    # If the first line ends with a colon, botocore states the reason in the next one.
    text = " ".join(lines[: 1 + lines[0].endswith(":")])[:200].strip().rstrip(".:")
    text = text or type(error).__name__
    name = shown(address)
    missing = 404 in statuses or 410 in statuses or kinds & _MISSING
    busy = any(isinstance(s, int) and (s == 429 or s >= 500) for s in statuses)
    if kinds & _NO_CREDENTIALS or "credentials" in text.lower():
        cure = f"There are no credentials for {name} ({text}). {_cure(address)}"
        return StorageError(cure.rstrip())
    if code == "NoSuchBucket" or "bucket does not exist" in text:
        return StorageError(f"The bucket of {name} does not exist. Check its name and region.")
    if code in _REFUSED:
        cure = f"The credentials for {name} were rejected ({text}). {_cure(address)}"
        return StorageError(cure.rstrip())
    found: Exception = StorageError(f"{name} could not be read: {type(error).__name__}: {text}.")
    if missing:
        found = FileNotFoundError(2, "No such file", name)
    elif kinds & _DENIED or 401 in statuses or 403 in statuses or text.startswith("Forbidden"):
        found = PermissionError(13, f"Access denied ({text})", name)
    elif message := _no_server(chain, address):
        found = StorageError(message)
    elif kinds & _OFFLINE or busy or code in _BUSY:
        found = _UnreachableError(_unreachable(address, text))
    return found


def _no_server(chain: Sequence[BaseException], address: str, server: str = "") -> str:
    """Return the message for a refused connection or an unknown host; "" for another failure.

    Trying again at once would not help. `server` is the host, if the errors do not state it.
    """
    unknown = any(
        isinstance(link, socket.gaierror) and link.errno in _UNKNOWN_HOST for link in chain
    )
    if not unknown and not any(isinstance(link, ConnectionRefusedError) for link in chain):
        return ""
    # Of aiohttp's errors; behind a proxy or an endpoint, the host is not that of the address.
    stated = next((link for link in chain if getattr(link, "host", "")), None)
    if stated is not None:
        host, port = stated.host, getattr(stated, "port", "")  # type: ignore[attr-defined]
        server = f"{host}:{port}" if port and not unknown else str(host)
    name = shown(address)
    check = " Check the network connection"
    if scheme_of(address) in _HTTP or scheme_of(address) not in _HOSTLESS:
        check = f" Check the address{' and its port' * (not unknown)}"
        server = server or urllib.parse.urlsplit(address).hostname or "the server"
    else:
        variables = _ENDPOINTS.get(_store_of(address), ())
        set_by = [name for name in variables if os.environ.get(name)]
        if set_by:
            check = f" Check {' and '.join(set_by)}"
    if unknown:
        more = "" if check.endswith("connection") else ", and the network connection"
        return f"{name} could not be reached: the host {server} is unknown.{check}{more}."
    return (
        f"{name} could not be reached: {server} refused the connection.{check}, and that the "
        "server is running. Then run the same command again."
    )


def _cure(address: str) -> str:
    """Return how to set the credentials of a storage."""
    text = _CREDENTIALS.get(_store_of(address), "")
    return f"{text}." if text else ""


def _store_of(address: str) -> str:
    """Return the usual scheme of a storage that has several."""
    scheme = scheme_of(address)
    return {"gcs": "gs", "s3a": "s3", "abfs": "az", "abfss": "az"}.get(scheme, scheme)


def _check_server(url: str, address: str) -> None:
    """Raise StorageError if the server of a storage cannot be reached.

    Some packages would retry for a minute or more before they raise an error.
    """
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    if not host or urllib.request.getproxies():  # a proxy connects instead of this machine
        return
    port = parts.port or (80 if parts.scheme == "http" else 443)
    try:
        socket.create_connection((host, port), CONNECT_SECONDS).close()
    except (OSError, UnicodeError) as error:  # UnicodeError: not a valid host name
        server = host if isinstance(error, socket.gaierror) else f"{host}:{port}"
        message = _no_server([error], address, server)
        raise StorageError(message or _unreachable(address, f"{server}: {error}")) from error


def _unreachable(address: str, reason: str) -> str:
    return (
        f"{shown(address)} could not be reached ({reason}). Check the network and the address, and "
        "run the same command again."
    )


def _path(address: str) -> str:
    """Return the path of an address in its file system."""
    if "::" in address or "\0" in address:
        raise StorageError(f"{shown(address)} is not a simple address: it must not contain '::'.")
    _, _, rest = address.partition("://")
    return str(file_system(address)._strip_protocol(f"{scheme_of(address)}://{rest}"))


def file_info(address: str) -> Entry | None:
    """Return the file or folder at an address; None if there is none.

    At http and https, an address that ends in a slash is a folder.
    """
    system = file_system(address)
    if scheme_of(address) in _HTTP:
        if address.endswith("/"):
            return Entry(undirected(address).rpartition("/")[2], True, 0, 0)
        action = lambda: _call(system, _http_head, CALL_SECONDS, system, address)  # noqa: E731
    else:
        path = _path(address)
        action = lambda: _method(system, "info")(path)  # noqa: E731
    try:
        return _entry(_attempt(action, address))
    except FileNotFoundError:
        return None


def _entry(info: dict[str, Any]) -> Entry:
    name = str(info.get("name", "")).rstrip("/").rpartition("/")[2]
    return Entry(name, info.get("type") == "directory", int(info.get("size") or 0), _version(info))


_TAGS = ("ETag", "etag", "md5Hash", "generation", "content_md5", "Content-MD5")
_TIMES = ("LastModified", "last_modified", "updated", "mtime", "created", "Last-Modified")

_SETTLED_SECONDS = 60.0
"""A file that changed more recently may change again with the same modification time."""


def _version(info: dict[str, Any]) -> int:
    """Return a number for the content of a file; 0 if the storage states no version."""
    tags = [f"{key}={info[key]}" for key in _TAGS if info.get(key)]
    if not tags:
        times = [_seconds(info[key]) for key in _TIMES if info.get(key)]
        if (
            not times
            or None in times
            or max(t or 0 for t in times) > time.time() - _SETTLED_SECONDS
        ):
            return 0
        tags = [f"{times}"]
    digest = content_digest(f"{info.get('size')} {tags}", 8)
    return int(digest, 16) >> 1 or 1


def _seconds(value: Any) -> float | None:
    """Return a time in seconds since 1970."""
    if isinstance(value, datetime.datetime):
        return value.timestamp()
    if isinstance(value, (int, float)):
        return float(value)
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(str(value)).timestamp()
    except (TypeError, ValueError):
        return None


def entries(folder: str) -> list[Entry]:
    """Return the files and folders directly in a folder, sorted by name.

    Only names of a single path component are returned; the caller checks unusual ones.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    """
    system = file_system(folder)
    web = scheme_of(folder) in _HTTP
    path = undirected(folder) + "/" if web else _path(folder)
    found = _attempt(lambda: _method(system, "ls", LISTING_SECONDS)(path, detail=True), folder)
    start = path.rstrip("/") + "/"
    listed: dict[str, Entry] = {}
    for info in found:
        name = str(info.get("name", ""))
        entry = _entry(info)
        rest = name[len(start) :].rstrip("/") if name.startswith(start) else ""
        if web:
            rest = _plain_link(rest)
            entry = entry._replace(name=rest)
        if rest and "/" not in rest:
            listed[rest] = entry._replace(name=rest)
        elif (
            name.rstrip("/") == path.rstrip("/") and info.get("type") == "file" and len(found) == 1
        ):
            raise NotADirectoryError(20, "Not a folder", shown(folder))
    return [listed[name] for name in sorted(listed)]


def _plain_link(link: str) -> str:
    """Return the file name in a link of a web page; "" for a link that is not one."""
    if "?" in link or "#" in link:
        return ""
    name = urllib.parse.unquote(link)
    # Other characters are quoted again when the file is read.
    return link if any(mark in name for mark in "%?#/\\") else name


def glob_files(pattern: str, limit: int) -> list[str]:
    """Return the addresses that match a pattern, sorted; StorageError if there are too many."""
    system = file_system(pattern)
    found = _attempt(lambda: _method(system, "glob", LISTING_SECONDS)(_path(pattern)), pattern)
    if len(found) > limit:
        raise StorageError(
            f"{shown(pattern)} matches more than {limit:,} files. Use the folder instead."
        )
    return sorted(str(system.unstrip_protocol(name)) for name in found)


def read(address: str, max_bytes: int) -> bytes:
    """Return the content of a file; at most `max_bytes` + 1 bytes are fetched."""
    return read_range(address, 0, max_bytes + 1)


def read_range(address: str, start: int, end: int) -> bytes:
    """Return the bytes of a file from `start` up to `end`, fewer if the file ends earlier."""
    if end <= start:
        return b""
    system = file_system(address)
    if scheme_of(address) in _HTTP:
        return _attempt(
            lambda: cast(
                "bytes", _call(system, _http_get, CALL_SECONDS, system, address, start, end)
            ),
            address,
        )
    path = _path(address)

    def get() -> bytes:
        try:
            return bytes(_method(system, "cat_file")(path, start=start, end=end))
        except Exception:
            # Some storages raise an error for a range of an empty file, or after the end of a file.
            if start >= int(_method(system, "info")(path).get("size") or 0):
                return b""
            raise

    return _attempt(get, address)


async def _http_head(system: Any, address: str) -> dict[str, Any]:
    """Return a file's metadata from a web server, by HEAD or, if that is rejected, by GET."""
    session = await system.set_session()
    plain = {"Accept-Encoding": "identity"}
    url = system.encode_url(address)
    async with session.head(url, headers=plain, allow_redirects=True) as answer:
        if answer.status not in (403, 405, 501):
            return _http_info(address, answer)
    async with session.get(url, headers=plain) as answer:
        return _http_info(address, answer)


def _http_info(address: str, answer: Any) -> dict[str, Any]:
    answer.raise_for_status()
    tags = {key: answer.headers.get(key) for key in ("ETag", "Content-MD5", "Last-Modified")}
    length = answer.headers.get("Content-Length", "")
    return {
        "name": undirected(address), "type": "file", **tags,
        "size": int(length) if length.isdigit() else 0,
    }  # fmt: skip


async def _http_get(system: Any, address: str, start: int, end: int) -> bytes:
    """Read a range; of a server that ignores ranges, only the start of the file is fetched."""
    session = await system.set_session()
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-{end - 1}"
    content = bytearray()
    async with session.get(system.encode_url(address), headers=headers) as answer:
        if answer.status == 416:
            return b""
        answer.raise_for_status()
        if start and answer.status != 206:
            raise StorageError(
                f"The server of {shown(address)} does not send parts of files, which tar files "
                "need. Copy the file to a local disk."
            )
        async for chunk in answer.content.iter_chunked(1 << 20):
            content += chunk
            if len(content) >= end - start:
                break
    return bytes(content[: end - start])


@contextmanager
def translated_errors(address: str) -> Iterator[None]:
    """Raise errors of a storage's package as those of this module."""
    try:
        yield
    except (StorageError, MissingExtraError):
        raise
    except Exception as error:
        raise _translated(error, address) from error


def open_file(address: str) -> BinaryIO:
    """Open a file for random access; its parts are fetched when they are read."""
    system = file_system(address)
    with translated_errors(address):
        return cast("BinaryIO", system.open(_path(address), "rb", block_size=1 << 22))


def write(address: str, content: bytes | os.PathLike[str]) -> None:
    """Write a file, replacing an existing one; object stores show it only when complete."""
    system = file_system(address)
    path = _path(address)
    # Elsewhere, a reader could see a part of it: it is written under another name and renamed.
    is_store = getattr(system, "async_impl", False)
    target = path if is_store else f"{path}.part-{random.getrandbits(48):012x}"

    def put() -> None:
        if not is_store:
            system.makedirs(path.rpartition("/")[0], exist_ok=True)
        if isinstance(content, bytes):
            _method(system, "pipe_file")(target, content)
        else:
            _method(system, "put_file")(os.fspath(content), target)
        if not is_store:
            system.mv(target, path)

    _attempt(put, address)


def move(address: str, new_address: str) -> None:
    """Rename a file; object stores copy it and delete the original."""
    system = file_system(address)
    path, target = _path(address), _path(new_address)
    _attempt(lambda: system.mv(path, target), address)
