"""Where the cache is, and notes on a cache folder that other machines or other users can change."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import platformdirs

__all__ = ["choose_cache", "default_folder", "network_file_system", "sharing_notes"]


def default_folder() -> Path:
    """Return ``$KINDSIGHT_CACHE``, or else the user's cache folder."""
    named = os.environ.get("KINDSIGHT_CACHE")
    return Path(named or platformdirs.user_cache_dir("kindsight", appauthor=False))


def choose_cache(path: Path, what: str, *, given: bool | None = None) -> str:
    """Return how to use another cache folder: ``set KINDSIGHT_CACHE to a folder``.

    The variable has no effect where a folder is given in Python.

    - `path`: the cache folder, or a file in it.
    - `what`: describes the other folder.
    - `given`: whether the folder was given; by default, whether it is another than the usual one.
    """
    if given is None:
        given = not path.absolute().is_relative_to(default_folder().absolute())
    return f"give {what} as `cache`" if given else f"set KINDSIGHT_CACHE to {what}"


# File systems of Linux whose files are on another machine.
NETWORK_TYPES = re.compile(
    r"nfs\d?|cifs|smb\d?|smbfs|9p|afs|ceph|lustre|gpfs|beegfs\w*|glusterfs|ncpfs|panfs|orangefs"
    r"|fuse\.(sshfs|glusterfs\w*|ceph\S*|s3fs|rclone|gcsfuse|davfs|smbnetfs)"
)
DRIVE_REMOTE = 4  # of Windows's GetDriveTypeW


def sharing_notes(folder: Path) -> list[str]:
    """Return warnings about the location and the permissions of a cache folder."""
    notes = []
    kind = network_file_system(folder)
    if kind is not None:
        notes.append(
            f"The cache folder {folder} is on a network drive ({kind}). The cache is slow "
            "there, and damaged if two machines use it at once. To use another one, "
            f"{choose_cache(folder, 'a folder on a local disk')}."
        )
    if os.name == "posix":
        notes += _access_notes(folder)
    return notes


def network_file_system(folder: Path) -> str | None:
    """Return the kind of the network file system that a folder is on, or None.

    Detected on Linux, and on Windows for network drives and paths that begin with a server.
    """
    if sys.platform == "win32":
        import ctypes

        drive = folder.resolve().drive
        remote = drive.startswith("\\\\") or (
            ctypes.windll.kernel32.GetDriveTypeW(drive + "\\") == DRIVE_REMOTE
        )
        return drive if remote else None
    try:
        mounts = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
    except OSError:
        return None
    kind = _mounted(mounts, folder.resolve())
    return kind if kind is not None and NETWORK_TYPES.fullmatch(kind) else None


def _mounted(mounts: str, folder: Path) -> str | None:
    """Return the file system of a folder from the text of ``/proc/self/mountinfo``."""
    found, depth = None, -1
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) < 5 or not kind:
            continue
        # Blanks and other special characters are written as \\040.
        name = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
        point = Path(name)
        # Of two file systems mounted at one path, the later hides the earlier.
        if len(point.parts) >= depth and folder.is_relative_to(point):
            found, depth = kind[0], len(point.parts)
    return found


def _access_notes(folder: Path) -> Iterator[str]:
    """Yield a note if other users of this machine may change a folder."""
    try:
        status = folder.stat()
    except OSError:
        return
    other = choose_cache(folder, "a folder of your own")
    cure = f"Whoever changes it can change your results. To use another one, {other}"
    # The administrator may change everything anyway.
    if status.st_uid not in (0, os.geteuid()):
        yield f"The cache folder {folder} belongs to another user ({_user(status.st_uid)}). {cure}."
    elif status.st_mode & stat.S_IWOTH:
        yield (
            f"Every user of this machine may write to the cache folder {folder}. {cure}, or run: "
            f"chmod o-w '{folder}'."
        )


def _user(number: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"number {number}"
