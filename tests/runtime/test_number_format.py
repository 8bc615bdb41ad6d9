"""Number formats that a processor has no instructions for: computed in fp32, or said to be slow."""

import pytest
import torch
import torch.nn.functional as F

from fadrm_hf.networks.fused.geometry import Geometry
from fadrm_hf.runtime import number_format
from fadrm_hf.runtime.number_format import is_native, rounding_products, slow_format

pytestmark = pytest.mark.numerical


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_is_emulated_is_the_fp32_convolution_of_the_rounded_numbers_rounded_once(dtype, monkeypatch):
    monkeypatch.setattr("fadrm_hf.networks.fused.geometry.is_native", lambda wanted, device: wanted == torch.float32)
    torch.manual_seed(0)
    weight, bias, images = (torch.randn(shape).to(dtype) for shape in ((8, 4, 3, 3), (8,), (2, 4, 9, 9)))
    convolution = Geometry(weight, bias, (2, 2), (1, 1), (1, 1), 1)
    wide = images.float().requires_grad_()
    expected = F.conv2d(wide, weight.float(), bias.float(), 2, 1)
    found = convolution(images)
    assert found.dtype == dtype
    ulp = torch.finfo(dtype).eps
    torch.testing.assert_close(found.float(), expected, rtol=ulp, atol=ulp)
    grad = torch.randn_like(expected).to(dtype)
    (gradient,) = torch.autograd.grad(expected, wide, grad.float())
    found = convolution.gradient(grad, images.shape)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), gradient, rtol=ulp, atol=ulp)


def test_a_format_without_instructions_is_named_with_the_remedy(monkeypatch):
    assert is_native(torch.float32, "cpu") and is_native(torch.bfloat16, "cuda")
    assert slow_format("student.precision", "fp32", "cpu") is None
    monkeypatch.setattr(number_format, "is_native", lambda dtype, device: False)
    said = slow_format("student.precision", "bf16", "cpu")
    assert said is not None and "student.precision is bf16" in said and "--student.precision fp32" in said


def are_rounded():
    """What torch's two ways of asking say of convolutions and of matrix products."""
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    older = convolutions.allow_tf32, products.allow_tf32
    if hasattr(convolutions, "conv"):
        assert older == (convolutions.conv.fp32_precision == "tf32", products.fp32_precision == "tf32")
    return older


def test_factors_are_rounded_where_tf32_is_named_and_nowhere_else():
    before = are_rounded()
    for precision, expected in (("fp32", False), ("tf32", True), ("fp16", False), ("bf16", False)):
        with pytest.raises(KeyError), rounding_products(precision):
            assert are_rounded() == (expected, expected)
            with rounding_products("tf32"):
                assert are_rounded() == (True, True)
            assert are_rounded() == (expected, expected)
            raise KeyError
        assert are_rounded() == before


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="torch before 2.9 has one way to say it")
def test_what_a_program_has_set_in_the_newer_way_is_set_afterwards():
    products = torch.backends.cuda.matmul
    before = products.fp32_precision
    try:
        products.fp32_precision = "tf32"  # torch then refuses to say it in the older way
        with rounding_products("fp32"):
            assert are_rounded() == (False, False)
        assert products.fp32_precision == "tf32"
    finally:
        products.allow_tf32 = before == "tf32"
        products.fp32_precision = before
