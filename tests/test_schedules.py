"""Table 8's cosine and Eq. 57, written out."""

import math

import pytest

from fadrm_hf.schedules import cosine


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0.25), (500, 0.125 * (1 + math.sqrt(0.5))), (1000, 0.125), (2000, 0.0)]
)
def test_plain_cosine(step, expected):
    assert cosine(0.25, step, 2000) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("eta", [1.0, 2.0, 3.0])
def test_eq_57(eta):
    for step in range(300):
        expected = 0.5 * (1 + math.cos(math.pi * step / (300 * eta)))
        assert cosine(1.0, step, 300, eta) == pytest.approx(expected, rel=1e-15)


def test_eta_2_ends_at_half_the_peak():
    assert cosine(1e-3, 300, 300, 2.0) == pytest.approx(0.5e-3, rel=1e-12)
