"""The import rules, read from the sources: levels go down, and each heavy library has its one door."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import isc

PACKAGE = Path(isc.__file__).parent
REPOSITORY = Path(__file__).resolve().parent.parent

# a module imports modules of lower levels alone; a new module has to find its place here
LEVELS = [
    {"isc", "isc.errors", "isc.runtime.cpus", "isc.runtime.progress", "isc.conf", "isc.conf.experiment"},
    {
        "isc.data.model_files",
        "isc.cli.console",
        "isc.cli.experiments",
        "isc.runtime.locks",
        "isc.config.chain",
        "isc.photos.views",
    },
    {"isc.config.checks", "isc.data.ids", "isc.train.distributed", "isc.train.losses"},
    {
        "isc.train.tensorboard_log",
        "isc.model.device",
        "isc.extract.gpu_jpeg",
        "isc.photos.folders",
        "isc.data.files",
        "isc.train.memory_bank",
        "isc.evaluate.metrics",
    },
    {"isc.evaluate.bootstrap", "isc.data.csv_files", "isc.data.hdf5"},
    {"isc.data"},
    {"isc.extract.blocks", "isc.evaluate.calibration", "isc.model.download", "isc.photos.place"},
    {
        "isc.train.augment.augmenter",
        "isc.benchmark.baselines",
        "isc.evaluate.report.charts",
        "isc.benchmark.edits.chain",
        "isc.model.pooling",
        "isc.model.onnx",
        "isc.search",
    },
    {"isc.model.export"},
    {
        "isc.extract.loaders",
        "isc.search.index.index",
        "isc.model.inference",
        "isc.search.normalize.fitted",
        "isc.train.optimizer",
    },
    {"isc.evaluate.report", "isc.train.distillation"},
    {"isc.match.inputs", "isc.match.verification"},
    {"isc.benchmark", "isc.extract.view_plan"},
    {"isc.cluster"},
    {"isc.match.search"},
    {"isc.match.outputs"},
    {"isc.cli.calibrate", "isc.extract.run", "isc.cli.fusion", "isc.match.run", "isc.cli.normalize"},
    {"isc.train.objective", "isc.train.validation"},
    {"isc.train.run"},
    {"isc.cli.verbs"},
    {"isc.cli.demo", "isc.cli.index"},
]
LEVEL = {module: level for level, modules in enumerate(LEVELS) for module in modules}
ROOMS = (
    "isc.train.augment.augmenter",
    "isc.benchmark",
    "isc.evaluate.calibration",
    "isc.cluster",
    "isc.benchmark.edits.chain",
    "isc.search.index.index",
    "isc.match.verification",
    "isc.search.normalize.fitted",
    "isc.evaluate.report",
    "isc.search",
)  # packages that have one level; their modules may import each other
TORCH = {"torch", "torchvision", "timm", "safetensors"}
MATCH_HALF = {
    "config",
    "descriptors",
    "images",
    "index",
    "io",
    "search",
    "match",
    "normalize",
    "steps",
    "normalize_cli",
    "metrics",
    "report",
    "matching",
    "fusion_cli",
    "beside",
    "views",
    "benchmark",
    "lock",
    "sources",
    "blocks",
    "baselines",
    "bootstrap",
    "calibration",
    "calibrate_cli",
    "finding",
    "outputs",
}
TRAIN_HALF = {
    "augment",
    "board",
    "checkpoints",
    "data",
    "device",
    "distributed",
    "embedding",
    "export",
    "extract",
    "gpu_jpeg",
    "loss",
    "memory",
    "model",
    "network",
    "objective",
    "onnx_model",
    "optim",
    "teacher",
    "train",
    "validate",
}
LAZY_TORCH = {"isc.search.kernels.torch_kernel"}  # inside functions, for whoever chooses or has a GPU
DOORS = {
    "faiss": {"isc.search.kernels.faiss_kernel", "isc.search.approximate.card"},
    "h5py": {"isc.data.hdf5"},
    "hydra": {"isc.cli.verbs"},
    "omegaconf": {"isc.cli.verbs", "isc.cli.experiments"},
    "jinja2": {"isc.evaluate.report.page"},
    "albumentations": {"isc.train.augment.augmenter", "isc.train.augment.attack"},
    "timm": {"isc.model.pooling", "isc.train.optimizer"},
    "torch.utils.tensorboard": {"isc.train.tensorboard_log"},
    "safetensors": {"isc.model.pooling"},
    "onnxruntime": {"isc.model.onnx"},
    "openvino": {"isc.model.onnx"},
    "pillow_heif": {"isc.photos.folders"},
    "ray": {"isc.runtime.ray_cluster", "isc.extract.ray_extract", "isc.search.ray_search"},
    "torchvision": {"isc.extract.gpu_jpeg"},
    "torch": {f"isc.{name}" for name in TRAIN_HALF - {"augment"}} | LAZY_TORCH,
    # images opens files; the others draw on pictures already decoded
    "PIL": {
        "isc.train.augment.drawing",
        "isc.train.augment.fonts",
        "isc.benchmark.edits.drawing",
        "isc.benchmark.edits.screens",
        "isc.photos.folders",
    }
    | {
        "isc.benchmark.baselines",
        "isc.benchmark.edits.augly",
        "isc.benchmark.edits.augly_draws",
        "isc.benchmark.edits.augly_geometry",
    },
    "augly": {"isc.benchmark.edits.augly", "isc.benchmark.edits.augly_draws"},
    "pdqhash": {"isc.benchmark.baselines"},
    "imagehash": {"isc.benchmark.baselines"},
}


def name_of(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}


def imports_of(tree):
    """Every module that is imported anywhere in the tree: at the top, in a function, or for a type checker."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found.add(node.module)
            # `from isc import images` names a module, `from isc.photos.folders import resize` does not
            found |= {f"{node.module}.{alias.name}" for alias in node.names} & TREES.keys()
    return found


IMPORTS = {module: imports_of(tree) for module, tree in TREES.items()}


def outside(module):
    return {name.partition(".")[0] for name in IMPORTS[module]}


def reached_from(module):
    """The modules of the package that come with this one, itself included."""
    reached, waiting = set(), [module]
    while waiting:
        current = waiting.pop()
        if current not in reached:
            reached.add(current)
            waiting += [name for name in IMPORTS[current] if name in TREES]
    return reached


def room_of(module):
    return next((room for room in ROOMS if module.startswith(f"{room}.")), module)


def level_of(module):
    return LEVEL[room_of(module)]


def test_the_table_of_levels_lists_the_modules_that_there_are():
    assert {room_of(name) for name in TREES} == set(LEVEL)
    assert sum(len(modules) for modules in LEVELS) == len(LEVEL)


@pytest.mark.parametrize("module", TREES)
def test_imports_go_down(module):
    for name in IMPORTS[module] & TREES.keys():
        if not (room_of(name) in ROOMS and room_of(module) == room_of(name)):
            assert level_of(name) < level_of(module), f"{module} imports {name}"


def test_no_module_imports_itself_through_others():
    for module in TREES:
        for name in IMPORTS[module] & TREES.keys():
            assert module not in reached_from(name), f"{module} → {name} → {module}"


@pytest.mark.parametrize("module", sorted(MATCH_HALF))
def test_the_match_half_never_reaches_torch(module):
    for reached in reached_from(f"isc.{module}"):
        assert reached in LAZY_TORCH or not outside(reached) & TORCH, f"{module} reaches {reached}"


@pytest.mark.parametrize("module", sorted(LAZY_TORCH))
def test_torch_waits_inside_functions(module):
    at_the_top = [node for node in TREES[module].body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not any(name.partition(".")[0] in TORCH for node in at_the_top for name in imports_of(node))


@pytest.mark.parametrize("module", sorted(TRAIN_HALF))
def test_the_train_half_never_reaches_faiss(module):
    reached = reached_from(f"isc.{module}")
    assert "isc.search" not in reached
    assert not any("faiss" in outside(name) for name in reached)


@pytest.mark.parametrize("library", DOORS)
def test_each_library_has_its_door(library):
    through = {module for module in TREES if any(f"{name}.".startswith(f"{library}.") for name in IMPORTS[module])}
    assert through <= DOORS[library]


def test_only_images_opens_a_picture():
    openers = set()
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and (
                node.attr.startswith("imread") or (node.attr == "open" and ast.unparse(node.value).endswith("Image"))
            ):
                openers.add(module)
            if isinstance(node, ast.ImportFrom) and node.module in {"cv2", "PIL.Image"}:
                assert not {"imread", "open"} & {alias.name for alias in node.names}, module
    assert openers == {"isc.photos.folders"}


def test_nothing_is_imported_by_a_name_made_at_run_time():
    for module, tree in TREES.items():
        assert not any(re.match(r"importlib(?!\.metadata)", name) for name in IMPORTS[module]), module
        assert not any(isinstance(node, ast.Name) and node.id == "__import__" for node in ast.walk(tree)), module


def test_heavy_libraries_wait_until_they_are_needed():
    """At the top of the light modules, which a refusal or the scoring of a CSV goes through, none is imported."""
    heavy = TORCH | {"faiss", "h5py", "cv2", "PIL", "albumentations", "jinja2"}
    light = (
        "isc",
        "isc.cli.verbs",
        "isc.config.checks",
        "isc.data.ids",
        "isc.data",
        "isc.match.run",
        "isc.evaluate.metrics",
        "isc.evaluate.report",
    )
    for module in (*light, "isc.search"):
        top = ast.Module([node for node in TREES[module].body if isinstance(node, ast.Import | ast.ImportFrom)], [])
        assert not {name.partition(".")[0] for name in imports_of(top)} & heavy, module


@pytest.mark.parametrize("verb", ["train", "extract", "match"])
def test_a_script_is_a_shell_over_the_command(verb):
    path = REPOSITORY / f"{verb}.py"
    assert imports_of(ast.parse(path.read_text(encoding="utf-8"))) == {"isc.cli.verbs"}
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 40


def test_every_module_has_a_name_that_says_what_it_is_for():
    assert not {name.rpartition(".")[2] for name in TREES} & {"utils", "util", "common", "helpers", "misc"}
