"""Machine code made here: right, whatever other kinds of processor have left in the cache."""

import os
import subprocess
import sys
import sysconfig

import pytest
import torch

from fadrm_hf.runtime.compilation import can_compile, eager_instead, missing_for

pytestmark = pytest.mark.numerical

PROGRAM = """
import torch
from fadrm_hf.runtime.compilation import compiled

def scaled(images, scale):
    return (images * scale).relu() + images

torch.manual_seed(0)
images, scale = torch.randn(7, 33, 24), torch.randn(24)
torch.testing.assert_close(compiled(scaled, dynamic=True)(images, scale), scaled(images, scale))
print(torch.backends.cpu.get_cpu_capability())
"""


@pytest.mark.skipif(not can_compile("cpu"), reason="there is no C++ compiler")
@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"), reason="x86 knows several kinds"
)
def test_kinds_of_processor_share_a_cache_without_harm(tmp_path):
    """Without our tag the second of these gives NaN, and the third may end by a signal."""
    environment = {name: value for name, value in os.environ.items() if name != "ATEN_CPU_CAPABILITY"}
    environment["TORCHINDUCTOR_CACHE_DIR"] = str(tmp_path)
    for kind in ({}, {"ATEN_CPU_CAPABILITY": "avx2"}, {"ATEN_CPU_CAPABILITY": "default"}, {}):
        done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment | kind, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.fixture
def without_headers(monkeypatch, tmp_path):
    """A Python as Debian installs it without python3-dev."""
    monkeypatch.setattr(sysconfig, "get_path", lambda *_: str(tmp_path / "include"))
    missing_for.cache_clear()
    yield
    missing_for.cache_clear()


def test_what_is_missing_to_compile_is_named(without_headers, monkeypatch, tmp_path):
    """Triton and torch link what they compile to Python, and would fail in the middle of a run."""
    missing = missing_for("cpu")
    assert missing is not None and "Python.h in" in missing and str(tmp_path) in missing and "python3-dev" in missing
    assert not can_compile("cpu") and not can_compile("cuda")
    said = eager_instead("cpu")
    assert said is not None and missing in said and "recover.form is compiled" in said
    missing_for.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert missing_for("cpu") == "a compiler (g++ or clang++ or c++)" and missing_for("cuda") is not None
    assert missing_for("xpu") == "a compiler for xpu"
