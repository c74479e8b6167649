"""Which compute dtype a machine trains in."""

import pytest

from kindsight.models.steps import compute_dtype
from kindsight.models.steps.compute_dtype import choose_compute_dtype, has_fast_bfloat16


@pytest.fixture
def processor(tmp_path, monkeypatch):
    """Give a machine a processor with the instructions that are named."""
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    monkeypatch.setattr(compute_dtype, "CPUINFO", tmp_path / "cpuinfo")

    def have(flags):
        text = f"processor\t: 0\nflags\t\t: fpu {flags} avx2\n\nprocessor\t: 1\n"
        (tmp_path / "cpuinfo").write_text(text, encoding="utf-8")

    return have


@pytest.mark.parametrize(
    ("flags", "found"),
    # Multiplied in pairs without tiles, bfloat16 takes longer than float32.
    [("avx512_bf16", False), ("avx512_bf16 amx_tile amx_bf16", True), ("avx512f", False)],
)
def test_auto_depends_on_the_processor(processor, flags, found):
    processor(flags)
    assert has_fast_bfloat16() is found
    assert choose_compute_dtype("auto", batch_norm=False) == ("bfloat16" if found else "float32")
    assert choose_compute_dtype("auto", batch_norm=True) == "float32"


@pytest.mark.parametrize("asked", ["float32", "bfloat16"])
def test_explicit_compute_dtype(processor, asked):
    for flags in ("amx_bf16", "sse2"):
        processor(flags)
        assert choose_compute_dtype(asked, batch_norm=False) == asked


def test_machine_without_cpuinfo(processor):
    assert has_fast_bfloat16() is False


def test_without_onednn_bfloat16_is_not_fast(processor, monkeypatch):
    processor("amx_bf16")
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    assert has_fast_bfloat16() is False
