"""A folder that is replaced whole: killed before each call that changes the disk, it is the old one or the new one."""

from __future__ import annotations

import errno
import os
import signal
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from isc.data import swap
from isc.data.files import atomic_folder
from isc.errors import InputError

OLD = {"a": "old", "b": "old", "report/index.html": "old", "mine.txt": "mine", "report/mine.txt": "mine"}
NEW = {"a": "new", "c": "new", "report/index.html": "new", "mine.txt": "mine", "report/mine.txt": "mine"}
CALLS = ("mkdir", "rename", "link", "unlink", "rmdir", "replace")


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def content(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def rewrite(folder: Path) -> None:
    with atomic_folder(folder, owned=("a", "b", "c")) as beside:
        write(beside, {"a": "new", "c": "new", "report/index.html": "new"})


def killed_before(call: int, action) -> bool:
    """Run the action in a process that is killed before its `call`th change of the disk; return whether it was."""
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            left = call

            def counted(function):
                def run(*args, **kwargs):
                    nonlocal left
                    left -= 1
                    if left < 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return function(*args, **kwargs)

                return run

            for name in CALLS:
                setattr(os, name, counted(getattr(os, name)))
            swap._exchange = counted(swap._exchange)
            action()
            os._exit(0)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGKILL)
    return code != 0


def test_files_of_both_come_together(tmp_path):
    write(tmp_path / "out", OLD)
    (tmp_path / "out").chmod(0o750)
    (tmp_path / "out" / "link").symlink_to("mine.txt")
    rewrite(tmp_path / "out")
    assert content(tmp_path / "out") == NEW | {"link": "mine"}
    assert (tmp_path / "out" / "link").is_symlink()
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o750
    assert [one.name for one in tmp_path.iterdir()] == ["out"]


def test_through_a_link_the_folder_behind_it_is_replaced(tmp_path):
    write(tmp_path / "real", OLD)
    (tmp_path / "out").symlink_to("real")
    rewrite(tmp_path / "out")
    assert (tmp_path / "out").is_symlink()
    assert content(tmp_path / "real") == NEW


def test_a_kill_at_any_call_leaves_the_old_folder_or_the_new_one(tmp_path):
    call, seen = 0, set()
    while True:
        folder = tmp_path / str(call) / "out"
        write(folder, OLD)
        killed = killed_before(call, partial(rewrite, folder))
        found = content(folder)
        assert found in (OLD, NEW), f"call {call}"
        seen.add(found == NEW)
        rewrite(folder)
        assert content(folder) == NEW
        assert [one.name for one in folder.parent.iterdir()] == ["out"], "what the killed process left is removed"
        if not killed:
            break
        call += 1
    assert call > 10
    assert seen == {False, True}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["no exchange", "working directory"])
def test_where_folders_cannot_change_places_new_files_never_lie_beside_old_ones(tmp_path, monkeypatch, how):
    if how == "no exchange":

        def refuse(one, two):
            raise OSError(errno.EINVAL, "Invalid argument")

        monkeypatch.setattr(swap, "_exchange", refuse)
    call = 0
    while True:
        folder = tmp_path / str(call) / "out"
        write(folder, OLD)
        if how == "working directory":
            monkeypatch.chdir(folder)
        killed = killed_before(call, partial(rewrite, folder))
        texts = set(content(folder).values()) - {"mine"}
        assert texts in (set(), {"old"}, {"new"}), f"call {call}"
        rewrite(folder)
        assert {name: text for name, text in content(folder).items() if text != "mine"} == {
            "a": "new", "c": "new", "report/index.html": "new",
        }  # fmt: skip
        assert content(folder) == NEW
        if not killed:
            break
        call += 1
    assert call > 5
    assert content(folder) == NEW


def test_a_folder_without_write_permission_above_it_is_still_written(tmp_path, monkeypatch):
    """As a volume of a container is."""
    write(tmp_path / "out", OLD)
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path and access(path, mode))
    before = (tmp_path / "out").stat().st_ino
    rewrite(tmp_path / "out")
    assert content(tmp_path / "out") == NEW
    assert (tmp_path / "out").stat().st_ino == before
    assert not list(tmp_path.rglob("*.part"))


def test_a_disk_without_room_leaves_the_old_folder(tmp_path, monkeypatch):
    write(tmp_path / "out", OLD)

    def full(one, two):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(swap, "_exchange", full)
    with pytest.raises(InputError, match=r"cannot be written \(No space left"):
        rewrite(tmp_path / "out")
    assert content(tmp_path / "out") == OLD
    assert [one.name for one in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_another_process_prepares_is_left_alone(tmp_path):
    with atomic_folder(tmp_path / "out") as first:
        (first / "a").write_text("first")
        with atomic_folder(tmp_path / "out") as second:
            (second / "b").write_text("second")
        assert (first / "a").read_text() == "first"
    assert content(tmp_path / "out") == {"a": "first", "b": "second"}
