"""Number formats of networks, and which of them this machine computes in."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

from fadrm_hf.config import Precision

DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}


@contextmanager
def rounding_products(precision: Precision) -> Iterator[None]:
    """Let a GPU round the factors of fp32 products to 11 bits ("tf32"), or take them as they are, in the block.

    By itself torch rounds those of convolutions, and not those of matrix products.
    """
    before = _are_rounded()
    round_products(precision == "tf32", precision == "tf32")
    try:
        yield
    finally:
        round_products(*before)


def _are_rounded() -> tuple[bool, bool]:
    """Return whether factors of convolutions are rounded, and whether those of matrix products are."""
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    if not hasattr(convolutions, "conv"):  # before torch 2.9
        return convolutions.allow_tf32, products.allow_tf32
    return convolutions.conv.fp32_precision == "tf32", products.fp32_precision == "tf32"


def round_products(convolutions: bool, products: bool) -> None:
    """Let a GPU round the factors of fp32 convolutions and matrix products from now on, or not."""
    # In torch's older words and in its newer: it refuses to compute where they disagree.
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = convolutions, products
    if hasattr(torch.backends.cudnn, "conv"):
        torch.backends.cudnn.conv.fp32_precision = "tf32" if convolutions else "ieee"
        torch.backends.cuda.matmul.fp32_precision = "tf32" if products else "ieee"


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
