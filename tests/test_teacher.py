"""The teacher and its loss: an ONNX file against the same arithmetic in numpy, the loss by hand, and every refusal."""

from __future__ import annotations

import builtins
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from isc.config.train import ModelConfig
from isc.errors import InputError
from isc.model.files import save_model
from isc.model.load import initial_model
from isc.train.distillation import Teacher, load_teacher, relational_distillation

SMALL = ModelConfig(backbone="test_resnet", weights="none", dim=8, image_size=64)


def pictures(num: int = 2, size: int = 8, width: int | None = None) -> torch.Tensor:
    shape = (num, 3, size, width or size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def units(num: int, dim: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(num, dim, generator=torch.Generator().manual_seed(seed)))


# --- our own models --------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    model = initial_model(SMALL, seed=3).eval()
    with torch.no_grad():  # norms that let the picture through: new ones begin with a weight of 0
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if value.ndim == 1 and value.is_floating_point() and not name.endswith("mean"):
                value.uniform_(0.5, 1.5)
    save_model(tmp_path / "model.safetensors", model, {})
    return model, tmp_path / "model.safetensors"


def test_a_model_of_ours_at_its_own_size(saved):
    model, path = saved
    teacher = load_teacher(str(path))
    assert (teacher.dim, teacher.size) == (8, (64, 64))
    found = teacher(pictures(3, 64))
    with torch.inference_mode():
        torch.testing.assert_close(found, model(pictures(3, 64)), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    assert not found.requires_grad


def test_a_model_of_ours_resizes_what_it_is_given(saved):
    model, path = saved
    larger = F.interpolate(pictures(2, 40).float(), size=64, mode="bilinear", align_corners=False)
    with torch.inference_mode():
        torch.testing.assert_close(load_teacher(str(path))(pictures(2, 40)), model(larger), atol=1e-5, rtol=0)
        there = load_teacher(str(path), image_size=40)
        torch.testing.assert_close(there(pictures(2, 40)), model(pictures(2, 40)), atol=1e-5, rtol=0)


def test_a_teacher_learns_nothing(saved):
    _, path = saved
    asked = pictures(2, 64).float().requires_grad_()
    assert not load_teacher(str(path))(asked).requires_grad


def test_no_such_model():
    with pytest.raises(InputError, match="no such model"):
        load_teacher("no/such/run")


def test_descriptors_that_are_not_finite():
    broken = Teacher("t", 2, None, lambda x: torch.full((len(x), 2), math.nan))
    with pytest.raises(InputError, match="teacher=t: gives descriptors that are not finite"):
        broken(pictures())


# --- ONNX ------------------------------------------------------------------------------------------------------------

MATRIX = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)


def save_onnx(path, *, shape=("B", 3, "H", "W"), kind="FLOAT", flat=True, metadata=None):
    """The mean colour of a picture times MATRIX: [B, 3, H, W] → [B, 5], or [B, 3, H, W] again where not flat."""
    onnx = pytest.importorskip("onnx", reason="pip install onnx")
    pytest.importorskip("onnxruntime", reason="pip install onnxruntime")
    helper, kinds = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Cast", ["pictures"], ["x"], to=kinds.FLOAT),
        helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["colour"]),
        helper.make_node("MatMul", ["colour", "matrix"], ["descriptors"]),
    ]
    given = helper.make_tensor_value_info("pictures", getattr(kinds, kind), shape)
    output = helper.make_tensor_value_info("descriptors" if flat else "x", kinds.FLOAT, None)
    matrix = onnx.numpy_helper.from_array(MATRIX, "matrix")
    graph = helper.make_graph(nodes if flat else nodes[:1], "g", [given], [output], [matrix] if flat else [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return str(path)


def expected(of: torch.Tensor, *, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), scale=255.0) -> np.ndarray:
    colour = of.double().mean(dim=(2, 3)).numpy() / scale
    vectors = (colour - np.array(mean)) / np.array(std) @ MATRIX
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_onnx_of_any_size(tmp_path):
    teacher = load_teacher(save_onnx(tmp_path / "t.onnx"))
    assert (teacher.dim, teacher.size) == (5, None)
    for asked in (pictures(3, 8), pictures(1, 8, 12), pictures(4, 16)):
        found = teacher(asked)
        assert found.dtype == torch.float32
        assert not found.requires_grad
        np.testing.assert_allclose(found, expected(asked), atol=1e-5)


def test_onnx_of_one_size(tmp_path):
    teacher = load_teacher(save_onnx(tmp_path / "t.onnx", shape=("B", 3, 8, 12)))
    assert teacher.size == (8, 12)
    np.testing.assert_allclose(teacher(pictures(2, 8, 12)), expected(pictures(2, 8, 12)), atol=1e-5)
    larger = F.interpolate(pictures(2, 4, 6).float(), size=(8, 12), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(teacher(pictures(2, 4, 6)), expected(larger), atol=1e-5)


def test_shrunken_pictures_are_smoothed(tmp_path):
    """Stripes one pixel wide become grey, not stripes."""
    stripes = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    stripes[..., ::2] = 255
    seen = []
    teacher = Teacher("t", 1, (8, 8), lambda x: (seen.append(x), x.mean(dim=(1, 2, 3))[:, None])[1])
    teacher(stripes)
    torch.testing.assert_close(seen[0], torch.full((1, 3, 8, 8), 127.5), atol=8, rtol=0)


def test_onnx_at_another_size(tmp_path):
    assert load_teacher(save_onnx(tmp_path / "t.onnx"), image_size=16).size == (16, 16)
    with pytest.raises(InputError, match="takes pictures of 8×12 alone"):
        load_teacher(save_onnx(tmp_path / "fixed.onnx", shape=("B", 3, 8, 12)), image_size=16)


@pytest.mark.parametrize("num", [1, 2, 3, 4, 5])
def test_onnx_of_a_fixed_batch(num, tmp_path):
    teacher = load_teacher(save_onnx(tmp_path / "t.onnx", shape=(2, 3, 8, 8)))
    np.testing.assert_allclose(teacher(pictures(num)), expected(pictures(num)), atol=1e-5)


def test_onnx_of_bytes_is_given_bytes(tmp_path):
    teacher = load_teacher(save_onnx(tmp_path / "t.onnx", kind="UINT8"))
    wanted = expected(pictures(3), mean=(0, 0, 0), std=(1, 1, 1), scale=1)
    np.testing.assert_allclose(teacher(pictures(3)), wanted, atol=1e-5)


def test_onnx_of_half_precision(tmp_path):
    teacher = load_teacher(save_onnx(tmp_path / "t.onnx", kind="FLOAT16"))
    np.testing.assert_allclose(teacher(pictures(3)), expected(pictures(3)), atol=1e-2)


@pytest.mark.parametrize(("mean", "std"), [("[0.5, 0.4, 0.3]", "[0.2, 0.3, 0.4]"), ("0.5,0.4,0.3", "(0.2, 0.3, 0.4)")])
def test_onnx_says_its_mean_and_deviation(mean, std, tmp_path):
    teacher = load_teacher(save_onnx(tmp_path / "t.onnx", metadata={"mean": mean, "std": std}))
    wanted = expected(pictures(3), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    np.testing.assert_allclose(teacher(pictures(3)), wanted, atol=1e-5)


@pytest.mark.parametrize(
    "metadata", [{"mean": "half"}, {"mean": "0.5"}, {"std": "1,1"}, {"std": "1,1,0"}, {"std": "1,[],1"}, {"std": ""}]
)
def test_onnx_with_metadata_that_means_nothing(metadata, tmp_path):
    path = save_onnx(tmp_path / "t.onnx", metadata=metadata)
    with pytest.raises(InputError, match=f"metadata has {next(iter(metadata))}=.*; expected"):
        load_teacher(path)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        (("B", 8, 8, 3), "expected one input"),
        (("B", 1, 8, 8), "expected one input"),
        (("B", 3, 8), "expected one input"),
        (("B", 3, 8, "W"), "fixes one side"),
    ],
)
def test_onnx_of_another_shape(shape, said, tmp_path):
    with pytest.raises(InputError, match=rf"t\.onnx: .*{said}"):
        load_teacher(save_onnx(tmp_path / "t.onnx", shape=shape, flat=False))


def test_onnx_of_other_elements(tmp_path):
    with pytest.raises(InputError, match=r"takes pictures tensor\(int64\).*expected one input"):
        load_teacher(save_onnx(tmp_path / "t.onnx", kind="INT64"))


def test_onnx_that_gives_no_descriptors(tmp_path):
    with pytest.raises(InputError, match=r"gives \(1, 3, 224, 224\) for 1 pictures; expected \[1, D\]"):
        load_teacher(save_onnx(tmp_path / "t.onnx", flat=False))


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff" * 50])
def test_onnx_that_is_none(content, tmp_path):
    pytest.importorskip("onnxruntime", reason="pip install onnxruntime")
    (tmp_path / "t.onnx").write_bytes(content)
    with pytest.raises(InputError, match=r"teacher=.*t\.onnx: ") as error:
        load_teacher(str(tmp_path / "t.onnx"))
    assert "\n" not in str(error.value)


def test_no_such_onnx_file(tmp_path):
    with pytest.raises(InputError, match=r"t\.onnx: no such file"):
        load_teacher(str(tmp_path / "t.onnx"))


def test_without_onnxruntime(tmp_path, monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest, **more):
        if name == "onnxruntime":
            raise ImportError(name)
        return real(name, *rest, **more)

    (tmp_path / "t.onnx").touch()
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(InputError, match="ONNX files need onnxruntime; pip install onnxruntime"):
        load_teacher(str(tmp_path / "t.onnx"))


def test_an_url_needs_its_checksum():
    with pytest.raises(InputError, match="no checksum"):
        load_teacher("https://example.org/t.onnx")


# --- the loss --------------------------------------------------------------------------------------------------------


def slow_twin(student, teacher, tau_s, tau_t, bank_student=(), bank_teacher=()) -> float:
    def softmax(row, others, tau):
        weights = [math.exp(sum(a * b for a, b in zip(row, other, strict=True)) / tau) for other in others]
        return [weight / sum(weights) for weight in weights]

    total = 0.0
    for i in range(len(student)):
        q = softmax(student[i], [*student[:i], *student[i + 1 :], *bank_student], tau_s)
        p = softmax(teacher[i], [*teacher[:i], *teacher[i + 1 :], *bank_teacher], tau_t)
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return total / len(student)


def test_distillation_by_hand():
    """Three teacher rows at 0°, 60° and 90°, student rows at 0°, 90° and 60°, both temperatures 1."""
    r = math.sqrt(3) / 2
    teacher = torch.tensor([[1.0, 0.0], [0.5, r], [0.0, 1.0]])
    student = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, r]])
    # anchors 2 and 3 of row 1: the teacher's similarities ½ and 0, the student's 0 and ½
    one = 1 / (1 + math.exp(-0.5))
    first = one * 0.5 + (1 - one) * -0.5
    # anchors 1 and 3 of row 2: ½ and r; the student's 0 and r. Anchors 1 and 2 of row 3: 0 and r; ½ and r
    p, q = 1 / (1 + math.exp(r - 0.5)), 1 / (1 + math.exp(r))
    second = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    third = q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))
    found = relational_distillation(student, teacher, temperature_student=1.0, temperature_teacher=1.0)
    assert found.item() == pytest.approx((first + second + third) / 3, rel=1e-5)


@pytest.mark.parametrize("size", [0, 1, 4])
def test_distillation_and_its_slow_twin(size):
    student, teacher = units(5, 3, 0), units(5, 7, 1)
    banks = {"bank_student": units(size, 3, 2), "bank_teacher": units(size, 7, 3)} if size else {}
    found = relational_distillation(student, teacher, temperature_student=0.1, temperature_teacher=0.05, **banks)
    wanted = slow_twin(student.tolist(), teacher.tolist(), 0.1, 0.05, *(bank.tolist() for bank in banks.values()))
    assert found.item() == pytest.approx(wanted, rel=1e-4)
    assert found > 0


def test_distillation_is_least_where_the_neighbourhoods_agree():
    teacher = units(6, 4, 0)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1)))[0]
    student = (teacher @ turn).requires_grad_()  # other coordinates, the same angles
    loss = relational_distillation(student, teacher, temperature_student=0.1, temperature_teacher=0.1)
    assert loss.item() == pytest.approx(0, abs=1e-5)
    loss.backward()
    assert student.grad.abs().max() < 1e-4
    other = relational_distillation(units(6, 4, 2), teacher, temperature_student=0.1, temperature_teacher=0.1)
    assert other > 0.1


def test_distillation_does_not_depend_on_the_order():
    student, teacher, order = units(6, 4, 0), units(6, 5, 1), torch.tensor([3, 0, 5, 1, 4, 2])
    temperatures = {"temperature_student": 0.1, "temperature_teacher": 0.04}
    one = relational_distillation(student, teacher, **temperatures)
    two = relational_distillation(student[order], teacher[order], **temperatures)
    torch.testing.assert_close(one, two)


def test_the_gradient_reaches_the_student_alone():
    student, teacher, bank_student, bank_teacher = (
        units(n, d, n + d).requires_grad_() for n, d in ((4, 3), (4, 6), (5, 3), (5, 6))
    )
    relational_distillation(
        student,
        teacher,
        temperature_student=0.1,
        temperature_teacher=0.05,
        bank_student=bank_student,
        bank_teacher=bank_teacher,
    ).backward()
    assert student.grad.norm() > 0
    assert teacher.grad is bank_student.grad is bank_teacher.grad is None


def test_learning_by_it_brings_the_neighbourhoods_together():
    teacher = units(8, 6, 0)
    student = units(8, 3, 1).requires_grad_()
    optimiser = torch.optim.Adam([student], lr=0.05)
    losses = []
    for _ in range(60):
        loss = relational_distillation(F.normalize(student), teacher, temperature_student=0.2, temperature_teacher=0.2)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 3


def test_extreme_temperatures_stay_finite():
    student = units(4, 3, 0).requires_grad_()
    loss = relational_distillation(student, units(4, 3, 1), temperature_student=1e-3, temperature_teacher=1e-4)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()


def test_one_row_and_a_bank():
    found = relational_distillation(
        units(1, 3, 0),
        units(1, 4, 1),
        temperature_student=0.1,
        temperature_teacher=0.1,
        bank_student=units(3, 3, 2),
        bank_teacher=units(3, 4, 3),
    )
    assert found > 0


@pytest.mark.parametrize(
    ("rows", "banks", "said"),
    [
        ((3, 2), (None, None), "3 student rows and 2 teacher rows"),
        ((3, 3), (2, None), "banks of 2 student and 0 teacher rows"),
        ((3, 3), (2, 4), "banks of 2 student and 4 teacher rows"),
        ((1, 1), (None, None), "1 rows and no bank"),
    ],
)
def test_rows_that_do_not_belong_together(rows, banks, said):
    student, teacher = (units(num, 3, 0) for num in rows)
    bank_student, bank_teacher = (None if num is None else units(num, 3, 1) for num in banks)
    with pytest.raises(ValueError, match=said):
        relational_distillation(
            student,
            teacher,
            temperature_student=0.1,
            temperature_teacher=0.1,
            bank_student=bank_student,
            bank_teacher=bank_teacher,
        )
