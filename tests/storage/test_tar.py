import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kindsight.storage.shards import DamagedShardError, find_member, open_shard
from kindsight.storage.tar import TarIndex, index_tar

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=150)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
KINDS = st.sampled_from(
    [tarfile.REGTYPE] * 4 + [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE]
)


def written(entries: list[tuple[str, bytes, int]], format: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for name, kind, size in entries:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "target"
            info.size = size if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(bytes(info.size)))
    return buffer.getvalue()


def indexed(data: bytes, chunk: int = 1 << 16) -> TarIndex:
    return index_tar(lambda start, end: data[start:end], len(data), chunk=chunk)


def by_tarfile(data: bytes) -> list[tuple[str, int, int]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return [
            (member.name, member.offset_data, member.size) for member in archive if member.isreg()
        ]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(PATHS, KINDS, st.integers(0, 3000)), max_size=8),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    st.sampled_from([512, 4096]),
)
def test_members_are_those_of_tarfile(
    entries: list[tuple[str, bytes, int]], format: int, chunk: int
) -> None:
    data = written(entries, format)
    index = indexed(data, chunk)
    assert not index.damage
    usable = [
        member for member in by_tarfile(data)
        if not {"", ".", ".."}.intersection(member[0].removeprefix("./").split("/"))
    ]  # fmt: skip
    found = [tuple(member) for member in index.members]
    assert found == [(name.removeprefix("./"), *place) for name, *place in usable]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_of_a_damaged_archive_the_files_before_are_used(data: st.DataObject) -> None:
    entries = [(f"{k}.jpg", tarfile.REGTYPE, 700) for k in range(5)]
    whole = written(entries, tarfile.GNU_FORMAT)
    end = data.draw(st.integers(1, 5 * 1536 - 1))
    index = indexed(whole[:end])
    expected = [member for member in by_tarfile(whole) if member[1] + member[2] <= end]
    assert [tuple(member) for member in index.members] == expected
    # Between two files, only the missing end mark shows that something is missing.
    assert "truncated" in index.damage or end % 1536 in (0, *range(512 + 700, 1536))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=3000), st.integers(0, 1500))
def test_no_content_raises_another_error(noise: bytes, at: int) -> None:
    whole = written(
        [("a" * 200, tarfile.REGTYPE, 20), ("b", tarfile.REGTYPE, 9)], tarfile.PAX_FORMAT
    )
    changed = whole[:at] + noise + whole[at + len(noise) :]
    for member in indexed(changed).members:
        assert member.offset >= 0 and member.offset + member.size <= len(changed)


def test_links_devices_and_names_that_lead_out_are_named() -> None:
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)
    entries = [(f"{k}", kind, 0) for k, kind in enumerate(kinds)]
    entries += [("../up.jpg", tarfile.REGTYPE, 3), ("/root.jpg", tarfile.REGTYPE, 3)]
    index = indexed(written(entries, tarfile.PAX_FORMAT))
    assert len(index.members) == 0
    link, device, name = (f"{what} in an archive" for what in ("link", "device", "unusable name"))
    assert index.ignored == [
        ("0", link), ("1", link), ("2", device), ("3", device),
        ("../up.jpg", name), ("/root.jpg", name),
    ]  # fmt: skip


def test_a_huge_header_is_not_read() -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 40
    reads: list[int] = []

    def read(start: int, end: int) -> bytes:
        reads.append(end - start)
        return info.tobuf(tarfile.GNU_FORMAT)[start:end]

    assert "damaged at byte 0" in index_tar(read, 1 << 41).damage
    assert max(reads) <= 1 << 16


def test_the_index_is_made_once_and_again_after_a_change(
    tmp_path: Path, write_tar, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.tar"
    write_tar(path, {"1.jpg": b"one", "1.cls": b"cat"})
    first = open_shard(str(path))
    monkeypatch.setattr("kindsight.storage.shards.index_tar", None)
    assert open_shard(str(path)) == first
    assert [first.members.text(row) for row in range(2)] == [None, b"cat"]
    monkeypatch.undo()
    write_tar(path, {"2.jpg": b"another"})
    assert [member.name for member in open_shard(str(path)).members] == ["2.jpg"]
    assert find_member(str(path), "1.jpg") is None
    assert find_member(str(path), "2.jpg") == (512, 7)


def test_what_is_no_tar_file_is_refused(tmp_path: Path, write_tar) -> None:
    (tmp_path / "a.tar").write_bytes(b"\x1f\x8b" + bytes(600))
    with pytest.raises(DamagedShardError, match="is compressed"):
        open_shard(str(tmp_path / "a.tar"))
    (tmp_path / "b.tar").write_bytes(b"no archive" * 100)
    with pytest.raises(DamagedShardError, match="is not a tar file"):
        open_shard(str(tmp_path / "b.tar"))
