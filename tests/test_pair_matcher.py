"""The pair matcher of numpy is the one that torch trained; it learns, goes on where it was stopped, and is judged."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch

from benchmarks.matching import bench
from benchmarks.pair_matcher import __main__ as program
from benchmarks.pair_matcher import judge
from benchmarks.pair_matcher import network as numpy_network
from benchmarks.pair_matcher.data import TokenMaker, make_tokens, pack, photo, read_tokens, shown_by, view
from benchmarks.pair_matcher.model import PairConfig, PairNetwork, save_pair_network
from benchmarks.pair_matcher.training import KINDS, Settings, Source, Trainer, batch_of, near_photos, pair_loss, train
from isc.descriptors import Descriptors
from isc.errors import InputError
from isc.images import SAMPLE
from isc.metrics import evaluate
from isc.network import load_network

PATHS = sorted(SAMPLE.glob("*.jpg"))[:12]
SMALL = PairConfig(coarse=6, fine=2, places=9, width=8, heads=2, blocks=1, look_heads=1, look_width=4, place_width=4)


# --- the network -----------------------------------------------------------------------------------------------------


def far_network(config):
    torch.manual_seed(0)
    made = PairNetwork(config).eval()
    with torch.no_grad():  # as far from where training begins as training leads
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
            parameter.copy_(parameter.half().float())
    return made


@pytest.mark.parametrize("config", [PairConfig(), SMALL], ids=["default", "small"])
def test_logits_equal_those_of_torch(tmp_path, config):
    made = far_network(config)
    save_pair_network(tmp_path / "pair.npz", made)
    shape = (config.places, config.coarse + 4 * config.fine)
    query, *references = np.random.default_rng(0).standard_normal((36, *shape)).astype(np.float16)
    references = np.stack(references)  # 35: a whole chunk and some
    found = numpy_network.load(tmp_path / "pair.npz").score(query, references)
    assert found.std() > 0.01  # else any constant would pass
    with torch.inference_mode():
        pairs = (torch.from_numpy(x).float() for x in (query[None].repeat(35, axis=0), references))
        np.testing.assert_allclose(found, made(*pairs).numpy(), atol=1e-4)


def test_files_that_are_no_weights_and_tokens_of_another_shape_are_refused(tmp_path):
    path = tmp_path / "pair.npz"
    with pytest.raises(InputError, match="cannot be read"):
        numpy_network.load(path)
    np.savez(path, format=np.array("another"))
    with pytest.raises(InputError, match="does not say isc-pair-1"):
        numpy_network.load(path)
    save_pair_network(path, PairNetwork(SMALL))
    with pytest.raises(InputError, match=r"expected \[pictures, 9, 14\]"):
        numpy_network.load(path).score(np.zeros((9, 14)), np.zeros((2, 9, 15)))


# --- tokens ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def maker():
    return TokenMaker(load_network("isc_small", device="cpu"))


def test_tokens_of_real_photos_stay_and_missing_ones_are_made(maker, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.pair_matcher.data.PART", 3)
    asked = []

    def picture(row):
        asked.append(row)
        return photo(PATHS, row)

    make_tokens(maker, 7, picture, tmp_path)
    whole = read_tokens(tmp_path, 7)
    unit = whole.tokens[..., :256].astype(np.float32)
    unit /= np.linalg.norm(unit, axis=2, keepdims=True)
    likeness = unit.mean(1) @ whole.descriptors.astype(np.float32).T
    assert (likeness.argmax(1) == np.arange(7)).all(), "places point where the whole picture does"
    (tmp_path / "00000003.npz").unlink()
    with pytest.raises(InputError, match=r"00000003\.npz: is not there"):
        read_tokens(tmp_path, 7)
    asked.clear()
    make_tokens(maker, 7, picture, tmp_path)
    assert asked == [3, 4, 5]
    np.testing.assert_array_equal(read_tokens(tmp_path, 7).tokens, whole.tokens)
    with pytest.raises(InputError, match="holds 7 pictures; expected 8"):
        read_tokens(tmp_path, 8)


def test_packed_tokens_hold_the_fine_places_inside_their_coarse_one():
    tokens = pack(np.full((1, 49, 2), -1, np.float16), np.arange(196, dtype=np.float16)[None, :, None])
    np.testing.assert_array_equal(tokens[0, 0], [-1, -1, 0, 1, 14, 15])
    np.testing.assert_array_equal(tokens[0, 8, 2:], [2 * 14 + 2, 2 * 14 + 3, 3 * 14 + 2, 3 * 14 + 3])


def test_views_are_the_same_whenever_they_are_made_and_show_every_photo_once_a_lap():
    shows = shown_by(30, photos=12, seed=5)
    assert sorted(shows[12:24]) == list(range(12))
    np.testing.assert_array_equal(shows[:20], shown_by(20, photos=12, seed=5))
    once, again, other = (view(PATHS, number, shows=3, seed=5) for number in (15, 15, 16))
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once, other)


# --- training --------------------------------------------------------------------------------------------------------


def made_up(photos=12, views=30, seed=0):
    """A source whose views are their photos' tokens with noise."""
    rng = np.random.default_rng(seed)
    tokens = rng.standard_normal((photos, 9, 14)).astype(np.float16)
    shows = np.arange(views) % photos
    noisy = tokens[shows] + 0.3 * rng.standard_normal((views, 9, 14)).astype(np.float16)
    near = np.stack([np.setdiff1d(np.arange(photos), [row])[:4] for row in shows])
    return Source(noisy.astype(np.float16), tokens, shows, near)


def settings(**options):
    return Settings(**{"steps": 12, "batch": 8, "warmup": 2, "network": SMALL, **options})


def test_near_photos_are_the_nearest_that_show_something_else():
    rng = np.random.default_rng(0)
    photos = rng.standard_normal((40, 8))
    photos[7] = photos[3] + 0.01  # the same photo again
    photos /= np.linalg.norm(photos, axis=1, keepdims=True)
    shows = rng.integers(40, size=30)
    shows[0] = 3
    views = photos[shows] + 0.2 * rng.standard_normal((30, 8))
    for one, own, rows in zip(views, shows, near_photos(views, photos, shows, count=4), strict=True):
        allowed = [row for row in range(40) if row != own and photos[row] @ photos[own] <= 0.8]
        assert set(rows) == set(sorted(allowed, key=lambda row: -photos[row] @ one)[:4])


def test_batches_hold_every_view_once_a_lap_and_only_wrong_pairs_beside_the_right_one():
    source = made_up(views=30)
    batches = [batch_of(source, step, settings()) for step in range(15)]  # 4 laps
    views = np.concatenate([views for views, _ in batches])
    assert all(sorted(views[start : start + 30]) == list(range(30)) for start in range(0, 120, 30))
    for chosen, photos in batches:
        np.testing.assert_array_equal(photos[:, 0], source.shows[chosen])
        assert (photos[:, 1:] != photos[:, :1]).all()
        assert all(near in source.near[one] for one, near in zip(chosen, photos[:, 1], strict=True))


def test_loss_by_hand():
    expected = (np.log1p(np.exp(-2)) + np.log1p(np.exp(-1)) + np.log1p(np.exp(0.5))) / KINDS
    assert pair_loss(torch.tensor([[2.0, -1.0, 0.5]])).item() == pytest.approx(expected)


def test_it_learns_which_photo_a_view_shows(tmp_path):
    source = made_up()
    matcher = numpy_network.load(train(settings(steps=80, lr=5e-3, average=0.9), source, tmp_path))
    logits = np.stack([matcher.score(one, source.photos) for one in source.views])
    assert (logits.argmax(1) == source.shows).mean() > 0.9


def test_a_stopped_run_ends_where_an_unbroken_one_does_and_one_made_otherwise_is_refused(tmp_path):
    source, folder = made_up(), tmp_path / "broken"
    folder.mkdir()
    whole = np.load(train(settings(), source, tmp_path / "whole"))
    first = Trainer(settings(), source, folder)
    for _ in range(5):
        first.take_step()
    first.save()
    broken = np.load(train(settings(), source, folder))
    for name in whole.files:
        np.testing.assert_array_equal(whole[name], broken[name])
    with pytest.raises(InputError, match=r"lr=0.0015, now lr=0.01"):
        train(settings(lr=0.01), source, folder)
    with pytest.raises(InputError, match="other views or photos"):
        train(settings(), made_up(seed=1), folder)


def test_a_loss_that_is_no_number_stops_the_run_before_it_spoils_the_weights(tmp_path):
    source = made_up()
    trainer = Trainer(settings(), dataclasses.replace(source, photos=np.full_like(source.photos, np.nan)), tmp_path)
    before = trainer.network.state_dict()["hidden.weight"].clone()
    with pytest.raises(InputError, match="step 1: loss nan"):
        trainer.take_step()
    assert torch.equal(trainer.network.state_dict()["hidden.weight"], before)


# --- the judge -------------------------------------------------------------------------------------------------------


def small_bench(folder):
    """30 queries, of which the first 20 are copies, and 12 references; the nearest 4 of each."""
    rng = np.random.default_rng(0)
    references = rng.standard_normal((12, 4)).astype(np.float32)
    queries = np.concatenate([references[np.arange(20) % 12], rng.standard_normal((10, 4))]).astype(np.float32)
    queries += 0.9 * rng.standard_normal(queries.shape).astype(np.float32)
    q, r = [f"Q{n:05d}" for n in range(30)], [f"R{n:06d}" for n in range(12)]
    for role, names in (("queries", q), ("references", r)):
        (folder / role).mkdir()
        for name in names:
            shutil.copy(PATHS[0], folder / role / f"{name}.jpg")
    lines = [f"{name},{r[n % 12] if n < 20 else ''}" for n, name in enumerate(q)]
    (folder / "ground_truth.csv").write_text("query_id,reference_id\n" + "\n".join(lines) + "\n")
    return bench(folder, Descriptors(np.array(q), queries), Descriptors(np.array(r), references), number=4)


def test_the_gain_is_that_of_the_metric_and_a_perfect_score_finds_what_the_geometry_does_not(tmp_path):
    one = small_bench(tmp_path)
    right = one.truth.right(one.candidates)
    perfect = right + 0.01 * np.random.default_rng(1).random(len(right))
    low, gain, high = judge.gain_in_precision(one, perfect, -one.distance, right=right)
    metric = [evaluate(dataclasses.replace(one.candidates, score=s), one.truth) for s in (perfect, -one.distance)]
    assert gain == pytest.approx(metric[0].average_precision - metric[1].average_precision)
    assert low < gain < high
    assert judge.gain_in_precision(one, perfect, perfect, right=right) == (0, 0, 0)
    found = judge.scores(one, right, logit=perfect, fused=-one.distance)
    rows = {line[""]: line for line in judge.table(one, found, right=right, unseen=right)}
    assert rows["logit alone"]["of these found"] == right.sum() > rows["distance"]["of these found"]
    assert rows["fusion + logit"]["gain over"] == "fusion of all"


def test_no_query_is_judged_by_a_fit_that_saw_it():
    rng = np.random.default_rng(0)
    query, columns, right = np.repeat(np.arange(60), 5), rng.standard_normal((300, 2)), rng.random(300) < 0.3
    found = judge.cross_fitted(columns, right=right, query=query)
    flipped = np.where(query == 7, ~right, right)
    changed = judge.cross_fitted(columns, right=flipped, query=query) != found
    assert not changed[query == 7].any()
    assert changed.mean() > 0.7


def test_log_odds_undo_the_logistic_and_stay_finite():
    odds = np.array([-500.0, -2.0, 0.5, 30.0])
    np.testing.assert_allclose(judge.log_odds(np.exp(-np.logaddexp(0, -odds))), odds, rtol=0.02)
    assert np.isfinite(judge.log_odds(np.array([0.0, 1.0]))).all()


# --- the program -----------------------------------------------------------------------------------------------------


def test_the_program_makes_tokens_trains_and_says_in_a_line_what_is_wrong(tmp_path, capsys):
    work = str(tmp_path)
    tokens = ["tokens", str(SAMPLE), work, "--photos", "12"]
    program.main([*tokens, "--views", "8"])
    program.main(["train", work, "--steps", "1", "--batch", "4"])
    assert numpy_network.load(tmp_path / "run" / "pair.npz").token_width == 704
    for arguments, words in (
        ([*tokens, "--views", "9"], "or another WORK"),
        (["tokens", str(SAMPLE), work, "--photos", "200"], "holds 118; expected 1…118"),
        (["train", str(tmp_path / "none")], "run the command tokens"),
        (["judge", work, str(tmp_path / "none")], "cannot be read as weights"),
    ):
        capsys.readouterr()
        with pytest.raises(SystemExit, match="2"):
            program.main(arguments)
        error = capsys.readouterr().err.strip()
        assert error.startswith("error: ")
        assert words in error
        assert "\n" not in error
