"""The kernels of a GPU's normalisation, without one: their values in Triton's interpreter, and their machine code."""

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

pytest.importorskip("triton", reason="Triton is not installed")


def test_values_are_those_of_the_plain_formulation():
    """In a process of its own, since Triton decides when it is imported whether it interprets."""
    program = TESTS / "fixtures" / "gpu_normalisation.py"
    ended = subprocess.run([sys.executable, program], env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True)
    assert ended.returncode == 0, ended.stderr.decode()[-4000:]


def compiled(kernel, types, constants, capability):
    """Compile a kernel for a GPU that need not be there: pointers and channels are multiples of 16."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from fadrm_hf.networks.fused.gpu_kernels import OPTIONS

    names = kernel.arg_names
    multiples = [name for name, kind in types.items() if kind.startswith("*") or name == "num_channels"]
    source = ASTSource(
        kernel,
        signature={name: types.get(name, "constexpr") for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in multiples},
    )
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=dict(OPTIONS))


def accesses(code):
    """Count loads and stores of global memory in a thread's program, by the bytes that each moves."""
    assert len(code.asm["cubin"]) > 1000, "ptxas has made machine code of it"
    found = re.findall(r"\b(ld|st)\.global[.a-z0-9:_]*?(?:\.v(\d))?\.b(\d+)", code.asm["ptx"])
    return Counter((kind, int(count or 1) * int(bits) // 8) for kind, count, bits in found)


@pytest.mark.parametrize("capability", [80, 90])
def test_each_map_is_read_once_and_written_once_in_vectors(capability):
    """A thread holds 16 values of a tile, in 16-bit formats two accesses of 16 bytes; bytes of a mask are one."""
    from fadrm_hf.networks.fused.gpu_kernels import backward_kernel, forward_kernel, tile

    rows, width = tile(64)
    maps = dict.fromkeys(("maps", "residual", "outputs", "grad", "of_maps", "of_residual"), "*fp16")
    vectors = dict.fromkeys(("scale", "shift", "centre", "sums", "mean", "grad_gap", "grad_var"), "*fp32")
    types = maps | vectors | {"mask": "*u8", "num_rows": "i32", "num_channels": "i32"}
    constants = {"CHANNELS": 0, "ACTIVATION": "relu", "ADDS": True, "MASKS": True, "SUMS": True}
    constants |= {"ROWS": rows, "WIDTH": width}

    def of(kernel):
        names = kernel.arg_names
        chosen = [{name: table[name] for name in names if name in table} for table in (types, constants)]
        return accesses(compiled(kernel, *chosen, capability))

    channels = 4  # accesses for 16 numbers of 4 bytes, once for each vector of channels
    forward, backward = of(forward_kernel), of(backward_kernel)
    assert forward == {("ld", 16): 2 + 2 + 3 * channels, ("st", 16): 2 + 1, ("st", 4): 2}  # the latter: sums
    assert backward == {("ld", 16): 2 + 1 + 2 + 4 * channels, ("st", 16): 2 + 2}
