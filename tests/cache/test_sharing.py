"""Cache folders on network drives and of other users are recognised."""

import os
from pathlib import Path

import pytest

from kindsight.cache.folder import Cache
from kindsight.cache.location import network_file_system, sharing_notes
from kindsight.cache.sqlite_table import SqliteFile
from kindsight.errors import CacheError

MOUNTS = r"""22 1 0:21 / / rw,relatime - ext4 /dev/sda1 rw
30 22 0:40 / {0}/home rw,relatime shared:1 - nfs4 server:/home rw
31 22 0:41 / {0}/home/ada/local rw,relatime - xfs /dev/sdb1 rw
32 22 0:42 / {0}/my\040disk rw - cifs //server/share rw
33 22 0:43 / {0}/homely rw - fuse.sshfs server:/ rw
34 22 0:44 / {0}/twice rw - nfs server:/ rw
35 22 0:45 / {0}/twice rw - tmpfs none rw
broken line
"""


@pytest.mark.skipif(os.name == "nt", reason="mounts of Linux")
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (".", None),
        ("home", "nfs4"),
        ("home/ada/.cache/kindsight", "nfs4"),
        ("home/ada/local/kindsight", None),
        ("my disk/kindsight", "cifs"),
        ("homely/x", "fuse.sshfs"),
        ("homes/x", None),
        ("twice/x", None),
        ("link", "nfs4"),
    ],
)
def test_network_drives_of_linux(tmp_path, monkeypatch, name, kind):
    (tmp_path / "home").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "home")
    real = Path.read_text
    text = MOUNTS.format(tmp_path)
    monkeypatch.setattr(
        Path,
        "read_text",
        lambda path, *a: text if str(path) == "/proc/self/mountinfo" else real(path, *a),
    )
    assert network_file_system(tmp_path / name) == kind
    notes = sharing_notes(tmp_path / name)
    assert len(notes) == (kind is not None)
    advice = "give a folder on a local disk as `cache`"
    assert all(kind in note and advice in note for note in notes)


@pytest.mark.skipif(os.name == "nt", reason="owners and modes of POSIX")
def test_folders_that_others_may_change(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    assert sharing_notes(folder) == []  # not made yet
    folder.mkdir(mode=0o755)
    assert sharing_notes(folder) == []
    folder.chmod(0o775)  # a group that works together
    assert sharing_notes(folder) == []
    folder.chmod(0o777)
    (note,) = sharing_notes(folder)
    assert "Every user of this machine may write" in note and f"chmod o-w '{folder}'" in note
    folder.chmod(0o755)
    owner = folder.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    notes = sharing_notes(folder)
    assert len(notes) == (owner != 0)
    if owner == 0:
        os.chown(folder, 12345, -1)
        notes = sharing_notes(folder)
    assert "belongs to another user" in notes[0] and "a folder of your own" in notes[0]


class Numbers(SqliteFile):
    schema = "CREATE TABLE IF NOT EXISTS images (digest TEXT PRIMARY KEY)"
    probe = "SELECT digest FROM images LIMIT 0"


def test_a_file_system_without_shared_memory_is_refused(tmp_path, monkeypatch):
    # SQLite then answers with the journal mode that it kept, and no error.
    real = Numbers._persist
    monkeypatch.setattr(
        Numbers,
        "_persist",
        lambda table, statement: real(table, statement.replace("=WAL", "=DELETE")),
    )
    with pytest.raises(CacheError, match=r"journal mode is 'delete'.*give a folder on"):
        Numbers(Cache(tmp_path).features_file("x"))


def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch):
    def acquire(*_, **__):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr("kindsight.cache.sqlite_table.FileLock.acquire", acquire)
    with pytest.raises(CacheError, match=r"cannot be locked.*on a local disk as `cache`"):
        Numbers(tmp_path / "x.sqlite")
