"""ONNX files that ask for more than a machine has: refused, in little memory."""

from __future__ import annotations

import resource

import numpy as np
import pytest

from isc.errors import InputError
from isc.model.onnx import load_onnx

onnx = pytest.importorskip("onnx")


def network(path, *, inputs=(None, 3, 64, 64), metadata=None, constant=1):
    """A network whose descriptor is the mean colour times the largest of `constant` ones."""
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["ones"], value=helper.make_tensor("one", 1, [1], [1.0])),
        helper.make_node("ReduceMax", ["ones"], ["most"], keepdims=0),
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "most"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(inputs))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 3])],
        [numpy_helper.from_array(np.array([constant], np.int64), "size")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    for name, value in (metadata or {}).items():
        model.metadata_props.add(key=name, value=value)
    onnx.save(model, path)
    return path


def test_a_network_of_usual_size_is_loaded(tmp_path):
    assert load_onnx(network(tmp_path / "n.onnx")).dim == 3


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"constant": 3_000_000_000}, "fails on"),
        ({"inputs": (None, 3, 20_000, 20_000)}, "at most 1024 pictures of 4096 pixels a side"),
        ({"inputs": (1 << 20, 3, 64, 64)}, "at most 1024 pictures"),
        ({"inputs": (None, 3, None, None), "metadata": {"isc_format": "isc-onnx-1", "image_size": "99999"}}, "at most"),
        ({"metadata": {"mean": "1," + "[" * 200_000}}, "expected three numbers"),
    ],
)
def test_what_would_take_all_memory_is_refused(tmp_path, options, part):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError) as caught:
        load_onnx(network(tmp_path / "n.onnx", **options))
    assert part in str(caught.value)
    assert len(str(caught.value)) < 600
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes
