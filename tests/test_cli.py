"""The command line: what it takes, what it refuses and in which words, and that it leaves no traces."""

from __future__ import annotations

import logging
import re
import subprocess
import sys

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from isc import __version__
from isc.cli import verbs
from isc.cli.hydra_app import plain
from isc.cli.keys import CONF, items_of, keys, keys_of
from isc.config.benchmark import BenchmarkConfig
from isc.config.extract import ExtractConfig
from isc.config.match import MatchConfig
from isc.config.train import TrainConfig

SCHEMAS = {"train": TrainConfig, "extract": ExtractConfig, "match": MatchConfig}
GIVEN = {
    "train": ("images=photos", "output=out"),
    "extract": ("images=photos", "output=out.h5"),
    "match": ("queries=q.h5", "references=r.h5", "output=out"),
}
CONTRACT = {
    "train": ["images=", "output=", "experiment=", "resume=true", "model.*", "train.*", "augment.*", "loss.*"],
    "extract": ["images=PHOTOS", "output=FILE.h5", "model=NAME|RUN_DIR|FILE"],
    "match": [
        "queries=",
        "references=",
        "training=",
        "output=",
        "ground_truth=",
        "num_pairs=N",
        "k=K",
        "track=descriptor|matching",
        "normalize=STEP[:OPTION=VALUE,…][+STEP…]|FILE.json|model",
        "submission=FILE.h5|FILE.csv",
    ],
}


# --- plain arguments ------------------------------------------------------------------------------------------------


def composed(verb, arguments):
    """The configuration that Hydra makes; its error where it makes none."""
    ConfigStore.instance().store(name=f"{verb}_defaults", node=verbs.SCHEMAS[verb])
    with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
        return compose(verb, list(arguments))


READ = [
    *((verb, ()) for verb in verbs.SCHEMAS),
    ("match", ("queries=a.h5", "k=3", "memory_gb=2", "strict=false")),
    ("match", ("queries='a b, (1)'", 'references="x=y"', "k=null", "compare=", "num_pairs='7'")),
    ("train", ("images=[a,'b c']", "output=run", "train.steps=3", "train.lr=1e-3", "train.freeze_norms=true")),
    ("train", ("train.stages=[{share: 1},{share: 2}]", "model.weights=none", "images=[]")),
    ("words", ("languages=[en,zh]",)),
]


@pytest.mark.parametrize(("verb", "arguments"), READ)
def test_plain_arguments_are_read_as_hydra_reads_them(verb, arguments):
    read, hydras = plain(arguments, verbs.SCHEMAS[verb], verb), composed(verb, arguments)
    assert read == hydras
    assert OmegaConf.to_yaml(read) == OmegaConf.to_yaml(hydras)
    assert OmegaConf.get_type(read) is OmegaConf.get_type(hydras)
    assert OmegaConf.is_struct(read)


LEFT = [
    "--cfg=job",
    "-m",
    "experiment=demo",
    "+k=3",
    "~k",
    "k=1,2",
    "k=x",
    "k=",
    "nope=1",
    "output=${queries}",
    "k",
    "",
]


@pytest.mark.parametrize("argument", LEFT)
def test_other_arguments_are_left_to_hydra(argument):
    assert plain(("queries=a.h5", argument), MatchConfig, "match") is None


# --- help ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("verb", SCHEMAS)
def test_help_names_every_key_of_the_contract_and_every_default(place, verb):
    finished = place.done(verb, "--help", script=verb == "match")
    for part in CONTRACT[verb]:
        assert part in finished.out
    listed = re.search(r"(?s)All keys.*?:\n\n(.*)\nExamples:", finished.out).group(1)
    assert re.findall(r"^  ([a-z_.0-9]+)=", listed, re.MULTILINE) == keys(SCHEMAS[verb])
    shown = " ".join(listed.split())
    for key in keys_of(SCHEMAS[verb]):
        assert f"{key.name}={key.default} {key.kind}; {key.sentence}" in shown
    assert finished.err == ""
    assert place.contents() == {}


HELPED = {**SCHEMAS, "benchmark": BenchmarkConfig}


@pytest.mark.parametrize("verb", HELPED)
def test_every_key_has_its_sentence(verb):
    items = [one for key in keys_of(HELPED[verb]) if (item := items_of(key.type)) for one in keys_of(item)]
    for key in (*keys_of(HELPED[verb]), *items):
        assert len(key.sentence.split()) > 1, f"{key.name}: {key.sentence!r}"
        assert key.kind


@pytest.mark.parametrize("verb", HELPED)
@pytest.mark.parametrize("flag", ["-h", "--help", "--version"])
def test_help_and_version_need_no_library(place, verb, flag):
    code = f"sys.argv[:] = ['isc {verb}', '{flag}']\nfrom isc.cli.verbs import {verb}\n{verb}()"
    assert loaded_after(f"{code}\nassert 'numpy' not in sys.modules", place) == set()


@pytest.mark.parametrize("verb", HELPED)
def test_version_is_said(place, verb):
    assert place.done(verb, "--version", script=False).out == f"isc {__version__}\n"


OTHER_FORMS = [
    ("match", ["--queries"], "--queries: keys have no dashes; write queries=…"),
    ("match", ["--queries", "q.h5"], "--queries: keys have no dashes; write queries=q.h5"),
    ("match", ["--queries=q.h5"], "--queries: keys have no dashes; write queries=q.h5"),
    ("match", ["-k", "3"], "-k: keys have no dashes; write k=3"),
    ("match", ["--ground-truth", "gt.csv"], "--ground-truth: keys have no dashes; write ground_truth=gt.csv"),
    ("match", ["--qeries", "q.h5"], "--qeries: no such option; keys have no dashes: did you mean queries?"),
    ("match", ["q.h5", "r.h5"], "q.h5: every argument is KEY=VALUE; write queries=q.h5 references=r.h5 output=DIR"),
    ("match", ["queries=q.h5", "r.h5"], "r.h5: every argument is KEY=VALUE; write references=r.h5 output=DIR"),
    ("match", [*GIVEN["match"], "more"], "more: every argument is KEY=VALUE; see isc match --help"),
    ("extract", ["photos"], "photos: every argument is KEY=VALUE; write images=photos output=FILE.h5"),
    ("train", ["photos", "run"], "photos: every argument is KEY=VALUE; write images=photos output=run"),
    ("train", ["images=photos", "--train.steps", "3"], "--train.steps: keys have no dashes; write train.steps=3"),
    ("benchmark", ["photos"], "photos: every argument is KEY=VALUE; write images=photos output=DIR"),
    ("match", ["output"], "output: has no value; expected output=VALUE"),
]


@pytest.mark.parametrize(("verb", "arguments", "said"), OTHER_FORMS, ids=[" ".join([v, *a]) for v, a, _ in OTHER_FORMS])
def test_arguments_of_another_form_are_shown_the_right_one(place, verb, arguments, said):
    assert place.refused(verb, *arguments) == f"error: {said}\n"


def test_the_flags_of_hydra_stay(place):
    shown = place.done("match", *GIVEN["match"], "--cfg", "job", script=False)
    assert yaml.safe_load(shown.out)["queries"] == "q.h5"
    assert "Hydra" in place.done("match", "--hydra-help", script=False).out


def test_a_command_in_this_process_closes_no_handler_of_others(place):
    closed = []

    class Handler(logging.Handler):
        def close(self) -> None:
            closed.append(self)

    handler = Handler()
    assert "Hydra" in place.done("match", "--hydra-help", script=False).out
    assert handler not in closed


def test_help_of_train_lists_the_experiments(place):
    assert re.search(r"experiment: .*\bdemo\b", place.done("train", "--help", script=False).out)


# --- keys and values -------------------------------------------------------------------------------------------------

UNKNOWN = [
    ("match", "outptu=x", "output"),
    ("match", "num_pair=3", "num_pairs"),
    ("match", "qeuries=q.h5", "queries"),
    ("extract", "image=photos", "images"),
    ("extract", "modle=imagenet", "model"),
    ("train", "train.step=3", "train.steps"),
    ("train", "augment.blr=0", "augment.blur"),
    ("train", "loss.temprature=1", "loss.temperature"),
    ("train", "train.optimiser=sgd", "train.optimizer"),
    ("train", "train.freeze_block=1", "train.freeze_blocks"),
    ("train", "loss.memery=8", "loss.memory"),
    ("train", "train.stage=[]", "train.stages"),
]


@pytest.mark.parametrize(("verb", "argument", "meant"), UNKNOWN, ids=[a for _, a, _ in UNKNOWN])
def test_a_misspelt_key_is_named_with_the_one_that_was_meant(place, verb, argument, meant):
    key = argument.partition("=")[0]
    place.refused(verb, *GIVEN[verb], argument, naming=(f"unknown key {key!r}", f"did you mean {meant}?"))


STAGES = [
    ("[{imagesize: 64}]", "unknown key 'train.stages.imagesize'; expected one of train.stages.share, train.stages.im"),
    ("[{imagesize: 64}]", "did you mean train.stages.image_size?"),
    ("[{share: 1}, {strenght: 1}]", "did you mean train.stages.strength?"),
    ("[{image_size: 16}]", "train.stages.image_size=16: expected a finite number, at least 32"),
    ("[{share: 0}]", "train.stages.share=0.0: expected a finite number above 0"),
    ("[{share: nan}]", "train.stages.share=nan"),
    ("[{share: 1}, {strength: 2}]", "train.stages.strength=2.0: expected a share in 0…1"),
    ("[{lr: -1}]", "train.stages.lr=-1.0: expected a finite number, at least 0"),
    ("[{freeze_blocks: -1}]", "train.stages.freeze_blocks=-1"),
    ("[{share: many}]", "'many' of type 'str' could not be converted to Float"),
    ("3", "train.stages=3: expected a list such as [{share: 1}, {share: 2}]"),
    ("[3]", "train.stages=[3]: expected a list such as"),
    ("{share: 1}", "train.stages={share: 1}: expected a list such as"),
]


@pytest.mark.parametrize(("value", "naming"), STAGES, ids=[value for value, _ in STAGES])
def test_stages_are_checked_as_other_keys_are(place, value, naming):
    place.refused("train", *GIVEN["train"], f"train.stages={value}", naming=(naming,))


def test_a_misspelt_key_in_the_stages_of_an_experiment(place):
    (place / "mine" / "experiment").mkdir(parents=True)
    place.text("mine/experiment/try.yaml", "# @package _global_\ntrain: {stages: [{share: 1}, {imagesize: 64}]}\n")
    arguments = (f"--config-dir={place / 'mine'}", "experiment=try", *GIVEN["train"])
    place.refused("train", *arguments, naming=("train.stages.imagesize", "did you mean train.stages.image_size?"))


IMPOSSIBLE = [
    ("match", "num_pairs=0", "at least 1"),
    ("match", "num_pairs=-5", "at least 1"),
    ("match", "k=0", "at least 1"),
    ("match", "candidates=0", "at least 1"),
    ("match", "max_predictions=0", "at least 1"),
    ("match", "num_pairs=many", "Integer"),
    ("match", "num_pairs=2.5", "Integer"),
    ("match", "num_pairs=true", "Integer"),
    ("match", "num_pairs=", "Integer"),
    ("match", "k=[1,2]", "k"),
    ("match", "strict=maybe", "bool"),
    ("match", "track=both", "descriptor, matching"),
    ("match", "normalize=magic", "expected none, model, a FILE.json, or steps joined by +: pca, whiten"),
    ("match", "normalize=witen", "did you mean whiten?"),
    ("match", "normalize=score:wieght=1", "unknown option 'wieght'; expected weight, neighbours: did you mean weight?"),
    ("match", "normalize=whiten:dim=128,ridge=-1+subtract", "whiten:ridge=-1: expected a number in 0…100"),
    ("match", "normalize=score+pca", "pca follows score; expected score to come last"),
    ("match", "normalize=", "normalize"),
    ("match", "normalize=null", "normalize"),
    ("match", "output=null", "output"),
    ("match", "output=", "output"),
    ("match", "queries=", "queries"),
    ("extract", "output=", "output"),
    ("extract", "images=", "images"),
    ("extract", "batch_size=0", "at least 1"),
    ("extract", "workers=-2", "at least -1"),
    ("extract", "image_size=8", "at least 32"),
    ("extract", "device=tpu", "cuda"),
    ("extract", "precision=half", "bfloat16"),
    ("extract", "combine=sum", "average"),
    ("extract", "runtime=tensorrt", "openvino"),
    ("extract", "batch_size=0", "at least 1"),
    ("extract", "address=auto", "engine=ray"),
    ("extract", "actors=2", "engine=ray"),
    ("match", "actors=2", "engine=ray"),
    ("train", "output=", "output"),
    ("train", "train.steps=many", "Integer"),
    ("train", "train.steps=0", "at least 1"),
    ("train", "train.batch_size=1", "at least 2"),
    ("train", "train.lr=0", "above 0"),
    ("train", "train.lr=nan", "above 0"),
    ("train", "train.lr=inf", "finite"),
    ("train", "train.weight_decay=-1", "at least 0"),
    ("train", "train.weight_decay=inf", "finite"),
    ("train", "train.warmup=1.5", "0…1"),
    ("train", "train.clip=0", "above 0"),
    ("train", "train.image_size=16", "at least 32"),
    ("train", "train.checkpoint_every=0", "at least 1"),
    ("train", "train.validate_every=0", "at least 1"),
    ("train", "train.optimizer=adam", "adamw, sgd, lars"),
    ("train", "train.momentum=1", "below 1"),
    ("train", "train.ema=1", "below 1"),
    ("train", "train.precision=half", "float32, bfloat16"),
    ("train", "train.precision=float16", "bfloat16"),
    ("train", "train.freeze_blocks=-1", "at least 0"),
    ("train", "train.hard_negatives=-1", "at least 0"),
    ("train", "model.pooling=max", "gem, mean, token"),
    ("train", "model.dim=1", "at least 2"),
    ("train", "model.gem_power=0.5", "at least 1"),
    ("train", "model.gem_power=inf", "finite"),
    ("train", "augment.blur=2", "0…1"),
    ("train", "augment.min_crop=0", "above 0"),
    ("train", "loss.temperature=0", "above 0"),
    ("train", "loss.temperature=inf", "finite"),
    ("train", "loss.koleo_weight=-1", "at least 0"),
    ("train", "loss.contrast=triplet", "info_nce, contrastive"),
    ("train", "loss.memory=-1", "at least 0"),
    ("train", "loss.memory_after=2", "0…1"),
    ("train", "loss.negative_margin=3", "0…2"),
    ("train", "loss.positive_margin=-1", "at least 0"),
    ("train", "pairs=", "pairs"),
    ("train", "validation=", "validation"),
    ("train", "seed=-1", "at least 0"),
    ("train", "max_unreadable=2", "0…1"),
]


@pytest.mark.parametrize(("verb", "argument", "expected"), IMPOSSIBLE, ids=[f"{v} {a}" for v, a, _ in IMPOSSIBLE])
def test_a_wrong_type_or_an_impossible_value_is_refused_by_name(place, verb, argument, expected):
    place.refused(verb, *GIVEN[verb], argument, naming=(argument.partition("=")[0], expected))


MISSING = [
    ("train", ["output=o"], "images="),
    ("train", ["images=i"], "output="),
    ("extract", ["output=o"], "images="),
    ("extract", ["images=i"], "output="),
    ("match", ["queries=q", "references=r"], "output="),
    ("match", ["queries=q", "output=o"], "references="),
    ("match", ["references=r", "output=o"], "queries="),
    ("match", ["output=o"], "queries="),
    ("match", ["submission=s.h5", "output=o"], "ground_truth="),
    ("match", [*GIVEN["match"], "query_images=q"], "reference_images="),
    ("match", [*GIVEN["match"], "normalize=whiten"], "training="),
    ("match", [*GIVEN["match"], "normalize=model"], "training="),
    ("match", [*GIVEN["match"], "normalize=found.json"], "training="),
]


@pytest.mark.parametrize(
    ("verb", "arguments", "absent"), MISSING, ids=[f"{verb} {' '.join(a)}" for verb, a, _ in MISSING]
)
def test_a_missing_key_is_named(place, verb, arguments, absent):
    place.refused(verb, *arguments, naming=(absent,))


@pytest.mark.parametrize("verb", SCHEMAS)
def test_the_scripts_refuse_in_one_line_on_stderr(place, verb):
    place.refused(verb, *GIVEN[verb], "no_such=1", naming=("unknown key 'no_such'",), script=True)


def test_keys_that_are_gone_are_refused_by_name(place):
    for key, now in {"model.gem_learned": "false", "loss.copy_nce_power": "3.0"}.items():
        naming = (f"{key}= is gone: it is always {now}; leave it out",)
        place.refused("train", *GIVEN["train"], f"{key}=1", naming=naming)


def test_a_renamed_key_is_refused_with_its_new_name(place):
    place.refused("match", *GIVEN["match"], "looks=whole", naming=("looks= is now query_views=",))


EXCLUDING = {
    "num_pairs and k": ([*GIVEN["match"], "num_pairs=3", "k=2"], ("num_pairs=3", "k=2")),
    "submission and normalize": (
        ["submission=s.h5", "ground_truth=g.csv", "output=o", "training=t.h5", "normalize=whiten"],
        ("normalize=", "submission"),
    ),
    "submission and training": (["submission=s.h5", "ground_truth=g.csv", "output=o", "training=t"], ("training=",)),
}


@pytest.mark.parametrize(("arguments", "naming"), EXCLUDING.values(), ids=EXCLUDING)
def test_keys_that_exclude_each_other(place, arguments, naming):
    place.refused("match", *arguments, naming=naming)


def test_known_copies_exclude_hard_negatives(place):
    arguments = (*GIVEN["train"], "pairs=gt.csv", "train.hard_negatives=3")
    place.refused("train", *arguments, naming=("pairs=gt.csv", "train.hard_negatives=3", "give one"))


def test_an_unknown_experiment_is_refused_with_the_known_ones(place):
    place.refused("train", *GIVEN["train"], "experiment=nope", naming=("experiment=nope", "demo"))


@pytest.mark.parametrize(
    "name",
    sorted(path.stem for path in (CONF / "experiment").glob("*.yaml") if not path.stem.startswith("disc21_")),
)
def test_every_experiment_is_a_configuration(place, name):
    """It is composed and checked; what is refused is the folder that is not there."""
    pairs = ["pairs=captions.csv"] if name.startswith(("caption", "products")) else []
    shop = ["catalogue=shop"] if name.startswith("products") else []
    arguments = ("images=nowhere", "output=out", f"experiment={name}", *pairs, *shop)
    place.refused("train", *arguments, naming=("images=nowhere: no such",))


def test_one_text_for_a_list_in_an_experiment_is_refused_by_file_and_key(place):
    (place / "mine" / "experiment").mkdir(parents=True)
    place.text("mine/experiment/own.yaml", "# @package _global_\nimages: photos\n")
    naming = ("experiment/own.yaml: images is a single value; expected a list",)
    place.refused("train", "--config-dir=mine", "experiment=own", "output=run", naming=naming)


def test_an_experiment_of_ones_own_is_found_and_checked(place):
    (place / "mine" / "experiment").mkdir(parents=True)
    path = place.text("mine/experiment/try.yaml", "# @package _global_\ntrain: {steps: 3, lr: 0.5}\n")
    arguments = (f"--config-dir={place / 'mine'}", "experiment=try", *GIVEN["train"])
    shown = place.done("train", *arguments, "--cfg", "job", script=False)
    assert yaml.safe_load(shown.out)["train"]["steps"] == 3
    path.write_text("# @package _global_\ntrain: {stepz: 3}\n", encoding="utf-8")
    place.refused("train", *arguments, naming=("stepz", "train.steps"))


@pytest.mark.parametrize("argument", ["output", "=x", "output='open", "output=${nowhere}", "k=1,2"])
def test_what_cannot_be_parsed_is_refused_in_one_line(place, argument):
    place.refused("match", "queries=q.h5", "references=r.h5", argument)


def test_a_sweep_is_refused_for_it_would_leave_its_own_files(place):
    place.refused("match", "-m", *GIVEN["match"], "k=1,2")


# --- paths -----------------------------------------------------------------------------------------------------------

ODD_NAMES = [
    "with space",
    "a,b",
    "[x]",
    "{y}",
    "key=value",
    "it's",
    'say "hi"',
    "(p)#100%",
    "a:b",
    "dollar$x",
    "ünï – ©",
    "two  blanks",
    "back\\slash",
    "-dash",
    "null.d",
    "007",
    "1e3",
    "2024_01",
    "true",
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_path_may_hold_any_letter(place, name):
    folder = place / name
    folder.mkdir()
    (folder / "p.csv").write_text("Q1,R1,0.5\nQ2,R2,0.25\n", encoding="utf-8")
    (folder / "g.csv").write_text("Q1,R1\nQ2,\n", encoding="utf-8")
    arguments = (f"submission={name}/p.csv", f"ground_truth={name}/g.csv", f"output={name}")
    place.done("match", *arguments, script=False)
    assert {path.name for path in place.folder.iterdir()} == {name}
    assert {path.name for path in folder.iterdir()} == {"p.csv", "g.csv", "metrics.json", "report"}


@pytest.mark.parametrize("name", ["a,b", "it's [x]=1"])
@pytest.mark.parametrize("verb", ["extract", "train"])
def test_a_missing_folder_with_an_odd_name_is_named_as_it_is(place, verb, name):
    arguments = (f"images={name}", *GIVEN[verb][1:])
    place.refused(verb, *arguments, naming=(f"images={name}: ", "expected a folder"))


# --- traces ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", SCHEMAS)
def test_a_refusal_leaves_the_working_directory_as_it_was(place, verb):
    place.text("kept.txt", "mine")
    place.refused(verb, *GIVEN[verb], script=verb != "train")  # the photos or descriptors do not exist
    assert place.contents() == {"kept.txt": b"mine"}


def test_a_run_writes_below_output_alone(place):
    place.text("p.csv", "Q1,R1,0.5\n")
    place.text("g.csv", "Q1,R1\n")
    place.done("match", "submission=p.csv", "ground_truth=g.csv", "output=deep/down/out")
    found = {name for name, content in place.contents().items() if content is not None}
    assert found == {"p.csv", "g.csv", "deep/down/out/metrics.json", "deep/down/out/report/index.html"}


# --- what is loaded --------------------------------------------------------------------------------------------------

LOADED = "print(*sorted({'torch', 'timm', 'faiss', 'hydra', 'cv2', 'h5py', 'albumentations'} & set(sys.modules)))"


def loaded_after(code, place):
    command = [sys.executable, "-c", f"import sys\n{code}\n{LOADED}"]
    done = subprocess.run(command, cwd=place.folder, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_importing_the_package_loads_nothing_heavy(place):
    assert loaded_after("import isc", place) == set()


def test_the_command_line_loads_nothing_heavy(place):
    assert loaded_after("import isc.cli.verbs", place) == set()


def test_scoring_a_csv_loads_neither_torch_nor_faiss(place):
    place.text("p.csv", "Q1,R1,0.5\n")
    place.text("g.csv", "Q1,R1\n")
    code = (
        "sys.argv = ['match.py', 'submission=p.csv', 'ground_truth=g.csv', 'output=out']\n"
        "from isc.cli.verbs import match\n"
        "match()\n"
    )
    assert loaded_after(code, place) <= {"hydra"}
    assert (place / "out" / "metrics.json").is_file()


@pytest.mark.parametrize(("option", "expected"), [("engine=numpy", set()), ("engine=faiss", {"faiss"})])
def test_matching_loads_its_engine_alone(option, expected, place, descriptors):
    code = (
        f"sys.argv = ['match.py', 'queries={descriptors}/queries.h5', 'references={descriptors}/references.h5',"
        f" 'output=out', '{option}']\n"
        "from isc.cli.verbs import match\n"
        "match()\n"
    )
    assert loaded_after(code, place) & {"torch", "timm", "faiss"} == expected
