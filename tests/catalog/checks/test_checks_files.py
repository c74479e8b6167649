"""Checks of files, each with pictures made for it."""

from __future__ import annotations

from check_pictures import file_of, scene

from kindsight.catalog.checks import CheckContext, CheckResult, all_checks


def run(code: str, context: CheckContext) -> CheckResult:
    (check,) = (check for check in all_checks() if check.code == code)
    return check.run(context)


def test_pictures_that_cannot_be_read(look) -> None:
    jpeg = file_of(scene(1), "png")
    damaged = bytearray(jpeg)
    damaged[len(jpeg) // 2] ^= 0xFF
    context = look(
        {
            "cat/a.png": jpeg,
            "cat/damaged.png": bytes(damaged),
            "dog/photo.jpg": b"\0\0\0\x18ftypheic" + bytes(40),
            "dog/b.png": scene(2),
        }
    )
    result = run("KS101", context)
    assert result.state == "found" and result.examined == 4
    assert [finding.paths for finding in result.findings] == [
        ("cat/damaged.png",),
        ("dog/photo.jpg",),
    ]
    assert "checksum" in result.findings[0].message
    assert "HEIC" in result.findings[1].message


def test_pictures_that_can_all_be_read(look) -> None:
    result = run("KS101", look({"cat/a.png": scene(1), "dog/b.jpg": scene(2)}))
    assert (result.state, result.findings, result.examined) == ("passed", (), 2)
