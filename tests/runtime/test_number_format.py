"""Number formats that a processor has no instructions for: computed in fp32, or said to be slow."""

import pytest
import torch
import torch.nn.functional as F

from fadrm_hf.networks.fused.geometry import Geometry
from fadrm_hf.runtime import number_format
from fadrm_hf.runtime.number_format import is_native, slow_format

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
