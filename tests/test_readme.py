"""Every command of the README, of docs/research.md and docs/find.md is run here, or is one that .ci/run runs.

Those of docs/research.md run on the demo of a few photos, which is also the test of the demo on photos of the user.

Those of docs/training.md, which would take days, are read as the command line reads them: each key and value.
"""

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from PIL import Image
from torch.distributed.run import get_args_parser

from isc.cli import demo
from isc.cli.hydra_app import _quoted, to_config
from isc.cli.keys import CONF, keys
from isc.config.extract import ExtractConfig
from isc.config.train import TrainConfig
from isc.photos.folders import SAMPLE, list_images
from tests import forked

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
TRAINING = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")


def commands_of(page):
    return [line for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) for line in block.splitlines() if line]


RESEARCH = (ROOT / "docs" / "research.md").read_text(encoding="utf-8")
FIND = (ROOT / "docs" / "find.md").read_text(encoding="utf-8")
COMMANDS = commands_of(README)
HERE = [command for command in commands_of(RESEARCH) if command.startswith(("python ", "isc "))]
AS_A_VISITOR = [command for page in (README, FIND) for command in commands_of(page) if command.startswith("isc ")]
ELSEWHERE = {  # the file that runs it, and how it is written there
    "make demo": (".ci/run", r"^make demo \| tee demo.log$"),
    "make test": (".ci/run", r"^ISC_DEMO=\$PWD make test SLOW=too$"),
    "make check": (".ci/run", r"^make check$"),
    "pip install .": (".ci/run", r"^python3 -m pip install .* \.$"),
}
SHIPPED, FINETUNED, VERIFIED = (
    "isc_small, as shipped", "isc_small, fine-tuned here", "fine-tuned + local verification"
)  # fmt: skip
COLUMNS = ("average_precision", "recall_at_p90", "recall_at_rank1")
# added to the commands of these
QUICK = {
    "train.py": ["train.steps=2", "train.batch_size=4", "train.image_size=64"],
    "match.py": ["candidates=4", "second_views=whole"],
}


@pytest.fixture(scope="module")
def finished_demo(tmp_path_factory):
    """(the demo's folder, what it printed); ISC_DEMO names a folder in which `make demo | tee demo.log` has run."""
    if finished := os.environ.get("ISC_DEMO"):
        return Path(finished) / "demo", (Path(finished) / "demo.log").read_text(encoding="utf-8")
    cwd = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "isc.cli.main", "demo", "demo", "--steps", "2"]
    run = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert [path.name for path in cwd.iterdir()] == ["demo"]
    return cwd / "demo", run.stdout


def test_the_printed_table_is_what_the_metrics_say(finished_demo):
    folder, printed = finished_demo
    rows = json.loads((folder / "demo.json").read_text())
    assert {"ImageNet, before any training", SHIPPED, FINETUNED, VERIFIED} <= set(rows)
    for name, metrics in rows.items():
        line = next(line for line in printed.splitlines() if line.startswith(name + "  "))
        assert line.split()[-3:] == [f"{metrics[column]:.3f}" for column in COLUMNS]
    for made in ("imagenet", "shipped", "finetuned", "matching"):
        metrics = json.loads((folder / made / "metrics.json").read_text())
        assert metrics in rows.values()
        assert metrics["num_positives"] == 120


def test_the_pictures_of_the_pages_are_drawn_from_a_finished_demo(finished_demo, tmp_path):
    folder, _ = finished_demo
    for name in ("figure", "report") if shutil.which("chromium") else ("figure",):
        command = [sys.executable, ROOT / "docs" / f"{name}.py", folder, tmp_path / f"{name}.jpg"]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        with Image.open(tmp_path / f"{name}.jpg") as picture:
            assert min(picture.size) > 300


def test_the_report_that_is_named_shows_pictures_and_edits(finished_demo):
    folder, printed = finished_demo
    report = folder / "finetuned" / "report" / "index.html"
    assert str(report.relative_to(folder.parent)) in printed
    page = report.read_text()
    assert page.count("data:image/jpeg;base64,") > 40
    assert "Wrong" in page
    assert "screenshot" in page
    assert (folder / "matching" / "evidence.jsonl").read_text().count("\n") > 10
    verified = (folder / "matching" / "report" / "index.html").read_text()
    assert verified.count("<polygon") > 20
    assert 'id="reliability"' in verified


def test_what_the_pixels_confirm_finds_more_copies(finished_demo):
    rows = json.loads((finished_demo[0] / "demo.json").read_text())
    assert rows[VERIFIED]["average_precision"] > rows[FINETUNED]["average_precision"] + 0.03


def test_the_shipped_model_is_well_ahead_of_its_start(finished_demo):
    rows = json.loads((finished_demo[0] / "demo.json").read_text())
    assert rows[SHIPPED]["average_precision"] > rows["ImageNet, before any training"]["average_precision"] + 0.1


def test_training_photos_are_no_query_and_no_reference(finished_demo):
    benchmark = finished_demo[0] / "benchmark"
    split = dict(line.split(",") for line in (benchmark / "photos.csv").read_text().splitlines()[1:])
    training = {photo for name, photo in split.items() if name.startswith("T")}
    queried = {json.loads(line)["source"] for line in (benchmark / "edits.jsonl").read_text().splitlines()}
    assert len(training) == 54
    assert not training & queried
    assert not training & {photo for name, photo in split.items() if name.startswith("R")}


def forked_command(verb, *arguments):
    """Stand for `isc.cli.demo._command`: a verb in a process that need not load its libraries, with few candidates."""
    extra = QUICK["match.py"] if "track=matching" in arguments else []
    done = forked.run(ROOT / f"{verb}.py", [*arguments, *extra], folder=Path.cwd())
    assert done.status == 0, done.err


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder that looks like a checkout with 24 of the photos, after a demo on them and one that is torn."""
    folder = tmp_path_factory.mktemp("readme")
    for photos in ("isc/sample", "my-photos"):
        (folder / photos).mkdir(parents=True)
        for path in list(list_images(SAMPLE).values())[::5]:
            (folder / photos / path.name).symlink_to(path)
    (folder / "my-photos" / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")  # is left out
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        # its folder isc/ has photos and no code: processes that a verb starts must not look there
        patch.delenv("PYTHONSAFEPATH", raising=False)
        patch.setattr(demo, "_command", forked_command)
        with contextlib.chdir(folder), contextlib.redirect_stdout(said):
            demo.run_demo(Path("demo"), images=Path("my-photos"), experiment="demo", steps=1)
        (folder / "demo.log").write_text(said.getvalue(), encoding="utf-8")
        yield folder


def test_the_demo_runs_on_photos_of_ones_own(workplace):
    assert "21 edited copies among 105 queries" in (workplace / "demo.log").read_text(encoding="utf-8")
    assert "torn.jpg" in (workplace / "demo" / "benchmark" / "unreadable.csv").read_text()
    assert (workplace / "demo" / "matching" / "report" / "index.html").exists()


def test_every_command_is_run_somewhere():
    assert len(HERE) >= 12
    assert len(AS_A_VISITOR) >= 12
    assert set(commands_of(RESEARCH)) == set(HERE)
    for command in COMMANDS:
        if command not in AS_A_VISITOR:
            name, pattern = ELSEWHERE[command]
            assert re.search(pattern, (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE), command


@pytest.mark.parametrize("number", range(len(HERE)))
def test_command(workplace, number):
    """As written, but for a short training and few candidates, which are looked at once; libraries are loaded."""
    program, *words = shlex.split(HERE[number])
    script = ROOT / words.pop(0) if program == "python" else ROOT / "tests" / "isc_command.py"
    given = [] if program == "python" else ["-1", "/"]
    extra = QUICK.get(script.name, []) if "track=matching" in words or script.name == "train.py" else []
    done = forked.run(script, [*given, *words, *extra], folder=workplace)
    assert done.status == 0, done.err
    outputs = [word.removeprefix("output=") for word in words if word.startswith("output=")]
    outputs += {"index": ["runs/index"], "calibrate": ["runs/first/calibration.json"]}.get(words[0], [])
    assert (workplace / outputs[0]).exists()


# --- a new user: the commands of README.md and docs/find.md, as they are written --------------------------------------


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """What a visitor has: photos, an inbox with two copies and a stranger, and the files of the Python examples."""
    folder = tmp_path_factory.mktemp("visitor")
    photos, inbox = folder / "my-photos", folder / "inbox"
    photos.mkdir()
    inbox.mkdir()
    for number in range(1, 13):
        shutil.copy(SAMPLE / f"S{number:03d}.jpg", photos)
    shutil.copy(SAMPLE / "S003.jpg", photos / "holiday.jpg")
    image = Image.open(SAMPLE / "S005.jpg")
    image.crop((10, 10, image.width - 30, image.height - 5)).save(inbox / "cropped.jpg", quality=50)
    image.save(folder / "suspect.jpg", quality=30)
    shutil.copy(SAMPLE / "S007.jpg", inbox / "same.jpg")
    shutil.copy(SAMPLE / "S090.jpg", inbox / "stranger.jpg")
    shutil.copy(SAMPLE / "S005.jpg", folder / "a.jpg")
    shutil.copy(inbox / "cropped.jpg", folder / "b.jpg")
    return folder


def visit(desk, command):
    environment = os.environ | {"XDG_CACHE_HOME": str(desk / "cache")}
    command[0] = {"isc": shutil.which("isc", path=Path(sys.executable).parent)}.get(command[0], command[0])
    return subprocess.run(command, cwd=desk, capture_output=True, text=True, check=False, env=environment)


def test_a_visitors_commands_as_they_are_written(desk):
    """In the order of the pages: what they print names the copies and no stranger."""
    printed = {}
    making = (" create ", " add ")  # before what uses the index
    order = sorted(AS_A_VISITOR, key=lambda one: "known.index" in one and not any(word in one for word in making))
    for command in order:
        run = visit(desk, shlex.split(command))
        assert run.returncode == 0, f"{command}: {run.stderr}"
        printed[command] = run.stdout
    found = printed["isc find my-photos inbox --output found"]
    assert re.search(r"^copy +inbox/same\.jpg +my-photos/S007\.jpg +same file", found, re.MULTILINE)
    assert re.search(r"^copy +inbox/cropped\.jpg +my-photos/S005\.jpg", found, re.MULTILINE)
    assert re.search(r"^none +inbox/stranger\.jpg", found, re.MULTILINE)
    assert "2 copies, 0 perhaps, 1 without a copy" in found
    assert "13 photos: 1 groups" in printed["isc duplicates my-photos --output same"]
    assert (desk / "found" / "index.html").is_file()
    assert (desk / "same" / "index.html").is_file()
    assert len((desk / "copies.txt").read_text(encoding="utf-8").splitlines()) == 1
    assert "my-photos/S005.jpg" in printed["isc index query known.index suspect.jpg -k 5"]


@pytest.mark.parametrize(("page", "said"), [(README, "1 groups of photos that show the same"), (FIND, "exact [")])
def test_a_visitors_python_as_it_is_written(desk, page, said):
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    run = visit(desk, [sys.executable, "-c", code])
    assert run.returncode == 0, run.stderr
    assert said in run.stdout
    assert "copy" in run.stdout


def test_the_readme_is_short():
    text = re.sub(r"<!--.*?-->|[|*`#\[\]()]", " ", README)
    assert len(text.split()) <= 900


def test_python_example():
    (code,) = re.findall(r"```python\n(.*?)```", RESEARCH, re.DOTALL)
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.stdout.splitlines()[-1] == "1.0", run.stderr


@pytest.mark.parametrize("command", commands_of(TRAINING))
def test_training_page_command_is_one_that_the_command_line_takes(command):
    program, *words = shlex.split(command)
    if program not in ("python", "torchrun"):
        assert program == "apt-get" or shutil.which(program, path=Path(sys.executable).parent), command
        return
    if program == "torchrun":
        launched = get_args_parser().parse_args(words)
        words = [launched.training_script, *launched.training_script_args]
    verb = Path(words[0]).stem
    schema = {"train": TrainConfig, "extract": ExtractConfig}[verb]
    ConfigStore.instance().store(name=f"{verb}_defaults", node=schema)
    with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
        config = to_config(compose(verb, [_quoted(word, schema) for word in words[1:]]))
    assert isinstance(config, schema)


def test_training_page_lists_the_experiments():
    listed = re.findall(r"^\| `(\w+)` \|", TRAINING, re.MULTILINE)
    every = {path.stem for path in (CONF / "experiment").glob("*.yaml")}
    assert sorted(listed) == sorted(name for name in every if not name.startswith(("disc21_", "caption", "products")))
    for page, beginning in (("words", "caption"), ("products", "products")):
        text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
        assert all(name in text for name in every if name.startswith(beginning))


def test_training_page_names_keys_that_there_are():
    named = re.findall(r"`((?:model|train|loss|augment)\.\w+)", TRAINING)
    assert set(named) - {"train.py", "model.safetensors"} <= set(keys(TrainConfig))


def test_scale_page_names_what_kubernetes_takes():
    """Names are those of RFC 1123: small letters, digits and hyphens."""
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    names = re.findall(r"(?:name|claimName): ([^,}\n]+)", page)
    names += re.findall(r"kubectl get \w+ ([^`]+)`", page)
    assert names
    assert not [name for name in names if not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name)]


def test_extraction_page_example(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs" / "extraction.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(compile(code, "docs/extraction.md", "exec"), {})
    assert capsys.readouterr().out.count("(8, 2, 256) {}") == 2


def test_search_page_examples(descriptors, tmp_path):
    """As written, but for the number of pairs wanted."""
    for name, made in (("q", "queries"), ("many", "queries"), ("r", "references")):
        shutil.copy(descriptors / f"{made}.h5", tmp_path / f"{name}.h5")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "search.md").read_text(encoding="utf-8"), re.DOTALL)
    arrays = "query_array, reference_array = queries.vectors, references.vectors\n"
    one, two = (block.replace("num_pairs=500_000", "num_pairs=50") for block in blocks)
    code = one.replace("row, distance", f"{arrays}row, distance") + two + "print(len(pairs), len(near), row.shape)"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.stdout.split(maxsplit=2) == ["50", "400", "(40, 10)\n"], run.stderr


NAMES = (
    *("training", "extraction", "search", "indexes", "scale", "matching", "normalization", "onnx"),
    *("benchmark", "report", "robustness", "calibration", "disc21"),
)
PAGES = ["README.md", "docs/research.md", "docs/find.md", *(f"docs/{name}.md" for name in NAMES)]


@pytest.mark.parametrize("page", PAGES)
def test_every_file_named_exists(page):
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8")):
        assert (ROOT / page).parent.joinpath(target).exists(), target


def test_the_order_of_the_house():
    headings = re.findall(r"^## (.*)$", README, re.MULTILINE)
    assert headings == [
        "Start",
        "How good it is",
        "Install what you need",
        "For researchers",
        "Limits",
        "Developing",
        "Credits and licences",
    ]
