"""Losses against their formulas in plain Python, and their gradients against finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from isc.loss import info_nce, koleo

Rows = list[list[float]]


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def slow_info_nce(z: Rows, instances: list[int], tau: float) -> float:
    anchors = []
    for i, mine in enumerate(instances):
        positives = [j for j, other in enumerate(instances) if other == mine and j != i]
        negatives = sum(math.exp(dot(z[i], z[j]) / tau) for j, other in enumerate(instances) if other != mine)
        terms = [
            -math.log(math.exp(dot(z[i], z[p]) / tau) / (math.exp(dot(z[i], z[p]) / tau) + negatives))
            for p in positives
        ]
        if terms:
            anchors.append(sum(terms) / len(terms))
    return sum(anchors) / len(anchors) if anchors else 0.0


def slow_koleo(z: Rows, instances: list[int]) -> float:
    nearest = [
        min(math.dist(z[i], z[j]) for j, other in enumerate(instances) if other != mine)
        for i, mine in enumerate(instances)
    ]
    return -sum(math.log(max(d, 1e-6)) for d in nearest) / len(nearest)


def random_rows(seed: int, num: int, dim: int = 4) -> torch.Tensor:
    z = torch.randn(num, dim, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(z)


E1, E2 = [1.0, 0.0], [0.0, 1.0]
CASES = {
    "one pair each": [0, 1, 2, 0, 1, 2],
    "three views of one": [0, 0, 0, 1, 1, 2],
    "a row without positive": [4, 4, 9, 7, 7, 5],
    "large numbers": [10**12, 10**12 + 1, 10**12, 10**12 + 1, 3, 3],
}


# --- by hand ---------------------------------------------------------------------------------------------------------


def test_info_nce_of_four_vectors_by_hand():
    """Two photos, both views alike, the photos at right angles; τ = 1/2: each −log(e² / (e² + 2))."""
    z = torch.tensor([E1, E2, E1, E2])
    expected = math.log(1 + 2 * math.exp(-2))
    assert info_nce(z, torch.tensor([0, 1, 0, 1]), temperature=0.5).item() == pytest.approx(expected, rel=1e-6)


def test_koleo_of_four_vectors_by_hand():
    """The corners of a square: nearest neighbours of other instances lie √2 away; with opposite positives too."""
    z = torch.tensor([E1, E2, [-1.0, 0.0], [0.0, -1.0]])
    assert koleo(z, torch.arange(4)).item() == pytest.approx(-math.log(math.sqrt(2)), rel=1e-6)
    # two instances of adjacent corners: from each corner one of the other two still is √2 away
    assert koleo(z, torch.tensor([0, 0, 1, 1])).item() == pytest.approx(-math.log(math.sqrt(2)), rel=1e-6)
    # the first three are one instance: from (−1, 0) to (0, −1) √2, from (0, 1) it is 2
    expected = -(3 * math.log(math.sqrt(2)) + math.log(2)) / 4
    assert koleo(z, torch.tensor([0, 0, 0, 1])).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("instances", CASES.values(), ids=CASES)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_slow_twins(instances, seed, temperature):
    z = random_rows(seed, len(instances))
    rows, numbers = z.tolist(), torch.tensor(instances)
    assert info_nce(z, numbers, temperature=temperature).item() == pytest.approx(
        slow_info_nce(rows, instances, temperature), rel=1e-4, abs=1e-6
    )
    assert koleo(z, numbers).item() == pytest.approx(slow_koleo(rows, instances), rel=1e-4, abs=1e-6)


def test_rows_without_positive_are_negatives_but_no_anchors():
    """Anchors 0 and 1 at angle 0, a lone row at a right angle: log(1 + e^(−1)); without it 0."""
    z = torch.tensor([E1, E1, E2])
    assert info_nce(z, torch.tensor([0, 0, 1]), temperature=1.0).item() == pytest.approx(math.log(1 + math.exp(-1)))
    assert info_nce(z[:2], torch.tensor([0, 0]), temperature=1.0).item() == 0
    assert info_nce(z, torch.tensor([0, 1, 2]), temperature=1.0).item() == 0


def test_koleo_ignores_positives():
    """Twin views lie together; what counts is the other photo."""
    z = torch.tensor([E1, E1, E2, E2])
    assert koleo(z, torch.tensor([0, 0, 1, 1])).item() == pytest.approx(-math.log(math.sqrt(2)), rel=1e-6)


def test_koleo_falls_as_neighbours_part():
    def at(angle: float) -> float:
        return koleo(torch.tensor([E1, [math.cos(angle), math.sin(angle)]]), torch.tensor([0, 1])).item()

    assert at(0.1) > at(0.5) > at(2.0) > at(3.1)


def test_koleo_floor():
    z = torch.tensor([E1, E1])
    assert koleo(z, torch.tensor([0, 1])).item() == pytest.approx(-math.log(1e-6), rel=1e-5)
    assert koleo(z, torch.tensor([0, 1]), floor=0.01).item() == pytest.approx(-math.log(0.01), rel=1e-5)


# --- invariance ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("instances", CASES.values(), ids=CASES)
def test_order_and_names_do_not_matter(instances):
    z, numbers = random_rows(4, len(instances)), torch.tensor(instances)
    turned = torch.randperm(len(instances), generator=torch.Generator().manual_seed(1))
    for loss in (lambda a, b: info_nce(a, b, temperature=0.05), koleo):
        value = loss(z, numbers).item()
        assert loss(z[turned], numbers[turned]).item() == pytest.approx(value, rel=1e-5, abs=1e-7)
        assert loss(z, 5 * numbers + 3).item() == value


def test_info_nce_is_never_negative_and_small_where_all_is_right():
    z = torch.tensor([E1, E2, E1, E2])
    assert 0 <= info_nce(z, torch.tensor([0, 1, 0, 1]), temperature=0.05).item() < 1e-7
    wrong = info_nce(z, torch.tensor([0, 0, 1, 1]), temperature=0.05).item()
    assert wrong == pytest.approx(20 + math.log(1 + math.exp(-20)), rel=1e-6)  # one negative 1/τ nearer, one as near


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_losses_are_float32(dtype):
    z, numbers = random_rows(5, 6).to(dtype), torch.tensor(CASES["one pair each"])
    assert info_nce(z, numbers, temperature=0.05).dtype == torch.float32
    assert koleo(z, numbers).dtype == torch.float32


# --- gradients -------------------------------------------------------------------------------------------------------


def finite_differences(loss: Callable[[torch.Tensor], torch.Tensor], z: torch.Tensor, step: float) -> torch.Tensor:
    gradient = torch.zeros_like(z)
    for place in range(z.numel()):
        nudge = torch.zeros(z.numel()).index_fill_(0, torch.tensor(place), step).view_as(z)
        gradient.view(-1)[place] = (loss(z + nudge) - loss(z - nudge)).item() / (2 * step)
    return gradient


@pytest.mark.parametrize("instances", CASES.values(), ids=CASES)
def test_gradients_are_finite_differences(instances):
    """Both compute in float32, so torch's own check in float64 cannot be used; steps of 1/128 at loose tolerance."""
    z, numbers = random_rows(6, len(instances)), torch.tensor(instances)
    for loss in (lambda x: info_nce(x, numbers, temperature=0.5), lambda x: koleo(x, numbers)):
        leaf = z.clone().requires_grad_()
        loss(leaf).backward()
        torch.testing.assert_close(leaf.grad, finite_differences(loss, z, 2**-7), rtol=0.02, atol=2e-3)


@pytest.mark.parametrize("instances", [[0, 1, 2, 3], [0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 1]])
@pytest.mark.parametrize("rows", [[E1] * 4, [E1, E1, E2, E2], [E1, [-1.0, 0.0], E1, E1]])
def test_duplicates_give_finite_values_and_gradients(instances, rows):
    for loss in (lambda a, b: info_nce(a, b, temperature=0.05), koleo):
        leaf = torch.tensor(rows, requires_grad=True)
        value = loss(leaf, torch.tensor(instances))
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(leaf.grad).all()


def test_one_row():
    z = torch.tensor([E1], requires_grad=True)
    value = info_nce(z, torch.tensor([0]), temperature=0.05)
    value.backward()
    assert value.item() == 0
    assert (z.grad == 0).all()


def test_koleo_of_one_instance_has_nothing_to_part():
    """No row has a neighbour of another instance, so nothing counts; as for info_nce, which gives 0."""
    z = torch.tensor([E1, E2, E1], requires_grad=True)
    value = koleo(z, torch.tensor([7, 7, 7]))
    value.backward()
    assert value.item() == 0
    assert (z.grad == 0).all()
