"""Where the network runs: the kinds of arithmetic, and what depthwise convolutions do on a CPU."""

from __future__ import annotations

import copy
import shutil

import pytest
import torch
from torch import nn
from torch._inductor import config as inductor_config

import isc.model.device
from isc.config.choices import Precision
from isc.errors import InputError
from isc.model.device import arithmetic, choose_device, compiled, depthwise_in_float32, native_bfloat16, place
from isc.model.torch_inference import _fastest_convolutions

CPU = torch.device("cpu")


def test_devices():
    assert choose_device("cpu") == CPU
    if torch.cuda.is_available():
        assert choose_device("auto") == choose_device("cuda") == torch.device("cuda")
    else:
        assert choose_device("auto") == CPU
        with pytest.raises(InputError, match="device=cuda: no CUDA device"):
            choose_device("cuda")


def test_a_gpu_of_an_index(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda")
    assert [choose_device(f"cuda:{index}") for index in range(2)] == [torch.device("cuda", 0), torch.device("cuda", 1)]
    with pytest.raises(InputError, match=r"^device=cuda:2: no such GPU; expected an index below 2, the number of"):
        choose_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"^device=cuda:1: no CUDA device is visible"):
        choose_device("cuda:1")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:-1", "cuda:a", "cuda1", "CPU", "mps", ""])
def test_another_device_is_refused_by_name(name):
    with pytest.raises(InputError, match=rf"^device={name}: no such device; expected auto, cpu, cuda, or cuda:N"):
        choose_device(name)


def test_convolutions_are_tried_and_whole_on_a_gpu_alone():
    """cuDNN's flags hold while a network runs; before and after they are those of the program."""
    flags = torch.backends.cudnn

    def now():
        return flags.benchmark, flags.allow_tf32

    with flags.flags(enabled=True, benchmark=False, allow_tf32=True):
        for device, inside in (("cpu", (False, True)), ("cuda", (True, False))):
            with _fastest_convolutions(torch.device(device)):
                assert now() == inside
            assert now() == (False, True)


def test_cuda_graphs_are_for_inference_and_one_shape(monkeypatch):
    """Training is compiled for any shape, without graphs."""
    asked = []
    monkeypatch.setattr(torch, "compile", lambda function, **options: asked.append(options) or function)
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/g++")
    for device in (None, torch.device("cuda")):
        assert compiled(abs, device) is abs
    assert asked == [{}, {"mode": "reduce-overhead", "dynamic": False}]


def test_native_bfloat16_is_yes_or_no():
    assert type(native_bfloat16(CPU)) is bool


@pytest.mark.parametrize(("native", "expected"), [(True, Precision.bfloat16), (False, Precision.float32)])
def test_auto_is_bfloat16_where_the_hardware_has_it(native, expected, monkeypatch):
    monkeypatch.setattr(isc.model.device, "native_bfloat16", lambda device: native)
    assert arithmetic(Precision.auto, CPU) is expected
    for precision in (Precision.float32, Precision.bfloat16):
        assert arithmetic(precision, CPU) is precision


# --- depthwise convolutions ------------------------------------------------------------------------------------------


class Block(nn.Module):
    """1 × 1, depthwise 5 × 5 and 1 × 1 convolutions; `seen` are the types that the depthwise one was given."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.widen, self.dw, self.narrow = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 5, groups=16), nn.Conv2d(16, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.narrow(torch.relu(self.dw(torch.relu(self.widen(x)))))


def outcome(block: Block, *, bfloat16: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The outputs and gradients of one step."""
    x = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    block.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        y = block(x)
    y.float().square().mean().backward()
    return y.detach().float(), {name: p.grad.clone() for name, p in block.named_parameters() if p.grad is not None}


def test_depthwise_in_float32_changes_the_arithmetic_alone():
    """Outputs and gradients are those of bfloat16, and of float32, to bfloat16's 8 bits."""
    plain, patched = Block(), Block()
    depthwise_in_float32(patched)
    exact, slopes = outcome(Block(), bfloat16=False)
    for block in (plain, patched):
        found, gradients = outcome(block, bfloat16=True)
        torch.testing.assert_close(found, exact, rtol=0.03, atol=0.01)
        assert gradients.keys() == slopes.keys()
        for name, slope in gradients.items():
            assert (slope - slopes[name]).norm() < 0.02 * slopes[name].norm(), name
    outputs, gradients = outcome(patched, bfloat16=False)
    assert torch.equal(outputs, exact)
    assert all(torch.equal(slope, slopes[name]) for name, slope in gradients.items())


def test_depthwise_leaves_autocast_where_a_gradient_flows():
    block, kinds = Block(), []
    block.dw.register_forward_hook(lambda module, given, output: kinds.append(output.dtype))
    inner = block.dw._conv_forward
    block.dw._conv_forward = lambda x, *rest: (
        kinds.append((x.dtype, torch.is_autocast_enabled("cpu"))) or inner(x, *rest)
    )
    depthwise_in_float32(block)
    outcome(block, bfloat16=True)
    assert kinds == [(torch.float32, False), torch.bfloat16]  # float32 inside, what comes out is as before
    kinds.clear()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        block(torch.randn(1, 3, 12, 12))
    assert kinds[0] == (torch.bfloat16, True)


def test_frozen_kernels_still_pass_the_gradient_on():
    block = Block()
    block.dw.weight.requires_grad_(False)
    depthwise_in_float32(block)
    _, gradients = outcome(block, bfloat16=True)
    assert "dw.weight" not in gradients
    assert gradients["widen.weight"].abs().sum() > 0


def test_channels_last_changes_nothing_but_the_layout():
    block = Block()
    expected, _ = outcome(copy.deepcopy(block), bfloat16=False)
    placed = place(block, CPU)
    assert placed.widen.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(outcome(placed, bfloat16=False)[0], expected)


# --- compiling -------------------------------------------------------------------------------------------------------


def test_no_compiler_is_told_at_the_start(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match=r"train\.compile=true: no C\+\+ compiler no-such-compiler is installed"):
        compiled(torch.relu)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_what_is_compiled_gives_the_same(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(inductor_config, "compile_threads", 1)  # no pool of processes, each of which imports torch
    x = torch.randn(3, 4, requires_grad=True)
    found = compiled(lambda x: torch.sin(x) * 2)(x)
    torch.testing.assert_close(found, torch.sin(x) * 2)
    found.sum().backward()
    torch.testing.assert_close(x.grad, 2 * torch.cos(x.detach()))
