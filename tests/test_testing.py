"""The helpers other tests trust: each is shown to accept what is right and refuse the rest."""

import math

import numpy as np
import pytest
import torch

from tensorfast import reference
from tensorfast.testing import PROBLEMS, assert_close, planted, poisoned_memory, random_cp

EXACT = torch.tensor([[1.0, -2.0, 3.0], [4.0, -5.0, 6.0]], dtype=torch.float64)
FLOAT32_ULP = 2.0**-23


def with_entry(value: float, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    changed = EXACT.to(dtype, copy=True)
    changed[1, 2] = value
    return changed


def test_problems_have_unique_names_and_cover_orders_two_to_five():
    assert len({p.name for p in PROBLEMS}) == len(PROBLEMS)
    assert {len(p.shape) for p in PROBLEMS} == {2, 3, 4, 5}
    assert any(p.rank == 1 for p in PROBLEMS)
    assert any(p.rank > max(p.shape) for p in PROBLEMS)
    assert any(1 in p.shape for p in PROBLEMS)
    assert max(math.prod(p.shape) for p in PROBLEMS) < 10_000


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("congruence", [0.0, 0.3, 0.9])
def test_random_cp_has_the_congruence_and_condition_it_promises(congruence, dtype):
    rank = 4
    weights, factors = random_cp((9, 4), rank, dtype=dtype, congruence=congruence)
    condition = math.sqrt(1 + rank * congruence / (1 - congruence))
    for factor in factors:
        assert factor.dtype == dtype
        gram = factor.mH @ factor
        wanted = torch.full((rank, rank), congruence, dtype=dtype).fill_diagonal_(1.0)
        torch.testing.assert_close(gram, wanted, rtol=0, atol=1e-14)
        assert torch.linalg.cond(factor) == pytest.approx(condition, rel=1e-12)
    assert weights.dtype == torch.float64
    assert weights.tolist() == pytest.approx([2, 5 / 3, 4 / 3, 1])


def test_random_cp_has_unit_columns_where_the_rank_exceeds_the_mode():
    _, (factor,) = random_cp((3,), 7)
    assert factor.shape == (3, 7)
    torch.testing.assert_close(factor.norm(dim=0), torch.ones(7).double(), rtol=1e-14, atol=0)


def test_the_seed_fixes_everything_and_another_gives_another():
    (x, (_, factors)), (same, _), (other, (_, others)) = (
        planted((4, 5, 6), 2, noise=0.1, seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(x, same)
    assert not torch.allclose(x, other)
    assert not torch.allclose(factors[0].abs(), others[0].abs())


@pytest.mark.parametrize(
    ("noise", "dtype", "slack"),
    [
        (0.0, torch.float64, 1e-15),
        (1e-6, torch.float64, 1e-9),
        (0.5, torch.complex128, 1e-12),
        (2.0, torch.float64, 1e-12),
        # Rounding x adds about 3e-8 of its norm, at right angles to the noise.
        (1e-6, torch.float32, 2e-3),
    ],
)
def test_planted_noise_has_exactly_the_relative_norm_asked_for(noise, dtype, slack):
    x, (weights, factors) = planted((9, 10, 11), 3, noise=noise, dtype=dtype)
    assert x.dtype == dtype
    wide = torch.promote_types(dtype, torch.float64)
    model = reference.cp_to_tensor(weights.double(), [f.to(wide) for f in factors])
    actual = float((x.to(wide) - model).norm() / model.norm())
    assert actual == pytest.approx(noise, rel=slack, abs=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64], ids=str)
def test_assert_close_accepts_rounding(dtype):
    assert_close(EXACT.to(dtype), EXACT, EXACT.abs(), length=1)


def test_assert_close_accepts_empty_and_numpy_and_a_scalar_scale():
    assert_close(torch.empty(0, 3), torch.empty(0, 3), 1.0, length=0)
    frozen = EXACT.numpy().astype(np.float32)
    frozen.flags.writeable = False
    assert_close(frozen, EXACT, 1.0, length=3)
    back = EXACT.numpy()[::-1]
    assert_close(back, EXACT.flip(0), np.abs(back), length=1)


@pytest.mark.parametrize(
    "actual",
    [
        pytest.param(with_entry(6 + 3 * FLOAT32_ULP * 6, torch.float32), id="three ulps"),
        pytest.param(with_entry(-6.0), id="sign"),
        pytest.param(with_entry(math.nan), id="nan"),
        pytest.param(with_entry(math.inf), id="infinity"),
        pytest.param(EXACT.to(torch.complex128) * (1 + 1e-5j), id="imaginary part"),
    ],
)
def test_assert_close_refuses_a_wrong_entry(actual):
    with pytest.raises(AssertionError, match=r"of 6 entries are wrong; the worst is \["):
        assert_close(actual, EXACT, EXACT.abs(), length=1, dtype=torch.float32)


def test_assert_close_names_the_worst_entry_and_not_the_first():
    actual = EXACT.clone()
    actual[0, 0] += 1e-3
    actual[1, 1] += 1.0
    with pytest.raises(AssertionError, match=r"2 of 6 .* the worst is \[1, 1\]: -4"):
        assert_close(actual, EXACT, EXACT.abs(), length=10)


def test_assert_close_names_the_worst_entry_whatever_the_default_device():
    wrong = with_entry(7.0)
    with torch.device("meta"), pytest.raises(AssertionError, match=r"the worst is \[1, 2\]: 7"):
        assert_close(wrong, EXACT, 1.0, length=1)


def test_assert_close_puts_what_is_not_a_number_first():
    actual = with_entry(math.nan)
    actual[0, 0] = 100.0
    with pytest.raises(AssertionError, match=r"worst is \[1, 2\]: nan, expected 6"):
        assert_close(actual, EXACT, EXACT.abs(), length=1)


@pytest.mark.parametrize("special", [math.nan, math.inf])
def test_assert_close_refuses_what_is_not_finite_even_when_expected(special):
    with pytest.raises(AssertionError, match=r"1 of 6 .* \[1, 2\]"):
        assert_close(with_entry(special), with_entry(special), EXACT.abs(), length=1)
    with pytest.raises(AssertionError, match=r"1 of 6 .* \[1, 2\]"):
        assert_close(with_entry(special), EXACT, with_entry(math.inf).abs(), length=1)


def test_assert_close_allows_nothing_where_the_scale_is_zero():
    zero = torch.zeros(2)
    assert_close(zero, zero, zero, length=100)
    with pytest.raises(AssertionError, match=r"1 of 2 .* tolerance 0 "):
        assert_close(torch.tensor([0.0, 1e-30]), zero, zero, length=100)


@pytest.mark.parametrize("scale", [1e-60, 1e60])
def test_assert_close_takes_a_scale_beyond_the_range_of_float32(scale):
    exact = torch.full((2,), scale, dtype=torch.float64)
    assert_close(exact * (1 + 2.0**-52), exact, scale, length=1)
    with pytest.raises(AssertionError, match="2 of 2"):
        assert_close(exact * 1.01, exact, scale, length=1)


def test_assert_close_refuses_another_shape_even_if_it_broadcasts():
    with pytest.raises(AssertionError, match=r"shape \(2, 1\); expected \(2, 3\)"):
        assert_close(EXACT[:, :1], EXACT, 1.0, length=1)


@pytest.mark.parametrize(
    ("how", "times_unit"),
    [
        ({"dtype": torch.float64}, 2.0**-53),
        ({"dtype": torch.float32}, 2.0**-24),
        ({"dtype": torch.bfloat16}, 2.0**-24),
        ({"dtype": torch.complex64}, 2.0**-24),
        ({"dtype": torch.float32, "precision": "tf32"}, 2.0**-11),
        ({"dtype": torch.float32, "precision": "bf16"}, 2.0**-8),
        ({"dtype": torch.float64, "precision": "tf32"}, 2.0**-53),
        ({"dtype": torch.float32, "c": 8.0}, 2 * 2.0**-24),
    ],
    ids=str,
)
def test_the_tolerance_is_c_u_k_scale(how, times_unit):
    length, scale = 7, 3.0
    tolerance = 4 * times_unit * length * scale
    exact = torch.zeros(1, dtype=torch.float64)
    assert_close(exact + 0.999 * tolerance, exact, scale, length, **how)
    with pytest.raises(AssertionError, match="1 of 1"):
        assert_close(exact + 1.001 * tolerance, exact, scale, length, **how)


def test_a_result_stored_in_half_may_be_off_by_half_a_place_and_no_more():
    exact = torch.tensor([1.0 + 2.0**-9], dtype=torch.float64)
    assert_close(exact.bfloat16(), exact, 1.0, length=1)
    with pytest.raises(AssertionError, match="1 of 1"):
        assert_close(exact.bfloat16() + 2.0**-7, exact, 1.0, length=1)


def test_poisoned_memory_shows_what_was_not_written_and_puts_the_settings_back():
    def settings() -> tuple[bool, bool, bool]:
        return (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.utils.deterministic.fill_uninitialized_memory,
        )

    before = settings()
    with poisoned_memory():
        assert torch.empty(1000).isnan().all()
        assert torch.zeros(3).new_empty(5, dtype=torch.complex64).isnan().all()
    assert settings() == before
    with pytest.raises(ZeroDivisionError), poisoned_memory():
        raise ZeroDivisionError
    assert settings() == before
