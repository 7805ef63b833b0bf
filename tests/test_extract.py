"""Photos → descriptors: ids stay with their vectors, unreadable photos are listed, and nothing is written by halves."""

from __future__ import annotations

import csv
import itertools
import shutil
import signal
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pytest

import isc.extract.run
import isc.model.load
import isc.model.torch_inference
from isc.config.choices import Combine, Precision, Runtime
from isc.config.extract import ExtractConfig
from isc.data.hdf5 import SAME_IN_BOTH, read_descriptors, read_provenance
from isc.errors import InputError
from isc.extract.blocks import parts_folder
from isc.extract.embedding import embed
from isc.extract.run import extract
from isc.model.load import load_model
from isc.model.torch_inference import torch_inference_model
from isc.photos.decode import read_image
from isc.photos.regions import propose
from isc.photos.views import View

SAMPLE = Path(isc.__file__).parent / "sample"
NAMES = ["a", "b", "sub/a", "sub/deep/c", "z"]


@pytest.fixture(scope="module")
def model():
    """The untrained start, built once."""
    return load_model("imagenet")


@pytest.fixture(autouse=True)
def _built_once(model, monkeypatch):
    monkeypatch.setattr(isc.model.load, "load_model", lambda name: model if name == "imagenet" else load_model(name))


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    for name, source in zip(NAMES, sorted(SAMPLE.glob("*.jpg")), strict=False):
        path = folder / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, path)
    return folder


def config(photos, **options):
    options = {"output": str(photos.parent / "d.h5"), "model": "imagenet", "image_size": 64, "workers": 0} | options
    return ExtractConfig(**{"images": [str(photos)], "precision": Precision.float32} | options)


def beside(photos):
    return {path.name for path in photos.parent.iterdir()} - {"photos"}


# --- what is written -------------------------------------------------------------------------------------------------


def test_ids_are_paths_below_the_folder_and_vectors_have_unit_length(photos):
    (photos / "notes.txt").write_text("no photo")
    (photos / ".hidden.jpg").write_bytes(b"no photo")
    written = extract(config(photos))
    found = read_descriptors(written)
    assert found.ids.tolist() == NAMES
    assert found.vectors.shape == (5, 256)
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, rtol=1e-5)
    with h5py.File(written) as file:
        assert set(file) == {"vectors", "image_names"}
        assert file["vectors"].dtype == np.float32
        assert file["image_names"].dtype.kind == "S"
    assert beside(photos) == {"d.h5"}


def test_each_row_is_the_vector_of_its_own_photo(photos, model):
    found = read_descriptors(extract(config(photos)))
    for name, vector in zip(found.ids, found.vectors, strict=True):
        alone, _ = embed(torch_inference_model(model), [photos / f"{name}.jpg"], image_size=64)
        np.testing.assert_array_equal(vector, alone[0])


def test_the_file_says_where_it_came_from(photos):
    provenance = read_provenance(extract(config(photos)))
    assert provenance["model"] == "tf_efficientnet_lite0"
    assert len(provenance["weights_sha256"]) == 64
    assert provenance["image_size"] == "64"
    assert provenance["precision"] == "float32"
    assert provenance["code_version"] == isc.__version__
    assert "RGB" in provenance["preprocessing"]


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"workers": 2}, {"workers": -1, "batch_size": 3}])
def test_batches_and_workers_do_not_change_a_byte(photos, options):
    plain = extract(config(photos))
    other = extract(config(photos, output=str(photos.parent / "other.h5"), **options))
    assert other.read_bytes() == plain.read_bytes()


def test_the_input_size_is_the_models_own_where_not_given(photos, model):
    written = extract(config(photos, image_size=None))
    assert read_provenance(written)["image_size"] == str(model.config.image_size) == "224"


# --- unreadable photos -----------------------------------------------------------------------------------------------


def test_unreadable_photos_are_listed_and_the_ids_stay_aligned(photos):
    whole = read_descriptors(extract(config(photos)))
    (photos / "b.jpg").write_bytes(b"not a photo")
    data = (photos / "sub" / "deep" / "c.jpg").read_bytes()
    (photos / "sub" / "deep" / "c.jpg").write_bytes(data[: len(data) // 2])
    found = read_descriptors(extract(config(photos, overwrite=True)))
    assert found.ids.tolist() == ["a", "sub/a", "z"]
    np.testing.assert_allclose(found.vectors, whole.vectors[[0, 2, 4]], atol=1e-6)
    with (photos.parent / "d.h5.failures.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["id", "file", "reason"]
    assert [row[0] for row in rows] == ["b", "sub/deep/c"]
    assert [row[1] for row in rows] == [str(photos / "b.jpg"), str(photos / "sub" / "deep" / "c.jpg")]
    assert all(row[1] in row[2] and "decoded" in row[2] for row in rows)


def test_the_list_of_an_earlier_run_goes_when_all_can_be_read(photos):
    good = (photos / "b.jpg").read_bytes()
    (photos / "b.jpg").write_bytes(b"not a photo")
    extract(config(photos))
    assert beside(photos) == {"d.h5", "d.h5.failures.csv"}
    (photos / "b.jpg").write_bytes(good)
    extract(config(photos, overwrite=True))
    assert beside(photos) == {"d.h5"}


def test_a_whole_batch_of_unreadable_photos(photos):
    (photos / "a.jpg").write_bytes(b"")
    (photos / "b.jpg").write_bytes(b"")
    found = read_descriptors(extract(config(photos, batch_size=2)))
    assert found.ids.tolist() == NAMES[2:]


def test_strict_refuses_the_first_unreadable_photo_by_name(photos):
    (photos / "b.jpg").write_bytes(b"not a photo")
    with pytest.raises(InputError, match=r"b\.jpg: cannot be decoded.*strict=true"):
        extract(config(photos, strict=True))
    assert beside(photos) == set()


def test_nothing_readable_is_refused(photos):
    for path in photos.rglob("*.jpg"):
        path.write_bytes(b"not a photo")
    with pytest.raises(InputError, match=r"none of 5 photos can be read; the first: .*a\.jpg"):
        extract(config(photos))
    assert beside(photos) == set()


def test_a_list_of_failures_is_not_left_without_its_descriptors(photos, monkeypatch):
    (photos / "b.jpg").write_bytes(b"not a photo")

    def full(*_, **__):
        raise InputError("d.h5: cannot be written (No space left on device)")

    monkeypatch.setattr(isc.extract.run, "write_descriptor_blocks", full)
    with pytest.raises(InputError, match="No space"):
        extract(config(photos))
    assert beside(photos) == {"d.h5.parts"}  # what was made stays
    monkeypatch.undo()
    monkeypatch.setattr(isc.extract.run, "embed_photos", lambda *_, **__: pytest.fail("was embedded again"))
    extract(config(photos))
    assert beside(photos) == {"d.h5", "d.h5.failures.csv"}


# --- refusals --------------------------------------------------------------------------------------------------------


def test_two_files_with_one_id_are_refused_by_name(photos):
    """Files that differ in their suffix keep it; the id of a third file is then taken."""
    for name in ("b.png", "b.jpg.webp"):
        shutil.copy(photos / "b.jpg", photos / name)
    with pytest.raises(InputError, match=r"b\.jpg and .*b\.jpg\.webp .*'b\.jpg'"):
        extract(config(photos))
    assert beside(photos) == set()


def test_a_folder_without_photos_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: holds no image"):
        extract(config(tmp_path / "empty"))


@pytest.mark.parametrize("name", ["resnet999", "missing.safetensors", "empty_run"])
def test_an_unknown_model_is_refused_with_what_is_expected(photos, name, monkeypatch):
    monkeypatch.chdir(photos.parent)
    if name == "empty_run":
        (photos.parent / name).mkdir()
    with pytest.raises(InputError, match=rf"model={name}: .*expected .*imagenet, a run folder .*safetensors"):
        extract(config(photos, model=name))


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\x10\0\0\0\0\0\0\0{}"])
def test_a_damaged_model_is_refused_by_file(photos, content):
    path = photos.parent / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"m\.safetensors: "):
        extract(config(photos, model=str(path)))


# --- again -----------------------------------------------------------------------------------------------------------


def test_the_same_call_twice_does_nothing(photos, monkeypatch):
    written = extract(config(photos))
    before = (written.stat().st_mtime_ns, written.read_bytes())
    monkeypatch.setattr(isc.extract.run, "embed_photos", lambda *_, **__: pytest.fail("was extracted again"))
    assert extract(config(photos)) == written
    assert (written.stat().st_mtime_ns, written.read_bytes()) == before


def test_the_same_call_twice_does_nothing_where_photos_cannot_be_read(photos, monkeypatch):
    (photos / "b.jpg").write_bytes(b"not a photo")
    extract(config(photos))
    monkeypatch.setattr(isc.extract.run, "embed_photos", lambda *_, **__: pytest.fail("was extracted again"))
    extract(config(photos))
    assert beside(photos) == {"d.h5", "d.h5.failures.csv"}


OTHERWISE = [
    ({"image_size": 96}, "image_size"),
    ({"precision": Precision.bfloat16}, "precision"),
    ({"views": "flip"}, "views"),
]


@pytest.mark.parametrize(("options", "named"), OTHERWISE)
def test_a_file_made_otherwise_is_refused_unless_overwritten(photos, options, named):
    written = extract(config(photos))
    before = written.read_bytes()
    with pytest.raises(InputError, match=rf"d\.h5.* {named}=.*now {named}=.*overwrite=true"):
        extract(config(photos, **options))
    assert written.read_bytes() == before
    extract(config(photos, overwrite=True, **options))
    assert written.read_bytes() != before
    assert beside(photos) == {"d.h5"}


def test_precision_auto_is_what_was_used(photos, monkeypatch):
    """The file says which it was, so that the same file on another machine is not taken for the same."""
    for meant in (Precision.bfloat16, Precision.float32):
        monkeypatch.setattr(isc.model.torch_inference, "reduced_precision", lambda device, meant=meant: meant)
        monkeypatch.setattr(isc.model.torch_inference, "least_cosine", lambda *_: 1.0)
        torch_runs = {"runtime": Runtime.torch}
        auto = extract(
            config(photos, **torch_runs, precision=Precision.auto, output=str(photos.parent / f"auto_{meant.value}.h5"))
        )
        plain = extract(config(photos, **torch_runs, precision=meant, output=str(photos.parent / f"{meant.value}.h5")))
        assert auto.read_bytes() == plain.read_bytes()
        assert read_provenance(auto)["precision"] == meant.value


def test_another_model_is_refused_unless_overwritten(photos, monkeypatch):
    from isc.config.train import ModelConfig
    from isc.model.load import initial_model

    written = extract(config(photos))
    other = initial_model(ModelConfig(), seed=1).eval()
    monkeypatch.setattr(isc.model.load, "load_model", lambda name: other)
    with pytest.raises(InputError, match="weights_sha256="):
        extract(config(photos))
    extract(config(photos, overwrite=True))
    assert read_provenance(written)["weights_sha256"] == isc.model.files.describe(other)["weights_sha256"]


def test_other_photos_under_the_same_count_are_noticed(photos):
    """The file promises the descriptors of this folder; as many photos of other names are another folder."""
    extract(config(photos))
    (photos / "b.jpg").rename(photos / "c.jpg")
    with pytest.raises(InputError, match="overwrite=true"):
        extract(config(photos))


def test_an_output_that_is_no_descriptor_file_is_not_overwritten(photos):
    output = photos.parent / "d.h5"
    output.write_text("mine")
    with pytest.raises(InputError, match=r"d\.h5: not an HDF5 file"):
        extract(config(photos))
    assert output.read_text() == "mine"


# --- going on --------------------------------------------------------------------------------------------------------

MANY = 700  # rows of a list: three blocks
FEW, BLOCK = 110, 40  # the same where a test sets the size of a block


def listing(folder, count):
    """A list that gives the sample photos many ids; every 97th row names a file that is no photo."""
    paths = sorted(SAMPLE.glob("*.jpg"))
    (folder / "torn.jpg").write_bytes(paths[0].read_bytes()[:2000])
    rows = [(f"p{row:04d}", folder / "torn.jpg" if row % 97 == 5 else paths[row % 118]) for row in range(count)]
    text = "id,file\n" + "".join(f"{name},{path}\n" for name, path in rows)
    (folder / "many.csv").write_text(text, encoding="utf-8")
    return folder / "many.csv"


@pytest.fixture
def many(tmp_path):
    return listing(tmp_path, MANY)


def listed(many, name="d.h5", **options):
    return config(many, **{"image_size": 32, "output": str(many.parent / name)} | options)


def arguments(many, name="d.h5"):
    return (f"images={many}", f"output={name}", "model=imagenet", "image_size=32", "precision=float32", "workers=1")


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_to_the_same_bytes(many, place):
    """At four moments of its life, one run after another, on the same output."""
    whole = extract(listed(many, "whole.h5"))
    done, parts = [], parts_folder(place / "d.h5")
    for blocks in (0, 1, 2, 3):
        reached = lambda _, blocks=blocks: len(list(parts.glob("*.npz"))) >= blocks and parts.is_dir()  # noqa: E731
        finished = place.signalled(signal.SIGKILL, "extract", *arguments(many), when=reached)
        if (place / "d.h5").exists():
            assert finished.status == 0, "it was quicker than the signal"
            break
        assert finished.status == -signal.SIGKILL
        done.append({path.name: path.stat().st_mtime_ns for path in parts.glob("*.npz")})
        assert not (place / "d.h5").exists()
    assert len(done) > 1
    for earlier, later in itertools.pairwise(done):
        assert earlier.items() <= later.items(), "a finished block was made again"
    extract(listed(many, str(place / "d.h5")))
    assert (place / "d.h5").read_bytes() == whole.read_bytes()
    assert (place / "d.h5.failures.csv").read_text() == Path(f"{whole}.failures.csv").read_text()
    assert not parts.exists()


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished(many, place):
    parts = parts_folder(place / "d.h5")
    finished = place.signalled(
        signal.SIGINT, "extract", *arguments(many), when=lambda _: len(list(parts.glob("*.npz"))) >= 1
    )
    assert finished.status == 130, finished.err
    assert "the same command goes on from there" in finished.out
    assert "Traceback" not in finished.err
    assert list(parts.glob("*.npz"))
    assert not (place / "d.h5").exists()


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """A run that ended in its second block."""
    monkeypatch.setattr(isc.extract.blocks, "LEAST", BLOCK)
    few = listing(tmp_path, FEW)
    write = isc.extract.blocks.write_block

    def full(folder, number, block):
        if number:
            raise InputError(f"{folder}: cannot be written (No space left on device)")
        write(folder, number, block)

    with monkeypatch.context() as patched:
        patched.setattr(isc.extract.run, "write_block", full)
        with pytest.raises(InputError, match="No space left"):
            extract(listed(few))
    parts = parts_folder(few.parent / "d.h5")
    assert {path.name for path in parts.iterdir()} == {"run.json", "run.lock", "00000000.npz"}
    return few


@pytest.mark.slow
def test_what_is_finished_is_not_made_again(begun, monkeypatch):
    whole = extract(listed(begun, "whole.h5"))
    embedded = []
    embed_photos = isc.extract.embedding.embed_photos
    counted = lambda network, photos, rows, **options: (  # noqa: E731
        embedded.extend(rows) or embed_photos(network, photos, rows, **options)
    )
    monkeypatch.setattr(isc.extract.run, "embed_photos", counted)
    assert extract(listed(begun)).read_bytes() == whole.read_bytes()
    assert embedded == list(range(BLOCK, FEW))


@pytest.mark.slow
@pytest.mark.parametrize(("options", "named"), OTHERWISE)
def test_a_run_begun_otherwise_is_refused_unless_overwritten(begun, options, named):
    with pytest.raises(InputError, match=rf"d\.h5\.parts: was begun with {named}=.*now {named}=.*overwrite=true"):
        extract(listed(begun, **options))
    extract(listed(begun, overwrite=True, **options))
    whole = extract(listed(begun, "whole.h5", **options))
    assert (begun.parent / "d.h5").read_bytes() == whole.read_bytes()


def test_a_list_that_changed_is_noticed(begun):
    begun.write_text(begun.read_text().replace("p0100", "q0100"))
    with pytest.raises(
        InputError, match=rf"the photos have changed since it was begun: {FEW} then, {FEW} now.*overwrite=true"
    ):
        extract(listed(begun))


def test_a_file_that_changed_size_is_noticed(begun):
    with (begun.parent / "torn.jpg").open("ab") as file:
        file.write(b"more")
    with pytest.raises(InputError, match="the photos have changed since it was begun"):
        extract(listed(begun))


def test_blocks_that_outlived_their_file_go(begun, monkeypatch):
    """As after a kill between the file's appearance and the end of its blocks; those of another run stay."""
    with monkeypatch.context() as patched:
        patched.setattr(isc.extract.blocks.Store, "remove", lambda self: None)
        written = extract(listed(begun))
    parts, before = parts_folder(written), written.read_bytes()
    run = (parts / "run.json").read_text()
    (parts / "run.json").write_text(run.replace('"32"', '"64"'))
    assert extract(listed(begun)).read_bytes() == before
    assert parts.exists(), "of another run"
    (parts / "run.json").write_text(run)
    assert extract(listed(begun)).read_bytes() == before
    assert not parts.exists()


def test_strict_refuses_what_an_earlier_run_passed_over(begun):
    with pytest.raises(InputError, match=r"torn\.jpg.*strict=true"):
        extract(listed(begun, strict=True))
    extract(listed(begun))
    with pytest.raises(InputError, match=r"leaves out 2 unreadable photos"):
        extract(listed(begun, strict=True))


# --- other sources ---------------------------------------------------------------------------------------------------


def test_several_sources_and_shards_give_what_a_folder_gives(photos):
    plain = extract(config(photos))
    with tarfile.open(photos.parent / "one.tar", "w") as shard:
        for name in ("b", "sub/deep/c"):
            shard.add(photos / f"{name}.jpg", f"{name}.jpg")
            (photos / f"{name}.jpg").unlink()
    sources = [str(photos), str(photos.parent / "one.tar")]
    other = extract(config(photos, images=sources, output=str(photos.parent / "other.h5")))
    assert read_descriptors(other).ids.tolist() == NAMES
    np.testing.assert_array_equal(read_descriptors(other).vectors, read_descriptors(plain).vectors)
    assert read_provenance(other)["image_list_sha256"] == read_provenance(plain)["image_list_sha256"]


def test_the_list_of_failures_is_a_list_to_extract(photos):
    good = (photos / "b.jpg").read_bytes()
    (photos / "b.jpg").write_bytes(b"")
    extract(config(photos))
    (photos / "b.jpg").write_bytes(good)
    listing, again = str(photos.parent / "d.h5.failures.csv"), str(photos.parent / "again.h5")
    assert read_descriptors(extract(config(photos, images=[listing], output=again))).ids.tolist() == ["b"]


def test_views_are_rows_or_an_average(photos):
    plain = read_descriptors(extract(config(photos)))
    options = {"views": "flip", "overwrite": True}
    rows = read_descriptors(extract(config(photos, combine=Combine.rows, **options)))
    assert rows.ids.tolist() == [name for name in NAMES for _ in "ab"]
    assert rows.views.tolist() == ["whole", "flip"] * 5
    np.testing.assert_array_equal(rows.vectors[::2], plain.vectors)
    averaged = read_descriptors(extract(config(photos, **options)))
    assert averaged.views is None
    mean = rows.vectors.reshape(5, 2, -1).mean(axis=1)
    np.testing.assert_allclose(averaged.vectors, mean / np.linalg.norm(mean, axis=1)[:, None], rtol=0, atol=1e-6)


def test_regions_are_rows_that_say_where_they_lie(photos):
    options = {"views": "regions:2+crop:0.7", "combine": Combine.rows}
    rows = read_descriptors(extract(config(photos, **options)))
    for photo, name in enumerate(NAMES):
        regions = [View(region=one).name for one in propose(read_image(photos / f"{name}.jpg"), count=2)]
        assert rows.views[4 * photo : 4 * photo + 4].tolist() == ["whole", *regions, "crop:0.15:0.15:0.85:0.85"]
    given = read_provenance(photos.parent / "d.h5")
    assert given["views"] == "whole+regions:2+crop:0.15:0.15:0.85:0.85"
    other = config(photos, output=str(photos.parent / "averaged.h5"), **options | {"combine": Combine.average})
    averaged = read_descriptors(extract(other))
    assert averaged.views is None
    mean = rows.vectors.reshape(5, 4, -1).mean(axis=1)
    np.testing.assert_allclose(averaged.vectors, mean / np.linalg.norm(mean, axis=1)[:, None], rtol=0, atol=1e-6)


# --- other runtimes --------------------------------------------------------------------------------------------------


def alike(one, other):
    """Of the same photos, comparable, and nearly the same."""
    a, b = read_descriptors(one), read_descriptors(other)
    assert a.ids.tolist() == b.ids.tolist()
    assert (a.vectors * b.vectors).sum(axis=1).min() > 0.9999
    made, otherwise = read_provenance(one), read_provenance(other)
    assert [made[name] for name in SAME_IN_BOTH] == [otherwise[name] for name in SAME_IN_BOTH]


@pytest.mark.slow
def test_an_onnx_file_is_a_model(photos, model):
    pytest.importorskip("onnxruntime")
    from isc.model.export import export

    export(model, photos.parent / "m.onnx", image_size=64, photos=[photos / "a.jpg"])
    options = {"model": str(photos.parent / "m.onnx"), "output": str(photos.parent / "onnx.h5"), "workers": 2}
    alike(extract(config(photos)), extract(config(photos, **options)))
    assert read_provenance(photos.parent / "onnx.h5")["weights"] == options["model"]


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_runtimes_give_the_same_descriptors(photos, place, runtime):
    """In a process of its own, as OpenVINO's threads do not outlive a fork."""
    pytest.importorskip(runtime)
    given = (f"images={photos}", "model=imagenet", "image_size=64", f"runtime={runtime}", "workers=2", "output=r.h5")
    place.done("extract", *given, "precision=auto")
    alike(extract(config(photos)), place / "r.h5")
    finished = place.run("extract", *given, "precision=bfloat16", "overwrite=true")
    assert (finished.status, "precision=bfloat16" in finished.err) == (2, True)


# --- the command line ------------------------------------------------------------------------------------------------


def test_the_script_refuses_an_unreadable_photo_in_one_line(place):
    shutil.copy(SAMPLE / "S000.jpg", place / "good.jpg")
    place.text("bad.jpg", "not a photo")
    place.refused("extract", "images=.", "output=d.h5", "strict=true", "image_size=64", naming=("bad.jpg", "decoded"))
    place.refused("extract", "images=nowhere", "output=d.h5", naming=("images=nowhere", "no such folder"))
    place.refused("extract", "images=[good.jpg,nowhere]", "output=d.h5", naming=("images=nowhere", "no such folder"))
    place.refused("extract", "images=[]", "output=d.h5", naming=("images=", "expected"))
    place.refused("extract", "images=.", "output=.", naming=("output=.", "is a folder"))
    place.refused("extract", "images=.", "output=d.h5", "views=flop", naming=("flop", "flip"))


def test_ctrl_c_leaves_no_file(place):
    before = place.contents()
    arguments = (f"images={SAMPLE}", "output=d.h5", "image_size=640", "batch_size=1", "workers=1")
    finished = place.signalled(signal.SIGINT, "extract", *arguments, when=lambda err: "extracting" in err)
    assert finished.status == 130, finished.err
    assert "interrupted" in finished.err
    assert "Traceback" not in finished.err
    assert place.contents() == before
