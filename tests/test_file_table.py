"""The table of an index's photo files, when others have changed it."""

import contextlib
import sqlite3

import pytest

from isc.errors import InputError
from isc.find.file_table import forget, read_states, read_unreadable, write_states
from isc.find.photos import FileState

STATE = FileState(1, 2, "a1")


def changed(folder, *statements):
    with contextlib.closing(sqlite3.connect(folder / "photos.sqlite")) as database, database:
        for statement in statements:
            database.execute(statement)


def test_states_make_the_round_trip(tmp_path):
    assert read_states(tmp_path) == {}
    write_states(tmp_path, {"a": STATE, "b": STATE}, reasons={"b": "is text"})
    assert read_states(tmp_path) == {"a": STATE}
    assert read_unreadable(tmp_path) == {"b": (STATE, "is text")}
    forget(tmp_path, ["a"])
    assert read_states(tmp_path) == {}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE photos SET size = 'many'",
        "UPDATE photos SET mtime_ns = x'00'",
        "UPDATE photos SET sha256 = x'ff'",
        "UPDATE photos SET id = NULL",
        "UPDATE photos SET size = 1.5",
        "CREATE TRIGGER t AFTER INSERT ON photos BEGIN DELETE FROM photos; END",
        "CREATE VIEW v AS SELECT 1",
    ],
)
def test_what_is_no_state_is_refused_by_file(tmp_path, statement):
    write_states(tmp_path, {"a": STATE})
    changed(tmp_path, statement)
    with pytest.raises(InputError, match=r"photos\.sqlite: cannot be used \(") as refusal:
        read_states(tmp_path)
    assert "\n" not in str(refusal.value)


def test_a_view_without_an_end_is_not_read(tmp_path):
    changed(
        tmp_path,
        "CREATE VIEW photos AS WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n) "
        "SELECT i AS id, 0 AS size, 0 AS mtime_ns, '' AS sha256, NULL AS reason FROM n",
    )
    for act in (lambda: read_states(tmp_path), lambda: write_states(tmp_path, {"a": STATE})):
        with pytest.raises(InputError, match="it holds the view 'photos'"):
            act()
