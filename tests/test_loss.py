"""Losses against their formulas in plain Python, and their gradients against finite differences."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from isc.train.losses import contrastive, copy_nce, info_nce, koleo, same_instance

Rows = list[list[float]]
Shown = list[set[int]]  # the photos that each row shows


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def shown(instances: torch.Tensor) -> Shown:
    rows = instances.tolist()
    return [{number for number in row if number != -1} if isinstance(row, list) else {row} for row in rows]


def slow_info_nce(z: Rows, shows: Shown, tau: float, bank: Rows = (), bank_shows: Shown = ()) -> float:
    others, other_shows = [*z, *bank], [*shows, *bank_shows]
    anchors = []
    for i, mine in enumerate(shows):
        positives = [j for j, other in enumerate(other_shows) if other & mine and j != i]
        negatives = sum(math.exp(dot(z[i], others[j]) / tau) for j, other in enumerate(other_shows) if not other & mine)
        terms = []
        for p in positives:
            near = math.exp(dot(z[i], others[p]) / tau)
            terms.append(-math.log(near / (near + negatives)))
        if terms:
            anchors.append(sum(terms) / len(terms))
    return sum(anchors) / len(anchors) if anchors else 0.0


def slow_contrastive(
    z: Rows, shows: Shown, margins: tuple[float, float], bank: Rows = (), bank_shows: Shown = ()
) -> float:
    pulled, pushed = [], []
    for i, mine in enumerate(shows):
        for j, (other, theirs) in enumerate(zip([*z, *bank], [*shows, *bank_shows], strict=True)):
            d = math.dist(z[i], other)
            if not theirs & mine:
                pushed.append(max(0.0, margins[1] - d))
            elif j != i:
                pulled.append(max(0.0, d - margins[0]))
    each = [[cost for cost in costs if cost > 0] for costs in (pulled, pushed)]
    return sum(sum(costs) / len(costs) for costs in each if costs)


def slow_koleo(z: Rows, shows: Shown, bank: Rows = (), bank_shows: Shown = ()) -> float:
    nearest = []
    for i, mine in enumerate(shows):
        far = [
            math.dist(z[i], other)
            for other, theirs in zip([*z, *bank], [*shows, *bank_shows], strict=True)
            if not theirs & mine
        ]
        nearest += [min(far)] if far else []
    return -sum(math.log(max(d, 1e-6)) for d in nearest) / len(nearest) if nearest else 0.0


def random_rows(seed: int, num: int, dim: int = 4) -> torch.Tensor:
    z = torch.randn(num, dim, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(z)


E1, E2 = [1.0, 0.0], [0.0, 1.0]
CASES = {
    "one pair each": [0, 1, 2, 0, 1, 2],
    "three views of one": [0, 0, 0, 1, 1, 2],
    "a row without positive": [4, 4, 9, 7, 7, 5],
    "large numbers": [10**12, 10**12 + 1, 10**12, 10**12 + 1, 3, 3],
    "mixed": [[0, -1], [1, -1], [2, -1], [0, 1], [1, -1], [2, 0]],
    "mixed with itself": [[0, -1], [0, 0], [1, -1], [1, 2], [2, -1], [3, 3]],
}
BANKS = {"no memory": None, "a memory": [0, 1, 9, 3], "a memory of mixtures": [[0, 2], [7, -1], [-1, -1], [3, 1]]}
LOSSES = {
    "info_nce": functools.partial(info_nce, temperature=0.5),
    "contrastive": functools.partial(contrastive, positive_margin=0.2, negative_margin=1.3),
    "koleo": koleo,
}


def bank_of(instances: list | None, seed: int = 11) -> tuple[torch.Tensor, torch.Tensor] | None:
    return None if instances is None else (random_rows(seed, len(instances)), torch.tensor(instances))


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


def test_info_nce_of_a_mixture_by_hand():
    """E1 shows 0, E2 shows 1, what lies between shows both: a positive of either, without a negative of its own."""
    z = torch.tensor([E1, E2, [math.sqrt(0.5), math.sqrt(0.5)]])
    expected = 2 * math.log(1 + math.exp(-math.sqrt(0.5))) / 3
    found = info_nce(z, torch.tensor([[0, -1], [1, -1], [0, 1]]), temperature=1.0)
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_info_nce_with_several_positives_by_hand():
    """E1 with the positives E1 and −E1 and the negative E2, τ = 1: the mean of log(1 + e^−1) and log(1 + e)."""
    z, bank = torch.tensor([E1]), torch.tensor([E1, [-1.0, 0.0], E2])
    expected = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(1))) / 2
    found = info_nce(z, torch.tensor([5]), temperature=1.0, memory=(bank, torch.tensor([5, 5, 6])))
    assert found.item() == pytest.approx(expected, rel=1e-6)
    assert info_nce(z, torch.tensor([5]), temperature=1.0).item() == 0


def test_contrastive_by_hand():
    """E1 and E2 show one photo, √2 apart; −E1 shows another, √2 from E2 and 2 from E1."""
    z, numbers = torch.tensor([E1, E2, [-1.0, 0.0]]), torch.tensor([0, 0, 1])
    root = math.sqrt(2)
    assert contrastive(z, numbers).item() == pytest.approx(root, rel=1e-6)  # all others farther than 1
    assert contrastive(z, numbers, negative_margin=1.5).item() == pytest.approx(root + (1.5 - root), rel=1e-5)
    margins = {"positive_margin": 0.5, "negative_margin": 2.0}  # pairs at the margin itself are not counted
    assert contrastive(z, numbers, **margins).item() == pytest.approx((root - 0.5) + (2 - root), rel=1e-5)
    assert contrastive(z, numbers, positive_margin=1.5).item() == 0


def test_contrastive_with_memory_by_hand():
    """E1 alone; kept: −E1 of the same photo, 2 apart, and E2 of another, √2 apart."""
    memory = torch.tensor([[-1.0, 0.0], E2]), torch.tensor([[0, 3], [1, -1]])
    found = contrastive(torch.tensor([E1]), torch.tensor([0]), negative_margin=1.5, memory=memory)
    assert found.item() == pytest.approx(2 + 1.5 - math.sqrt(2), rel=1e-6)


def test_koleo_with_memory_by_hand():
    """Of the kept rows the one of the same photo does not count, though it lies nearer."""
    memory = torch.tensor([[math.cos(0.1), math.sin(0.1)], E2]), torch.tensor([0, 1])
    found = koleo(torch.tensor([E1]), torch.tensor([0]), memory=memory)
    assert found.item() == pytest.approx(-math.log(math.sqrt(2)), rel=1e-6)


def test_same_instance_by_hand():
    one, two = torch.tensor([[0, -1], [1, 2], [-1, -1]]), torch.tensor([2, 0, -1])
    expected = [[False, True, False], [True, False, False], [False, False, False]]
    assert same_instance(one, two).tolist() == expected
    assert same_instance(two, one).T.tolist() == expected


@pytest.mark.parametrize("kept", BANKS.values(), ids=BANKS)
@pytest.mark.parametrize("instances", CASES.values(), ids=CASES)
@pytest.mark.parametrize("seed", range(3))
def test_slow_twins(instances, seed, kept):
    z, numbers, memory = random_rows(seed, len(instances)), torch.tensor(instances), bank_of(kept)
    rows, shows = z.tolist(), shown(numbers)
    bank = ([], []) if memory is None else (memory[0].tolist(), shown(memory[1]))
    for tau in (0.05, 1.0):
        found = info_nce(z, numbers, temperature=tau, memory=memory).item()
        assert found == pytest.approx(slow_info_nce(rows, shows, tau, *bank), rel=1e-4, abs=1e-6)
    for margins in ((0.0, 1.0), (0.3, 1.6)):
        found = contrastive(z, numbers, positive_margin=margins[0], negative_margin=margins[1], memory=memory).item()
        assert found == pytest.approx(slow_contrastive(rows, shows, margins, *bank), rel=1e-4, abs=1e-6)
    assert koleo(z, numbers, memory=memory).item() == pytest.approx(slow_koleo(rows, shows, *bank), rel=1e-4, abs=1e-6)


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
    renamed = torch.where(numbers == -1, -1, 5 * numbers + 3)
    for loss in LOSSES.values():
        value = loss(z, numbers).item()
        assert loss(z[turned], numbers[turned]).item() == pytest.approx(value, rel=1e-5, abs=1e-7)
        assert loss(z, renamed).item() == value


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_unused_places_show_no_photo(loss):
    """An empty row is nobody's positive; numbers [N], [N, 1] and those with spare places are the same."""
    z, numbers = random_rows(4, 6), torch.tensor(CASES["one pair each"])
    bank, kept = random_rows(5, 2), torch.tensor([1, 8])
    value = loss(z, numbers, memory=(bank, kept)).item()
    assert loss(z, numbers[:, None], memory=(bank, kept[:, None])).item() == value
    spare = torch.full((6, 1), -1)
    assert loss(z, torch.cat([numbers[:, None], spare], 1), memory=(bank, kept)).item() == value
    unknown = torch.tensor([-1, -1])
    assert loss(z, numbers, memory=(bank, unknown)).item() == loss(z, numbers, memory=(bank, unknown + 100)).item()


def test_info_nce_is_never_negative_and_small_where_all_is_right():
    z = torch.tensor([E1, E2, E1, E2])
    assert 0 <= info_nce(z, torch.tensor([0, 1, 0, 1]), temperature=0.05).item() < 1e-7
    wrong = info_nce(z, torch.tensor([0, 0, 1, 1]), temperature=0.05).item()
    assert wrong == pytest.approx(20 + math.log(1 + math.exp(-20)), rel=1e-6)  # one negative 1/τ nearer, one as near


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_losses_are_float32(dtype):
    z, numbers = random_rows(5, 6).to(dtype), torch.tensor(CASES["one pair each"])
    for loss in LOSSES.values():
        assert loss(z, numbers).dtype == torch.float32
        assert loss(z, numbers, memory=(z, numbers)).dtype == torch.float32


# --- gradients -------------------------------------------------------------------------------------------------------


def finite_differences(loss: Callable[[torch.Tensor], torch.Tensor], z: torch.Tensor, step: float) -> torch.Tensor:
    gradient = torch.zeros_like(z)
    for place in range(z.numel()):
        nudge = torch.zeros(z.numel()).index_fill_(0, torch.tensor(place), step).view_as(z)
        gradient.view(-1)[place] = (loss(z + nudge) - loss(z - nudge)).item() / (2 * step)
    return gradient


@pytest.mark.parametrize("kept", BANKS.values(), ids=BANKS)
@pytest.mark.parametrize("instances", CASES.values(), ids=CASES)
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_gradients_are_finite_differences(loss, instances, kept):
    """They compute in float32, so torch's own check in float64 cannot be used; steps of 1/128 at loose tolerance."""
    z, numbers, memory = random_rows(6, len(instances)), torch.tensor(instances), bank_of(kept)  # no kink is near
    leaf = z.clone().requires_grad_()
    loss(leaf, numbers, memory=memory).backward()
    slopes = finite_differences(lambda x: loss(x, numbers, memory=memory), z, 2**-7)
    torch.testing.assert_close(leaf.grad, slopes, rtol=0.02, atol=2e-3)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_what_is_remembered_receives_no_gradient(loss):
    z, bank = random_rows(1, 4).requires_grad_(), random_rows(2, 3).requires_grad_()
    loss(z, torch.tensor([0, 1, 0, 1]), memory=(bank, torch.tensor([0, 5, 6]))).backward()
    assert bank.grad is None
    assert (z.grad != 0).any()


@pytest.mark.parametrize("instances", [[0, 1, 2, 3], [0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 1]])
@pytest.mark.parametrize("rows", [[E1] * 4, [E1, E1, E2, E2], [E1, [-1.0, 0.0], E1, E1]])
def test_duplicates_give_finite_values_and_gradients(instances, rows):
    for loss in (functools.partial(info_nce, temperature=0.05), contrastive, koleo):
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


# --- CopyNCE ---------------------------------------------------------------------------------------------------------


def identity_places(count: int, points: int = 8) -> torch.Tensor:
    steps = (torch.arange(points) + 0.5) / points
    return torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1).expand(count, -1, -1, -1).clone()


def test_copy_nce_against_a_slow_sum():
    generator = torch.Generator().manual_seed(3)
    cells, keys = (torch.randn(2, 5, 3, 3, generator=generator) for _ in range(2))
    places = torch.rand(2, 12, 12, 2, generator=generator)
    places[0, :5] = -1
    total, seen = 0.0, 0
    for n in range(2):
        for i in range(9):
            share = torch.zeros(9)
            for y in range(12):
                for x in range(12):
                    px, py = places[n, y, x].tolist()
                    if (y * 3 // 12) * 3 + x * 3 // 12 == i and px >= 0:
                        share[int(py * 3) * 3 + int(px * 3)] += 1 / 16
            if share.sum() == 0:
                continue
            target = share**2 / (share**2).sum()
            cosine = torch.stack(
                [F.cosine_similarity(cells[n].flatten(1)[:, i], keys[n].flatten(1)[:, j], dim=0) for j in range(9)]
            )
            total -= float((target * torch.log_softmax(16 * cosine, dim=0)).sum())
            seen += 1
    assert copy_nce(cells, keys, places, power=2.0).item() == pytest.approx(total / seen, rel=1e-5)


def test_copy_nce_falls_when_cells_agree_with_where_they_come_from():
    keys = torch.eye(16).view(1, 16, 4, 4).expand(3, -1, -1, -1)
    agreeing = copy_nce(keys, keys, identity_places(3))
    mirrored = copy_nce(keys.flip(3), keys, identity_places(3))
    assert agreeing < 0.01 < mirrored
    assert copy_nce(keys.flip(3), keys, identity_places(3).flip(2)) == pytest.approx(agreeing.item(), abs=1e-6)


def test_copy_nce_of_copies_that_show_nothing_is_0_and_has_no_slope():
    cells = torch.randn(2, 4, 3, 3, requires_grad=True)
    loss = copy_nce(cells, torch.randn(2, 4, 3, 3), torch.full((2, 8, 8, 2), -1.0))
    loss.backward()
    assert loss.item() == 0
    assert (cells.grad == 0).all()
