"""The memory against a plain list: its ring, its wrap-around, and that its whole state lies in buffers."""

from __future__ import annotations

import pytest
import torch

from isc.train.losses import ABSENT
from isc.train.memory_bank import Memory

DIM = 2


def rows(first: int, num: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings and photos that tell their own number: row n is [n, −n] and shows photo n."""
    numbers = torch.arange(first, first + num)
    return torch.stack([numbers.float(), -numbers.float()], dim=1), numbers


def held(memory: Memory) -> list[int]:
    """The photos that are held, in any order, each with its own embedding."""
    found = memory.contents()
    if found is None:
        return []
    embeddings, instances = found
    assert embeddings[:, 0].tolist() == instances[:, 0].tolist()
    assert embeddings[:, 1].tolist() == (-instances[:, 0]).tolist()
    return sorted(instances[:, 0].tolist())


def pushed(size: int, counts: list[int], *, labels: int = 1) -> Memory:
    memory, first = Memory(size, DIM, labels=labels), 0
    for count in counts:
        memory.push(*rows(first, count))
        first += count
    return memory


@pytest.mark.parametrize("size", [1, 3, 5, 8])
@pytest.mark.parametrize("counts", [[1], [2, 2, 2], [3, 5, 1, 2], [8, 8], [20], [4, 20, 3], [1] * 17])
def test_it_holds_the_newest_rows(size, counts):
    memory, newest, first = Memory(size, DIM), [], 0
    for count in counts:
        memory.push(*rows(first, count))
        newest = [*newest, *range(first, first + count)][-size:]
        first += count
        assert len(memory) == len(newest)
        assert held(memory) == newest


def test_the_ring_by_hand():
    """Five places; three rows, then four: the last two of these lie over the two oldest."""
    memory = pushed(5, [3, 4])
    assert memory.instances[:, 0].tolist() == [5, 6, 2, 3, 4]
    assert memory.written.item() == 7


def test_a_push_larger_than_the_memory_keeps_its_end_and_the_ring_goes_on():
    memory = pushed(3, [2, 7, 2])
    assert held(memory) == [8, 9, 10]
    memory.push(*rows(11, 1))
    assert held(memory) == [9, 10, 11]


def test_it_is_empty_at_first():
    memory = Memory(4, DIM)
    assert memory.contents() is None
    assert len(memory) == 0
    assert (memory.instances == ABSENT).all()


def test_size_0_keeps_nothing():
    memory = pushed(0, [3, 3])
    assert memory.contents() is None
    assert len(memory) == 0
    Memory(0, DIM).load_state_dict(memory.state_dict())


@pytest.mark.parametrize("before", [0, 2, 5, 9])
def test_a_restart_goes_on_where_it_was(before):
    straight = pushed(4, [before])
    other = Memory(4, DIM)
    other.load_state_dict(straight.state_dict())
    for memory in (straight, other):
        memory.push(*rows(before, 3))
    assert held(other) == held(straight)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in straight.state_dict().items())
    assert set(straight.state_dict()) == set(dict(straight.named_buffers()))
    assert list(straight.parameters()) == []


def test_a_memory_of_another_size_is_not_taken_up():
    with pytest.raises(RuntimeError, match="size mismatch"):
        Memory(5, DIM).load_state_dict(pushed(4, [3]).state_dict())


def test_several_photos_a_row():
    """What was in a place before is gone, its second photo too."""
    memory = Memory(2, DIM, labels=2)
    memory.push(torch.zeros(2, DIM), torch.tensor([[0, 1], [2, ABSENT]]))
    assert memory.contents()[1].tolist() == [[0, 1], [2, ABSENT]]
    memory.push(torch.ones(1, DIM), torch.tensor([7]))
    assert memory.contents()[1].tolist() == [[7, ABSENT], [2, ABSENT]]
    with pytest.raises(RuntimeError):
        memory.push(torch.zeros(1, DIM), torch.tensor([[0, 1, 2]]))


def test_no_gradient_and_no_view():
    """What it gives stays as it was when later rows come, and nothing of it leads back to the network."""
    memory, leaf = Memory(2, DIM), torch.ones(2, DIM, requires_grad=True)
    memory.push(leaf * 2, torch.arange(2))
    given = memory.contents()[0]
    assert not given.requires_grad
    memory.push(*rows(5, 2))
    assert given.tolist() == [[2.0, 2.0], [2.0, 2.0]]


def test_half_precision_rows_are_kept_in_float32():
    memory = Memory(2, DIM)
    memory.push(torch.ones(2, DIM, dtype=torch.bfloat16), torch.arange(2))
    assert memory.contents()[0].dtype == torch.float32
