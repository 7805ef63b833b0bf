"""Approximate search against the exact one, and its folders against all that can happen to files."""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import faiss
import numpy as np
import pytest

from isc.config.choices import Device
from isc.data.descriptors import Descriptors
from isc.errors import InputError
from isc.search.approximate.arrays import hash_sample
from isc.search.approximate.faiss_adapter import parse_search
from isc.search.approximate.files import build_on_disk, load, open_index
from isc.search.approximate.index import Approximate
from isc.search.approximate.pairs import approximate_pairs
from isc.search.exact import best_pairs, nearest

DIM, LISTS = 16, 16
ON_GPU = hasattr(faiss, "get_num_gpus") and faiss.get_num_gpus() > 0
EXHAUSTIVE = {  # factory texts, and the search that leaves nothing out
    "Flat": "",
    "IVF16,Flat": "nprobe=16",
    "IVF16,SQ8": "nprobe=16",
    "IVF16,PQ4np": "nprobe=16",
    "PCAR8,IVF16,Flat": "nprobe=16",
    "IVF16,Flat,RFlat": "nprobe=16",
    "IVF16,PQ4x4fsr": "nprobe=16",
    "IVF16_HNSW8,SQ8": "nprobe=16,quantizer_efSearch=64",
    "SQ8": "",
    "PQ4x4fs": "",
    "HNSW16": "efSearch=600",
}


def vectors(rows: int, seed: int) -> np.ndarray:
    """Clustered points, so that lists differ."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(12, DIM))
    return (centres[rng.integers(12, size=rows)] + 0.5 * rng.normal(size=(rows, DIM))).astype(np.float32)


def descriptors(array: np.ndarray, letter: str) -> Descriptors:
    return Descriptors([f"{letter}{i}" for i in range(len(array))], array)


TRAINING, REFERENCES, QUERIES = vectors(700, 0), vectors(600, 1), vectors(30, 2)


def filled(factory: str, references: np.ndarray = REFERENCES, *, seed: int = 0) -> Approximate:
    index = Approximate.train(factory, TRAINING, seed=seed)
    index.add(references)
    return index


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    filled("IVF16,Flat").save(tmp_path / "index")
    return tmp_path / "index"


def on_disk(folder: Path, factory: str = "IVF16,SQ8", references: np.ndarray = REFERENCES) -> Approximate:
    """Built of blocks of 250 rows in some shards."""
    empty = Approximate.train(factory, TRAINING)
    blocks = (references[start : start + 250] for start in range(0, len(references), 250))
    return build_on_disk(folder, empty, blocks, memory_gb=1e-5)


def same(one, two) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def refused(action, *naming: str) -> None:
    with pytest.raises(InputError) as caught:
        action()
    assert "\n" not in str(caught.value)
    for part in naming:
        assert part in str(caught.value)


# --- what is found ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factory", EXHAUSTIVE)
def test_probing_everything_and_ranking_by_true_distances_is_exact(factory):
    row, distance = nearest(QUERIES, REFERENCES, k=5)
    found = filled(factory).knn(QUERIES, k=5, search=EXHAUSTIVE[factory], vectors=REFERENCES, factor=120)
    assert found[0].tolist() == np.repeat(np.arange(len(QUERIES)), 5).tolist()
    assert found[1].tolist() == row.ravel().tolist()
    assert found[2].tolist() == distance.ravel().tolist()


def test_distances_are_true_ones_whatever_the_codes():
    query, row, distance = filled("IVF16,PQ4np").knn(QUERIES, k=3, search="nprobe=4", vectors=REFERENCES)
    truth = ((QUERIES[query].astype(np.float64) - REFERENCES[row]) ** 2).sum(axis=1)
    np.testing.assert_allclose(distance, truth, rtol=1e-12)
    coded = filled("IVF16,PQ4np").knn(QUERIES, k=3, search="nprobe=4")
    assert np.abs(coded[2] - ((QUERIES[coded[0]] - REFERENCES[coded[1]]) ** 2).sum(axis=1)).max() > 0.01
    assert coded[2].min() >= 0


def test_lists_come_in_order_of_query_distance_and_row():
    twice = np.concatenate([REFERENCES, REFERENCES])
    query, row, distance = filled("IVF16,Flat", twice).knn(QUERIES, k=9, search="nprobe=3", vectors=twice)
    assert np.array_equal(np.lexsort((row, distance, query)), np.arange(len(query)))
    assert (row[0::9] + len(REFERENCES) == row[1::9]).all()


def test_more_probes_find_more():
    row, _ = nearest(QUERIES, REFERENCES, k=10)
    index = filled("IVF16,Flat")
    truth = set(zip(np.repeat(np.arange(30), 10).tolist(), row.ravel().tolist(), strict=True))
    recall = []
    for probes in (1, 4, 16):
        query, found, _ = index.knn(QUERIES, k=10, search=f"nprobe={probes}")
        recall.append(len(truth & set(zip(query.tolist(), found.tolist(), strict=True))) / len(truth))
    assert recall[0] < recall[1] <= recall[2] == 1


def test_each_search_stands_for_itself():
    index = filled("IVF16,Flat")
    before = index.knn(QUERIES, k=10)
    index.knn(QUERIES, k=10, search="nprobe=1")
    assert same(index.knn(QUERIES, k=10), before)
    assert same(index.knn(QUERIES, k=10, search="nprobe=4"), before)  # √16 lists


def test_more_than_there_are_gives_what_there_is():
    few = REFERENCES[:7]
    for factory, search in EXHAUSTIVE.items():
        for given in (None, few):
            query, row, _ = filled(factory, few).knn(QUERIES, k=50, search=search, vectors=given)
            assert sorted(zip(query, row, strict=True)) == [(q, r) for q in range(30) for r in range(7)]


def test_lists_of_few_probes_are_short_and_hold_nothing_else():
    query, row, _ = filled("IVF16,Flat").knn(QUERIES, k=600, search="nprobe=1")
    assert 0 < len(row) < 30 * 600
    assert 0 <= row.min() <= row.max() < 600
    assert len(set(zip(query.tolist(), row.tolist(), strict=True))) == len(row)


def test_it_is_said_when_fewer_pairs_are_found_than_asked_for(caplog):
    queries = Descriptors([f"q{row}" for row in range(30)], QUERIES)
    references = Descriptors([f"r{row}" for row in range(600)], REFERENCES)
    index = filled("IVF16,Flat")
    found = approximate_pairs(queries, references, index=index, k=300, search="nprobe=1")
    short = int((np.bincount(found.query, minlength=30) < 300).sum())
    assert short > 0
    assert f"{short} of 30 queries have fewer than k=300 pairs" in caplog.text
    assert "nprobe=" in caplog.text
    caplog.clear()
    found = approximate_pairs(queries, references, index=index, num_pairs=15_000, search="nprobe=1")
    assert f"{len(found)} pairs found, num_pairs=15000 asked for" in caplog.text
    caplog.clear()
    assert len(approximate_pairs(queries, references, index=index, k=300, search="nprobe=16")) == 9000
    assert not caplog.text


def test_filling_in_parts_is_filling_at_once():
    parts = Approximate.train("IVF16,SQ8", TRAINING)
    for start, end in ((0, 1), (1, 33), (33, 600)):
        parts.add(REFERENCES[start:end])
    whole = filled("IVF16,SQ8")
    assert parts.card == whole.card
    assert same(parts.knn(QUERIES, k=9), whole.knn(QUERIES, k=9))


@pytest.mark.slow
@pytest.mark.parametrize("factory", ["IVF16,PQ4np", "OPQ4_8,PQ4x4fs"])
def test_a_seed_makes_one_index(factory, tmp_path, capfd):
    for name, seed in (("one", 3), ("two", 3), ("other", 4)):
        filled(factory, seed=seed).save(tmp_path / name)
    one, two, other = ((tmp_path / name / "index.faiss").read_bytes() for name in ("one", "two", "other"))
    assert one == two != other
    assert capfd.readouterr() == ("", "")  # nor do faiss's clusterings complain one by one


# --- pairs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_pairs", [1, 30, 500, 18000])
def test_best_pairs_of_an_exhaustive_index_are_the_best(num_pairs):
    queries, references = descriptors(QUERIES, "Q"), descriptors(REFERENCES, "R")
    found = approximate_pairs(
        queries, references, index=filled("IVF16,Flat"), num_pairs=num_pairs, search="nprobe=16", factor=1
    )
    exact = best_pairs(queries, references, num_pairs=num_pairs)
    assert found.keys().tolist() == exact.keys().tolist()
    assert found.score.tobytes() == exact.score.tobytes()


def test_a_query_that_owns_all_the_best_pairs_is_not_cut_short():
    queries = np.zeros((10, DIM), np.float32)
    queries[1:] = 50
    found = approximate_pairs(
        descriptors(queries, "Q"), descriptors(REFERENCES, "R"), index=filled("Flat"), num_pairs=300
    )
    assert set(found.query.tolist()) == {0}
    assert len(found) == 300


def test_best_of_each():
    queries, references = descriptors(QUERIES, "Q"), descriptors(REFERENCES, "R")
    found = approximate_pairs(queries, references, index=filled("IVF16,PQ4np"), k=4)
    assert np.bincount(found.query).tolist() == [4] * 30
    truth = ((QUERIES[found.query].astype(np.float64) - REFERENCES[found.reference]) ** 2).sum(axis=1)
    np.testing.assert_allclose(found.score, -truth, rtol=1e-6)


def test_pairs_that_do_not_exist_are_refused():
    queries, references, index = descriptors(QUERIES, "Q"), descriptors(REFERENCES, "R"), filled("Flat")
    for wrong in ({"k": 601}, {"k": 0}, {"num_pairs": 18001}, {"num_pairs": 0}):
        refused(lambda w=wrong: approximate_pairs(queries, references, index=index, **w), f"{next(iter(wrong))}=", "1…")
    refused(lambda: approximate_pairs(queries, references, index=index), "one of them")
    refused(lambda: approximate_pairs(queries, references, index=index, k=1, num_pairs=1), "one of them")


def test_which_references_they_are_does_not_depend_on_blocks():
    rows = np.arange(300_000, dtype=np.float32)[:, None]
    one, two = hashlib.sha256(), hashlib.sha256()
    hash_sample(one, rows, 0)
    for start in range(0, len(rows), 777):
        hash_sample(two, rows[start : start + 777], start)
    assert one.digest() == two.digest()


def test_other_references_are_refused():
    queries, index = descriptors(QUERIES, "Q"), filled("IVF16,Flat")
    turned = np.roll(REFERENCES, 1, axis=0)
    for others, naming in ((turned, "another order"), (REFERENCES[:-1], "599 × 16"), (REFERENCES[:, :8], "dimensions")):
        refused(lambda o=others: approximate_pairs(queries, descriptors(o, "R"), index=index, k=1), naming)


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factory", ["", "bogus", "IVF16", "PQ5", "IVF16,PQ5", "IVF0,Flat", "IVF999999999999,Flat"])
def test_texts_that_make_no_index(factory):
    refused(lambda: Approximate.train(factory, TRAINING), f"index={factory}: ", "expected")


def test_too_few_training_descriptors(caplog):
    refused(lambda: Approximate.train("IVF16,Flat", TRAINING[:15]), "IVF16,Flat", "16 lists", "15 training")
    refused(lambda: Approximate.train("PQ4np", TRAINING[:255]), "PQ4np", "255 training", "256")
    Approximate.train("IVF16,Flat", TRAINING[:16])
    told = [record.getMessage() for record in caplog.records]
    assert told == ["16 training descriptors; better 624 for index=IVF16,Flat"]


@pytest.mark.parametrize("bad", [np.zeros((0, DIM)), np.zeros((3, DIM + 1)), np.zeros(DIM), np.full((3, DIM), np.nan)])
def test_arrays_that_do_not_fit(bad):
    index = filled("IVF16,Flat")
    bad = bad.astype(np.float32)
    refused(lambda: index.knn(bad, k=1), "queries", "expected")
    if len(bad):
        refused(lambda: index.add(bad), "references", "expected")
    refused(lambda: index.knn(QUERIES, k=1, vectors=bad), "references", "expected")
    if bad.shape != (3, DIM + 1):
        refused(lambda: Approximate.train("Flat", bad), "training", "expected")


def test_numbers_that_do_not_fit(tmp_path):
    index = filled("IVF16,Flat")
    refused(lambda: index.knn(QUERIES, k=0), "k=0")
    refused(lambda: index.knn(QUERIES, k=1, factor=0), "factor=0")
    empty = Approximate.train("IVF16,Flat", TRAINING)
    refused(lambda: empty.knn(QUERIES, k=1), "no references")
    refused(lambda: empty.save(tmp_path / "index"), "no references")
    assert not list(tmp_path.iterdir())
    refused(lambda: filled("IDMap,Flat"), "IDMap,Flat", "add_with_ids")


@pytest.mark.parametrize("search", ["nprobe", "nprobe=", "nprobe=0", "nprobe=-1", "nprobe=1,nprobe=2", "nprobe=1e3"])
def test_parameters_that_are_none(search):
    refused(lambda: parse_search(search), f"search={search}", "nprobe=32,efSearch=64")


def test_parameters_that_the_index_does_not_have():
    assert parse_search("nprobe=32, efSearch=64") == {"nprobe": 32, "efSearch": 64}
    refused(lambda: filled("IVF16,Flat").knn(QUERIES, k=1, search="efSearch=8"), "search=efSearch=8", "IVF16,Flat")
    refused(lambda: filled("Flat").knn(QUERIES, k=1, search="nprobe=8"), "search=nprobe=8")


@pytest.mark.skipif(ON_GPU, reason="says what a machine without a GPU is told")
def test_what_needs_a_gpu_says_so():
    refused(lambda: Approximate.train("CAGRA", TRAINING), "CAGRA", "GPU", "HNSW32")
    refused(lambda: filled("Flat").to(Device.cuda), "device=cuda")
    index = filled("Flat")
    assert index.to(Device.auto) is index.to(Device.cpu) is index


# --- folders ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factory", EXHAUSTIVE)
@pytest.mark.parametrize("mmap", [True, False])
def test_a_saved_index_is_the_same(factory, mmap, tmp_path):
    index = filled(factory)
    index.save(tmp_path / "index")
    again = load(tmp_path / "index", mmap=mmap)
    assert again.card == index.card
    assert same(again.knn(QUERIES, k=7), index.knn(QUERIES, k=7))
    assert same(again.knn(QUERIES, k=7, vectors=REFERENCES), index.knn(QUERIES, k=7, vectors=REFERENCES))


def test_a_saved_index_is_read_by_memory_map(tmp_path):
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("no /proc")
    for factory in ("Flat", "HNSW16", "IVF16,SQ8"):
        folder = tmp_path / factory
        filled(factory).save(folder)
        index = load(folder)
        assert str(folder / "index.faiss") in maps.read_text()
        index.knn(QUERIES, k=1)
        del index
        assert str(folder / "index.faiss") not in maps.read_text()


def test_a_saved_index_takes_nothing_more(saved):
    refused(lambda: load(saved).add(REFERENCES), str(saved))  # inside faiss it would end the process
    refused(lambda: load(saved).save(saved), str(saved))


def test_saving_replaces_whole(tmp_path):
    folder = tmp_path / "index"
    on_disk(folder)
    filled("Flat").save(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["index.faiss", "index.json"]
    assert load(folder).card.factory == "Flat"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index"]


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("name", ["index.faiss", "lists.ivfdata"])
def test_a_file_cut_short_is_refused(name, share, tmp_path):
    folder = tmp_path / "index"
    on_disk(folder)
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: int(share * len(whole))])
    for verify in (True, False):
        refused(lambda v=verify: load(folder, verify=v), str(folder / name), "cut short")
    (folder / name).write_bytes(whole + b"\0")
    refused(lambda: load(folder), str(folder / name))
    (folder / name).write_bytes(whole)
    load(folder)


@pytest.mark.parametrize("at", [0, 4, 40, -1])
def test_a_flipped_byte_is_refused(at, saved):
    path = saved / "index.faiss"
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)
    refused(lambda: load(saved), str(path), "not as it was written")


def test_an_exchanged_file_is_refused(saved, tmp_path):
    filled("IVF16,Flat", vectors(600, 8)).save(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "index.faiss", saved / "index.faiss")
    refused(lambda: load(saved), "index.faiss")


def test_a_folder_that_is_no_index(saved, tmp_path):
    refused(lambda: load(tmp_path / "nowhere"), "nowhere", "no such file")
    (saved / "index.faiss").unlink()
    refused(lambda: load(saved), "index.faiss", "no such file")


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"},
        {"files": {}},
        {"files": None},
        {"count": "many"},
        {"files": {"../index.faiss": {"bytes": 1, "sha256": ""}}},
        {"files": {"index.faiss": {"bytes": None, "sha256": ""}}},
    ],
)
def test_a_damaged_card_is_refused(change, saved):
    card = json.loads((saved / "index.json").read_text())
    (saved / "index.json").write_text(json.dumps(card | change))
    refused(lambda: load(saved), "index.json")


def test_a_card_that_disagrees_is_refused(saved):
    card = json.loads((saved / "index.json").read_text())
    (saved / "index.json").write_text(json.dumps(card | {"count": 601}))
    refused(lambda: load(saved), "600 × 16", "601 × 16")
    for text in ("", "{", "[]", "\xff"):
        (saved / "index.json").write_text(text, encoding="latin-1")
        refused(lambda: load(saved), "index.json", "again")


def test_opening_by_name(saved):
    index = open_index(str(saved), REFERENCES)
    assert same(index.knn(QUERIES, k=3), open_index("IVF16,Flat", REFERENCES, training=TRAINING).knn(QUERIES, k=3))
    refused(lambda: open_index(str(saved), REFERENCES[::-1]), "another order")
    refused(lambda: open_index("IVF16,Flat", REFERENCES), "training=")


# --- larger than memory ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factory", ["IVF16,Flat", "IVF16,SQ8", "PCAR8,IVF16,PQ4np", "IVF16_HNSW8,SQ8"])
def test_lists_on_disk_give_the_same(factory, tmp_path, capfd):
    index = on_disk(tmp_path / "index", factory)
    whole = filled(factory)
    assert index.card == whole.card
    for search in ("", "nprobe=1", "nprobe=16"):
        assert same(index.knn(QUERIES, k=9, search=search), whole.knn(QUERIES, k=9, search=search))
    names = sorted(path.name for path in (tmp_path / "index").iterdir())
    assert names == ["index.faiss", "index.json", "lists.ivfdata"]
    assert capfd.readouterr() == ("", "")


def test_the_folder_may_be_moved(tmp_path):
    before = on_disk(tmp_path / "index").knn(QUERIES, k=9)
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "index").rename(tmp_path / "far" / "away" / "index")
    assert same(load(tmp_path / "far" / "away" / "index").knn(QUERIES, k=9), before)
    assert str(tmp_path).encode() not in (tmp_path / "far" / "away" / "index" / "index.faiss").read_bytes()


def test_what_cannot_lie_on_disk(tmp_path):
    for factory in ("Flat", "HNSW16", "IVF16,Flat,RFlat", "IVF16,PQ4x4fs", "IVF16,PQ4+4"):
        refused(lambda f=factory: on_disk(tmp_path / "index", f), factory, "IVF")
    refused(lambda: build_on_disk(tmp_path / "index", filled("IVF16,Flat"), [REFERENCES]), "empty")
    empty = Approximate.train("IVF16,Flat", TRAINING)
    refused(lambda: build_on_disk(tmp_path / "index", empty, []), "no references")
    refused(lambda: build_on_disk(tmp_path / "index", empty, [REFERENCES], memory_gb=0), "memory_gb=0")
    refused(lambda: build_on_disk(tmp_path / "index", empty, [REFERENCES, QUERIES[:, :4]]), "30 × 4")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("isc.search.approximate.files.shutil.disk_usage", lambda _: usage)
    refused(lambda: on_disk(tmp_path / "index"), "1e-06 GB free")
    assert not list(tmp_path.iterdir())


LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
from isc.search.approximate.index import Approximate
from isc.search.approximate.files import build_on_disk

folder, rows, how = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
block = lambda seed: np.random.default_rng(seed).standard_normal((10_000, 256), dtype=np.float32)
index = Approximate.train("IVF16,Flat", block(0))
build_on_disk(folder / "warm", index, [block(0)], memory_gb=0.02).knn(block(0)[:9], k=9)  # threads are up
used = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmData"))
size = rows * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + size // 2, used + size // 2))
blocks = (block(seed) for seed in range(rows // 10_000))
try:
    if how == "memory":
        for one in blocks:
            index.add(one)
    else:
        index = build_on_disk(folder / "index", index, blocks, memory_gb=size / 8e9)
        assert len(index.knn(block(0)[:100], k=3, search="nprobe=16")[0]) == 300
        assert (folder / "index" / "lists.ivfdata").stat().st_size > size
    print(len(index))
except MemoryError:
    print("MemoryError")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts mapped memory on Linux alone")
def test_half_the_memory_of_the_data_is_enough(tmp_path):
    """A hard limit: what is allocated may not exceed it, mapped files do not count."""

    def small_stacks() -> None:  # faiss reads ahead with 32 threads, whose stacks would count
        resource.setrlimit(resource.RLIMIT_STACK, (1 << 19, resource.getrlimit(resource.RLIMIT_STACK)[1]))

    said = {}
    for how in ("disk", "memory"):
        command = [sys.executable, "-c", LIMITED, str(tmp_path / how), "100000", how]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120, check=False, preexec_fn=small_stacks
        )
        said[how] = done.stdout.strip(), done.returncode, done.stderr[-300:]
    assert said["disk"] == ("100000", 0, "")
    assert said["memory"][0] != "100000"  # so the limit does hold


@pytest.mark.parametrize("factory", ["IVF16,Flat", "PCAR8,IVF16,Flat", "IVF16_HNSW8,SQ8", "IVF16,Flat,RFlat"])
def test_gpus_cluster_the_training_rows(factory, monkeypatch):
    """faiss's k-means asks the index that GPUs would hold; here it stays on the CPU, so the lists are the same."""
    moved, trained = [], faiss.serialize_index(Approximate.train(factory, TRAINING)._index)
    monkeypatch.setattr("isc.search.approximate.faiss_adapter.faiss_gpus", lambda: 2)
    monkeypatch.setattr(faiss, "index_cpu_to_all_gpus", lambda index: moved.append(index) or index, raising=False)
    index = Approximate.train(factory, TRAINING)._index
    assert [(one.d, one.ntotal) for one in moved] == [(8 if "PCAR8" in factory else DIM, LISTS)]
    assert faiss.try_extract_index_ivf(index).clustering_index is None
    assert faiss.serialize_index(index).tobytes() == trained.tobytes()
    for other, device in ((factory, Device.cpu), ("Flat", Device.auto)):
        Approximate.train(other, TRAINING, device=device)
    assert len(moved) == 1


# --- a GPU -----------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(not ON_GPU, reason="needs a CUDA device and a faiss for it")
@pytest.mark.parametrize("factory", ["Flat", "IVF16,Flat", "IVF16,SQ8"])
def test_the_gpu_finds_the_same(factory):
    search = "nprobe=16" if "IVF" in factory else ""
    index = filled(factory)
    moved = index.to(Device.cuda)
    one, two = (found.knn(QUERIES, k=7, search=search, vectors=REFERENCES) for found in (index, moved))
    assert same(one, two)
    refused(lambda: moved.add(REFERENCES), "GPU")


@pytest.mark.gpu
@pytest.mark.skipif(not (ON_GPU and hasattr(faiss, "GpuIndexCagra")), reason="needs a CUDA device and faiss-gpu-cuvs")
def test_cagra(tmp_path):
    index = filled("CAGRA16")
    row, _ = nearest(QUERIES, REFERENCES, k=1)
    query, found, _ = index.knn(QUERIES, k=10, vectors=REFERENCES)
    assert (found[np.searchsorted(query, np.arange(30))] == row[:, 0]).mean() > 0.9
    index.save(tmp_path / "index")
    query, found, _ = load(tmp_path / "index").knn(QUERIES, k=10, vectors=REFERENCES)
    assert (found[np.searchsorted(query, np.arange(30))] == row[:, 0]).mean() > 0.9
    refused(lambda: index.add(REFERENCES), "CAGRA")
