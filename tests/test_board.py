"""Curves for TensorBoard, read back by TensorBoard."""

from __future__ import annotations

import resource
import threading
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from isc.errors import InputError
from isc.train.tensorboard_log import FOLDER, Board


def curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of every curve, as TensorBoard shows them."""
    events = EventAccumulator(str(run / FOLDER))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def written(run: Path, steps: range, *, since: int = 0) -> None:
    with Board.of(run, since) as board:
        for step in steps:
            board.write({"loss": 10.0 + step, "lr": 0.5}, step)


def test_curves_are_read_back(tmp_path):
    with Board.of(tmp_path, 0) as board:
        board.write({"loss": 2.5, "lr": 0.25}, 1)
        board.write({"loss": 1.5, "lr": 0.125}, 2)
        board.write({"average_precision": 0.75}, 2, group="validation")
    assert curves(tmp_path) == {
        "training/loss": [(1, 2.5), (2, 1.5)],
        "training/lr": [(1, 0.25), (2, 0.125)],
        "validation/average_precision": [(2, 0.75)],
    }


@pytest.mark.parametrize("since", [1, 2, 3])
def test_what_was_written_after_the_checkpoint_is_hidden(tmp_path, since):
    """Interrupted after step 3, begun again after step `since`: each step once, none lost."""
    written(tmp_path, range(1, 4))
    with Board.of(tmp_path, since) as board:
        for step in range(since + 1, 6):
            board.write({"loss": 20.0 + step}, step)
    expected = [(s, 10.0 + s) for s in range(1, since + 1)] + [(s, 20.0 + s) for s in range(since + 1, 6)]
    assert curves(tmp_path)["training/loss"] == expected


def test_a_run_without_a_checkpoint_begins_its_curves_anew(tmp_path):
    written(tmp_path, range(1, 4))
    written(tmp_path, range(1, 3))
    assert [step for step, _ in curves(tmp_path)["training/loss"]] == [1, 2]


def test_other_ranks_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("isc.train.tensorboard_log.rank", lambda: 1)
    written(tmp_path, range(1, 3))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(InputError, match=r"tensorboard: cannot be written"), Board.of(tmp_path / "run", 0):
        pass


def test_errors_of_others_keep_their_own_words(tmp_path):
    with pytest.raises(OSError, match="too many open files"), Board.of(tmp_path, 0):
        raise OSError("too many open files")


def test_a_disk_that_takes_no_more_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda problem: None)  # the writer's own thread tells it too
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    told = pytest.raises(InputError, match=r"tensorboard: cannot be written \(File too large\)")
    try:
        with told, Board.of(tmp_path, 0) as board:
            resource.setrlimit(resource.RLIMIT_FSIZE, (400, before[1]))
            for step in range(100):
                board.write({"loss": 1.0}, step)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
