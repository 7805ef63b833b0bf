"""Photos → descriptors: ids stay with their vectors, unreadable photos are listed, and nothing is written by halves."""

from __future__ import annotations

import csv
import shutil
import signal
from pathlib import Path

import h5py
import numpy as np
import pytest

import isc.device
import isc.extract
from isc.config import ExtractConfig
from isc.errors import InputError
from isc.extract import embed, extract
from isc.io import read_descriptors, read_provenance
from isc.model import load_model

SAMPLE = Path(isc.__file__).parent / "sample"
NAMES = ["a", "b", "sub/a", "sub/deep/c", "z"]


@pytest.fixture(scope="module")
def model():
    """The untrained start, built once."""
    return load_model("imagenet")


@pytest.fixture(autouse=True)
def _built_once(model, monkeypatch):
    monkeypatch.setattr(isc.extract, "load_model", lambda name: model if name == "imagenet" else load_model(name))


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
    return ExtractConfig(images=str(photos), **options)


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
        alone, _ = embed(model, [photos / f"{name}.jpg"], image_size=64)
        np.testing.assert_allclose(vector, alone[0], atol=1e-6)


def test_the_file_says_where_it_came_from(photos):
    provenance = read_provenance(extract(config(photos)))
    assert provenance["model"] == "tf_efficientnet_lite0"
    assert len(provenance["weights_sha256"]) == 64
    assert provenance["image_size"] == "64"
    assert provenance["precision"] == "float32"
    assert provenance["code_version"] == isc.__version__
    assert "RGB" in provenance["preprocessing"]


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 2}, {"workers": 2, "batch_size": 2}])
def test_batches_and_workers_do_not_change_the_vectors(photos, options):
    """Workers decode only, so they change no bit; a convolution's sums may be ordered otherwise in another batch."""
    plain = read_descriptors(extract(config(photos)))
    other = read_descriptors(extract(config(photos, output=str(photos.parent / "other.h5"), **options)))
    assert other.ids.tolist() == plain.ids.tolist()
    np.testing.assert_allclose(other.vectors, plain.vectors, rtol=0, atol=1e-6)


def test_workers_do_not_change_a_bit(photos):
    one = read_descriptors(extract(config(photos, batch_size=2)))
    two = read_descriptors(extract(config(photos, batch_size=2, workers=2, output=str(photos.parent / "two.h5"))))
    np.testing.assert_array_equal(one.vectors, two.vectors)


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

    def full(*_):
        raise InputError("d.h5: cannot be written (No space left on device)")

    monkeypatch.setattr(isc.extract, "write_descriptors", full)
    with pytest.raises(InputError, match="No space"):
        extract(config(photos))
    assert beside(photos) == set()


# --- refusals --------------------------------------------------------------------------------------------------------


def test_two_files_with_one_id_are_refused_by_name(photos):
    shutil.copy(photos / "b.jpg", photos / "b.png")
    with pytest.raises(InputError, match=r"b\.jpg and .*b\.png .*'b'"):
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
    monkeypatch.setattr(isc.extract, "embed", lambda *_, **__: pytest.fail("was extracted again"))
    assert extract(config(photos)) == written
    assert (written.stat().st_mtime_ns, written.read_bytes()) == before


def test_the_same_call_twice_does_nothing_where_photos_cannot_be_read(photos, monkeypatch):
    (photos / "b.jpg").write_bytes(b"not a photo")
    extract(config(photos))
    monkeypatch.setattr(isc.extract, "embed", lambda *_, **__: pytest.fail("was extracted again"))
    extract(config(photos))
    assert beside(photos) == {"d.h5", "d.h5.failures.csv"}


@pytest.mark.parametrize(
    ("options", "named"), [({"image_size": 96}, "image_size"), ({"precision": "bfloat16"}, "precision")]
)
def test_a_file_made_otherwise_is_refused_unless_overwritten(photos, options, named):
    from isc.config import Precision

    options = {name: Precision(value) if name == "precision" else value for name, value in options.items()}
    written = extract(config(photos))
    before = written.read_bytes()
    with pytest.raises(InputError, match=rf"d\.h5.* {named}=.*now {named}=.*overwrite=true"):
        extract(config(photos, **options))
    assert written.read_bytes() == before
    extract(config(photos, overwrite=True, **options))
    assert written.read_bytes() != before


@pytest.mark.parametrize("native", [True, False])
def test_precision_auto_is_what_the_hardware_has(photos, native, monkeypatch):
    """The file says which it was, so that the same file on another machine is not taken for the same."""
    from isc.config import Precision

    monkeypatch.setattr(isc.device, "native_bfloat16", lambda device: native)
    meant = Precision.bfloat16 if native else Precision.float32
    auto = extract(config(photos, precision=Precision.auto))
    plain = extract(config(photos, precision=meant, output=str(photos.parent / "plain.h5")))
    assert read_provenance(auto) == read_provenance(plain)
    assert read_provenance(auto)["precision"] == meant.value
    np.testing.assert_array_equal(read_descriptors(auto).vectors, read_descriptors(plain).vectors)


def test_another_model_is_refused_unless_overwritten(photos, monkeypatch):
    from isc.config import ModelConfig
    from isc.model import initial_model

    written = extract(config(photos))
    other = initial_model(ModelConfig(), seed=1).eval()
    monkeypatch.setattr(isc.extract, "load_model", lambda name: other)
    with pytest.raises(InputError, match="weights_sha256="):
        extract(config(photos))
    extract(config(photos, overwrite=True))
    assert read_provenance(written)["weights_sha256"] == isc.extract.describe(other)["weights_sha256"]


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


# --- the command line ------------------------------------------------------------------------------------------------


def test_the_script_refuses_an_unreadable_photo_in_one_line(place):
    shutil.copy(SAMPLE / "S000.jpg", place / "good.jpg")
    place.text("bad.jpg", "not a photo")
    place.refused("extract", "images=.", "output=d.h5", "strict=true", "image_size=64", naming=("bad.jpg", "decoded"))
    place.refused("extract", "images=nowhere", "output=d.h5", naming=("images=nowhere", "no such folder"))


def test_ctrl_c_leaves_no_file(place):
    before = place.contents()
    arguments = (f"images={SAMPLE}", "output=d.h5", "image_size=640", "batch_size=1", "workers=1")
    finished = place.signalled(signal.SIGINT, "extract", *arguments, when=lambda err: "extracting" in err)
    assert finished.status == 130, finished.err
    assert "interrupted" in finished.err
    assert "Traceback" not in finished.err
    assert place.contents() == before
