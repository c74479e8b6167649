"""Digests of files and arrays."""

from __future__ import annotations

import hashlib

import numpy as np

from kindsight import digest
from kindsight.digest import content_digest, file_digest


def test_digest_of_bytes():
    # BLAKE2b of 16 bytes of nothing and of "abc", as b2sum -l 128 gives them.
    assert content_digest(b"") == "cae66941d9efbd404e4d88758ea67670"
    assert content_digest(b"abc") == "cf4ab791c62b8d2b2109c90275287816"


def test_digest_of_an_array_depends_on_shape_and_type_not_layout():
    image = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)
    assert content_digest(image) == content_digest(image.copy(order="F"))
    others = [
        image.reshape(6, 4, 3),
        image.transpose(1, 0, 2),
        image.view(np.int8),
        image[:3],
        image ^ 1,
    ]
    digests = {content_digest(other) for other in others}
    digests |= {content_digest(image), content_digest(image.tobytes())}
    assert len(digests) == 7
    assert all(len(digest) == 32 for digest in digests)


def test_digest_of_a_file_read_in_chunks(tmp_path, monkeypatch):
    data = bytes(range(256)) * 10
    (tmp_path / "some").write_bytes(data)
    monkeypatch.setattr(digest, "CHUNK_BYTES", 100)
    assert file_digest(tmp_path / "some") == hashlib.blake2b(data, digest_size=16).hexdigest()


def test_digest_of_text_that_is_not_valid_unicode():
    assert content_digest("a") == content_digest(b"a")
    assert len(content_digest("\ud800", 4)) == 8


def test_packed_digests_are_a_sequence_of_their_hexadecimal_digits():
    names = [content_digest(str(number)) for number in range(5000)]
    packed = np.array([list(bytes.fromhex(name)) for name in names], np.uint8)
    found = digest.Digests(packed)
    assert list(found) == names and (len(found), found[7], found[-1]) == (5000, names[7], names[-1])
    assert list(found[10:13]) == names[10:13] and names[4] in found
    assert list(found[np.array([3, 1])]) == [names[3], names[1]]
    assert list(found[np.arange(5000) == 2]) == [names[2]]
    assert not digest.Digests() and list(digest.Digests()) == []
