"""Number formats of networks, and which of them this machine computes in."""

from functools import cache

import torch

from fadrm_hf.config import Precision

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@cache
def is_native(dtype: torch.dtype, device_type: str) -> bool:
    """Return whether a device has instructions for a format.

    On a CPU, bf16 needs AVX-512 or AVX-NE-CONVERT and fp16 AVX512-FP16 (on Arm, their like). Without them torch's
    convolutions in that format take 25 times as long as in fp32 (measured with AVX2, 64 channels at 16 px).
    """
    if device_type != "cpu" or dtype not in (torch.bfloat16, torch.float16):
        return True
    if not torch.backends.mkldnn.is_available():
        return False
    onednn = torch.ops.mkldnn  # it knows of the limit that ONEDNN_MAX_CPU_ISA sets
    ask = onednn._is_mkldnn_bf16_supported if dtype == torch.bfloat16 else onednn._is_mkldnn_fp16_supported
    return bool(ask())


def slow_format(option: str, precision: Precision, device_type: str) -> str | None:
    """Return what to print before long work in a format that this machine emulates; `None` where it need not.

    Args:
        option: The setting that asks for the format, e.g. "student.precision".
        precision: Its value.
        device_type: "cpu" or "cuda".
    """
    if is_native(DTYPES[precision], device_type):
        return None
    return (
        f"{option} is {precision}, for which this processor has no instructions: this will be many times slower than "
        f"fp32; unless the number has to be reproduced, set --{option} fp32"
    )
