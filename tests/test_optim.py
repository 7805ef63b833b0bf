"""How the weights move: stages and rates by hand, what is frozen, the groups, each optimiser's step, the average."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from isc.config.choices import Optimizer
from isc.config.train import ModelConfig, OptimConfig, Stage
from isc.errors import InputError
from isc.model.copy_model import CopyModel
from isc.model.load import initial_model
from isc.train.optimizer import (
    Average,
    Span,
    blocks_kept,
    freeze,
    make_optimizer,
    parameter_groups,
    plan,
    schedule,
    set_training,
)

SMALL = ModelConfig(backbone="test_efficientnet", weights="none", dim=8, image_size=32)


@pytest.fixture
def model() -> CopyModel:
    return initial_model(SMALL)


def norms(module: nn.Module) -> list[nn.Module]:
    return [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]


# --- stages ----------------------------------------------------------------------------------------------------------


def test_without_stages_there_is_one():
    assert plan(OptimConfig(steps=7, image_size=96)) == [Span(0, 7, Stage(image_size=96))]


def test_a_plan_by_hand():
    """Shares 6, 6 and 3 of 10 steps: 4, 8 and 10 are made after each."""
    stages = [Stage(share=6, image_size=32), Stage(share=6, image_size=64, strength=0.9), Stage(share=3, image_size=96)]
    found = plan(OptimConfig(steps=10, stages=stages, image_size=512))
    assert found == [Span(0, 4, stages[0]), Span(4, 8, stages[1]), Span(8, 10, stages[2])]


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 100, 4200])
@pytest.mark.parametrize("shares", [[1], [1, 1, 1], [20, 43, 37], [0.1] * 10, [1e-9, 1, 1e9], [5, 1e-12, 5]])
def test_every_step_falls_to_one_stage_in_their_order(steps, shares):
    stages = [Stage(share=share, image_size=32 + number) for number, share in enumerate(shares)]
    found = plan(OptimConfig(steps=steps, stages=stages))
    made = [(step, span.stage.image_size) for span in found for step in range(span.first, span.last)]
    assert [step for step, _ in made] == list(range(steps))
    assert [size for _, size in made] == sorted(size for _, size in made)
    for stage in stages:
        num = sum(size == stage.image_size for _, size in made)
        assert abs(num - steps * stage.share / sum(shares)) <= 1


def test_blocks_of_a_stage():
    options = OptimConfig(freeze_blocks=2)
    assert [blocks_kept(Stage(freeze_blocks=blocks), options) for blocks in (None, 0, 3)] == [2, 0, 3]


# --- rates -----------------------------------------------------------------------------------------------------------


def test_schedule_by_hand():
    options = OptimConfig(steps=100, warmup=0.04)
    assert [schedule(step, options) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert schedule(52, options) == pytest.approx(0.5)  # half of the 96 steps after the warm-up
    assert schedule(28, options) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert schedule(100, options) == pytest.approx(0.0)
    assert schedule(99, options) == pytest.approx(0.5 * (1 + math.cos(math.pi * 95 / 96)))
    rates = [schedule(step, options) for step in range(4, 101)]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("warmup", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_schedule_stays_a_share(steps, warmup):
    options = OptimConfig(steps=steps, warmup=warmup)
    assert all(0 < schedule(step, options) <= 1 for step in range(steps))


# --- what is frozen --------------------------------------------------------------------------------------------------


def learned(model: CopyModel) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_frozen_blocks_are_the_stem_and_the_first_ones(model):
    everything = learned(model)
    freeze(model, blocks=2, depthwise=False)
    frozen = everything - learned(model)
    assert {name.split(".")[1] for name in frozen} == {"conv_stem", "bn1", "blocks"}
    depths = sorted({name.split(".")[2] for name in frozen if ".blocks." in name})
    assert depths == ["0", "1"]
    assert {name for name in everything if ".blocks." in name and name.split(".")[2] in depths} <= frozen
    freeze(model, blocks=0, depthwise=False)
    assert learned(model) == everything


def test_more_frozen_blocks_than_there_are(model):
    with pytest.raises(InputError, match=r"train\.freeze_blocks=5: test_efficientnet has 5 blocks; expected fewer"):
        freeze(model, blocks=5, depthwise=False)


def test_a_network_without_known_blocks():
    model = CopyModel(ModelConfig(backbone="poolformer_s12", weights="none", dim=8))
    freeze(model, blocks=0, depthwise=False)
    with pytest.raises(InputError, match=r"train\.freeze_blocks=1: timm knows no blocks of poolformer_s12; expected 0"):
        freeze(model, blocks=1, depthwise=False)


def test_large_depthwise_kernels_alone_are_frozen():
    model = CopyModel(ModelConfig(weights="none", dim=8))
    freeze(model, blocks=0, depthwise=True)
    for name, module in model.backbone.named_modules():
        if isinstance(module, nn.Conv2d):
            large = module.groups > 1 and module.kernel_size == (5, 5)
            assert module.weight.requires_grad != large, name
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen
    assert all(name.endswith("conv_dw.weight") for name in frozen)


def test_set_training_freezes_the_backbone_alone(model):
    set_training(model, freeze_norms=True)
    assert not any(norm.training for norm in norms(model.backbone))
    assert model.norm.training
    assert model.linear.training
    set_training(model, freeze_norms=False)
    assert all(part.training for part in model.modules())


def test_frozen_blocks_keep_their_statistics(model):
    freeze(model, blocks=2, depthwise=False)
    set_training(model, freeze_norms=False)
    for norm in norms(model.backbone):
        assert norm.training == norm.weight.requires_grad
    assert {norm.training for norm in norms(model.backbone)} == {True, False}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.finish(model.project(torch.rand(4, 3, 32, 32) * 255))
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            weight = model.get_parameter(name.replace("running_var", "weight"))
            assert torch.equal(value, before[name]) != weight.requires_grad, name
    freeze(model, blocks=0, depthwise=False)
    set_training(model, freeze_norms=False)
    assert all(norm.training for norm in norms(model.backbone))


# --- groups and optimisers -------------------------------------------------------------------------------------------


def test_weight_decay_is_not_on_biases_and_norms():
    model = CopyModel(ModelConfig(backbone="test_vit", weights="none", dim=8))
    groups = parameter_groups(model, OptimConfig(weight_decay=0.05, backbone_lr=0.1))
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    assert {group["weight_decay"] for group in groups} == {0.05, 0.0}
    for name, parameter in model.named_parameters():
        assert (id(parameter) in decayed) == (parameter.ndim > 1), name
    assert id(model.linear.weight) in decayed


def test_every_parameter_is_in_one_group_with_its_rate(model):
    groups = parameter_groups(model, OptimConfig(backbone_lr=0.1))
    listed = [id(p) for group in groups for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in model.parameters())
    slow = {id(p) for group in groups if group["scale"] == 0.1 for p in group["params"]}
    assert slow == {id(p) for p in model.backbone.parameters()}


def one_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad(set_to_none=True)
    pictures = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 255
    model.finish(model.project(pictures))[:, 0].sum().backward()
    optimizer.step()


@pytest.mark.parametrize("optimizer", Optimizer)
def test_each_optimiser_moves_what_is_learned_and_nothing_else(model, optimizer):
    made = make_optimizer(model, OptimConfig(optimizer=optimizer, weight_decay=0.1, lr=0.01))
    freeze(model, blocks=2, depthwise=False)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    model.train()
    one_step(model, made)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) != parameter.requires_grad, name  # no decay on what is frozen


@pytest.mark.parametrize("optimizer", Optimizer)
def test_each_optimiser_goes_on_from_its_state(model, optimizer):
    options = OptimConfig(optimizer=optimizer, lr=0.01, momentum=0.8)
    straight = make_optimizer(model.train(), options)
    one_step(model, straight)
    other = copy.deepcopy(model)
    resumed = make_optimizer(other, options)
    resumed.load_state_dict(copy.deepcopy(straight.state_dict()))
    fresh_model = copy.deepcopy(model)
    for network, stepper in ((model, straight), (other, resumed), (fresh_model, make_optimizer(fresh_model, options))):
        one_step(network, stepper)
    same = [torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True)]
    assert all(same)
    assert not torch.equal(model.linear.weight, fresh_model.linear.weight)  # the state does matter


def test_sgd_by_hand():
    """v ← 0.5 v + g + 0.1 w, w ← w − 0.2 v, twice, from w = 1 with g = 2; the bias does not decay."""
    model = CopyModel(ModelConfig(backbone="test_resnet", weights="none", dim=8, batch_norm=False))
    made = make_optimizer(model, OptimConfig(optimizer=Optimizer.sgd, weight_decay=0.1, lr=0.2, momentum=0.5))
    for parameter in (model.linear.weight, model.linear.bias):
        nn.init.ones_(parameter)
        parameter.grad = torch.full_like(parameter, 2.0)
    made.step()
    torch.testing.assert_close(model.linear.weight, torch.full_like(model.linear.weight, 1 - 0.2 * 2.1))
    torch.testing.assert_close(model.linear.bias, torch.full_like(model.linear.bias, 1 - 0.2 * 2.0))
    made.step()
    second = 0.5 * 2.1 + 2 + 0.1 * (1 - 0.42)
    torch.testing.assert_close(model.linear.weight, torch.full_like(model.linear.weight, 0.58 - 0.2 * second))


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_lars_by_hand(decay):
    """‖w‖ and ‖g‖ decide the length of a step, 0.001 · ‖w‖ · lr, where the gradient is all there is; also without
    decay. A bias takes the plain step."""
    model = CopyModel(ModelConfig(backbone="test_resnet", weights="none", dim=8, batch_norm=False))
    made = make_optimizer(model, OptimConfig(optimizer=Optimizer.lars, weight_decay=decay, lr=2.0, momentum=0.9))
    weight, bias = model.linear.weight, model.linear.bias
    nn.init.ones_(weight)
    nn.init.ones_(bias)
    weight.grad, bias.grad = torch.full_like(weight, 1e6), torch.full_like(bias, 3.0)
    made.step()
    torch.testing.assert_close(weight, torch.full_like(weight, 1 - 2.0 * 0.001), rtol=1e-6, atol=0)
    torch.testing.assert_close(bias, torch.full_like(bias, 1 - 2.0 * 3.0))


# --- averaged weights ------------------------------------------------------------------------------------------------


class Toy(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([value]))
        self.register_buffer("mean", torch.tensor([value]))
        self.register_buffer("batches", torch.tensor(int(value)))

    def set(self, value: float) -> None:
        with torch.no_grad():
            for _, tensor in [*self.named_parameters(), *self.named_buffers()]:
                tensor.fill_(value)


def test_the_average_by_hand():
    """Decay 0.15: after step 0 it keeps 1/10, after step 1 2/11 would exceed it, so 0.15."""
    toy = Toy(1.0)
    average = Average(toy, 0.15)
    toy.set(2.0)
    average.update(0)
    assert average.state["weight"].item() == pytest.approx(0.1 * 1 + 0.9 * 2)
    toy.set(4.0)
    average.update(1)
    expected = 0.15 * 1.9 + 0.85 * 4
    assert average.state["weight"].item() == pytest.approx(expected)
    assert average.state["mean"].item() == pytest.approx(expected)  # statistics too
    assert average.state["batches"].item() == 4  # counters are those of the model
    assert toy.weight.item() == 4.0


def test_without_decay_the_average_is_the_model():
    toy = Toy(1.0)
    average = Average(toy, 0.0)
    for step, value in enumerate((3.3, -7.1, 1e-20)):
        toy.set(value)
        average.update(step)
        assert all(torch.equal(average.state[name], tensor) for name, tensor in toy.state_dict().items())


class NoOperations(TorchDispatchMode):
    """Raise at every operation on a tensor but those named."""

    def __init__(self, *allowed: str) -> None:
        super().__init__()
        self.left = list(allowed)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert str(func).split(".")[1] in self.left, func
        self.left.remove(str(func).split(".")[1])
        return func(*args, **(kwargs or {}))


def test_a_step_of_the_average_is_two_kernels_and_none_without_decay():
    for decay, kernels in ((0.0, ()), (0.5, ("_foreach_lerp_", "_foreach_copy_"))):
        toy = Toy(1.0)
        average = Average(toy, decay)
        toy.set(2.0)
        with NoOperations(*kernels) as watch:
            average.update(0)
        assert watch.left == []
        assert average.state["batches"].item() == 2


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_an_average_goes_on_from_a_checkpoint(decay):
    """The model first, then the average, as the trainers do; both in memory of their own."""
    one, two = (Toy(value) for value in (1.0, 9.0))
    averages = [Average(toy, decay) for toy in (one, two)]
    one.set(2.0)
    averages[0].update(0)
    kept = averages[0].copied(averages[0].state)
    two.load_state_dict(one.state_dict())
    averages[1].load(kept)
    for average, toy in zip(averages, (one, two), strict=True):
        toy.set(4.0)
        average.update(1)
    assert all(torch.equal(value, averages[1].state[name]) for name, value in averages[0].state.items())
    assert kept["mean"].item() == pytest.approx(2.0 if decay == 0 else 1.9)
