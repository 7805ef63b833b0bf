"""The import rules, read from the sources: floors go down, and each heavy library has its one door."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import isc

PACKAGE = Path(isc.__file__).parent
REPOSITORY = Path(__file__).resolve().parent.parent

# floor, rooms, and the heavy libraries that their files may import; a room imports rooms of lower floors alone
HOUSE = [
    (1, ("errors", "conf"), set()),
    (2, ("runtime", "data"), {"h5py", "ray", "cv2"}),
    (3, ("photos",), {"cv2", "PIL", "pillow_heif"}),
    (4, ("config", "evaluate", "video"), {"jinja2", "omegaconf", "av"}),
    (5, ("search",), {"faiss", "torch", "ray"}),
    (5, ("model",), {"torch", "timm", "safetensors", "onnx", "onnxruntime", "openvino"}),
    (6, ("extract", "match"), {"torch", "torchvision", "ray", "cv2"}),
    (
        7,
        ("train", "benchmark", "find"),
        {"jinja2", "torch", "timm", "albumentations", "cv2", "PIL", "augly", "pdqhash", "imagehash"},
    ),
    (6, ("words",), {"torch", "safetensors", "onnxruntime", "rapidfuzz"}),
    (8, ("products",), {"cv2", "torch", "rapidfuzz"}),
    (9, ("serve",), {"cv2", "jinja2"}),
    (10, ("cli",), {"hydra", "omegaconf"}),
]
FLOOR = {room: floor for floor, rooms, _ in HOUSE for room in rooms}
LIBRARIES = {room: libraries for _, rooms, libraries in HOUSE for room in rooms}
HEAVY = set().union(*LIBRARIES.values())
# where a library has one door inside its room
DOORS = {
    "h5py": {"isc.data.hdf5", "isc.data.hdf5_file", "isc.data.hdf5_header"},
    "jinja2": {"isc.evaluate.report.page", "isc.find.page", "isc.serve.api.render"},
    "omegaconf": {"isc.cli.hydra_app", "isc.cli.experiments"},
    "hydra": {"isc.cli.hydra_app"},
    "faiss": {"isc.search.kernels.faiss_kernel", "isc.search.approximate.faiss_adapter"},
    "ray": {"isc.runtime.ray_cluster", "isc.extract.ray_extract", "isc.search.ray_search"},
    "torchvision": {"isc.extract.gpu_jpeg"},
    "pillow_heif": {"isc.photos.decode"},
    "av": {"isc.video.reading", "isc.video.sound"},
}
LAZY_TORCH = {  # inside functions, for whoever chooses or has a GPU
    f"isc.search.kernels.{name}" for name in ("chunk_maxima", "device_rows", "device_search", "triton_maxima", "wanted")
} | {f"isc.match.verification.{name}" for name in ("batched_fit", "device_compare", "feature_rows")}
TORCH = {"torch", "torchvision", "timm", "safetensors"}
WITHOUT_TORCH = ("runtime", "data", "photos", "config", "evaluate", "search", "match")
WITHOUT_FAISS = ("runtime", "data", "photos", "config", "evaluate", "model", "extract", "train")


def name_of(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def tree_of(module):
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def imported(tree):
    """Every module that is imported anywhere in the tree: at the top, in a function, or for a type checker."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found.add(node.module)
            # `from isc.photos import decode` names a module, `from isc.photos.decode import Pixels` does not
            found |= {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
    return found


@cache
def imports_of(module):
    return imported(tree_of(module))


def outside(module):
    """The libraries that it imports."""
    return {name.partition(".")[0] for name in imports_of(module)}


def room_of(module):
    return module.split(".")[1] if "." in module else ""


def of_rooms(rooms):
    return [module for module in MODULES if room_of(module) in rooms]


def reached_from(module):
    """The modules of the package that come with this one, itself included."""
    reached, waiting = set(), [module]
    while waiting:
        current = waiting.pop()
        if current not in reached:
            reached.add(current)
            waiting += [name for name in imports_of(current) if name in MODULES]
    return reached


def test_the_house_has_these_rooms_and_no_others():
    assert {room_of(module) for module in MODULES} == {"", *FLOOR}
    assert len(HOUSE) <= 12


@pytest.mark.parametrize("module", [module for module in MODULES if module != "isc"])
def test_imports_go_down_to_modules_and_each_library_has_its_room(module):
    for name in imports_of(module) & MODULES.keys() - {"isc"}:
        if room_of(name) != room_of(module):
            assert FLOOR[room_of(name)] < FLOOR[room_of(module)], f"{module} imports {name}"
    assert outside(module) & HEAVY <= LIBRARIES[room_of(module)], module
    assert all(module in DOORS.get(library, {module}) for library in outside(module)), module


def test_no_module_imports_itself_through_others():
    for module in MODULES:
        for name in imports_of(module) & MODULES.keys():
            assert module not in reached_from(name), f"{module} → {name} → {module}"


@pytest.mark.parametrize("module", of_rooms(WITHOUT_TORCH))
def test_what_searches_and_judges_never_reaches_torch(module):
    for reached in reached_from(module):
        assert reached in LAZY_TORCH or not outside(reached) & TORCH, f"{module} reaches {reached}"


@pytest.mark.parametrize("module", of_rooms(WITHOUT_FAISS))
def test_what_trains_and_describes_never_reaches_faiss(module):
    assert not any("faiss" in outside(name) for name in reached_from(module))


@pytest.mark.parametrize("module", sorted(LAZY_TORCH))
def test_torch_waits_inside_functions(module):
    at_the_top = [node for node in tree_of(module).body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not any(name.partition(".")[0] in TORCH for node in at_the_top for name in imported(node))


def test_only_decode_opens_a_picture():
    openers = set()
    for module in MODULES:
        tree = tree_of(module)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and (
                node.attr.startswith("imread") or (node.attr == "open" and ast.unparse(node.value).endswith("Image"))
            ):
                openers.add(module)
            if isinstance(node, ast.ImportFrom) and node.module in {"cv2", "PIL.Image"}:
                assert not {"imread", "open"} & {alias.name for alias in node.names}, module
    assert openers == {"isc.photos.decode"}


def test_nothing_is_imported_by_a_name_made_at_run_time():
    for module in MODULES:
        tree = tree_of(module)
        assert not any(re.match(r"importlib(?!\.metadata)", name) for name in imports_of(module)), module
        assert not any(isinstance(node, ast.Name) and node.id == "__import__" for node in ast.walk(tree)), module


def test_heavy_libraries_wait_until_they_are_needed():
    """At the top of the light modules, which a refusal or the scoring of a CSV goes through, none is imported."""
    light = [module for module in of_rooms(("errors", "data", "config", "evaluate")) if "ids" not in module]
    for module in ("isc", "isc.cli.hydra_app", "isc.match.run", *light):
        top = ast.Module([node for node in tree_of(module).body if isinstance(node, ast.Import | ast.ImportFrom)], [])
        assert not {name.partition(".")[0] for name in imported(top)} & (HEAVY - {"hydra", "omegaconf"}), module


def test_no_file_is_too_long_to_read_at_once():
    for path in PACKAGE.rglob("*.py"):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= 350, f"{path.name} has {lines} lines; expected at most 350: divide it by what its parts do"


def test_every_room_says_what_it_is_for_and_what_it_exports():
    for init in PACKAGE.rglob("__init__.py"):
        if "conf" in init.parent.parts[-2:]:
            continue
        tree = tree_of(name_of(init))
        assert ast.get_docstring(tree), init
        assert len(init.read_text(encoding="utf-8").splitlines()) <= 25, init
        stub = init.with_suffix(".pyi")
        assert stub.exists() == ("lazy_loader" in outside(name_of(init))), init


@pytest.mark.parametrize("verb", ["train", "extract", "match"])
def test_a_script_is_a_shell_over_the_command(verb):
    path = REPOSITORY / f"{verb}.py"
    assert imported(ast.parse(path.read_text(encoding="utf-8"))) == {"isc.cli.verbs"}
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 40


def test_every_module_has_a_name_that_says_what_it_is_for():
    assert not {name.rpartition(".")[2] for name in MODULES} & {"utils", "util", "common", "helpers", "misc"}
