"""The database: connections, transactions, and the migrations that make its tables."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine, make_url

from isc.errors import InputError

DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg",
           "mysql": "mysql+pymysql", "mariadb": "mariadb+pymysql"}  # fmt: skip
BUSY = 30.0  # seconds that a statement waits for another writer
MIGRATIONS = Path(__file__).parent / "migrations"
CLASHES = ("1213", "1205", "1020", "40001", "40P01", "database is locked")  # of transactions; tried again
TRIES = 8
PARAMETERS = 10_000  # values of one statement
HEAD = "0008"  # the last revision of MIGRATIONS; a start on tables of this one needs no Alembic
DATABASE_WAIT = 60.0  # seconds that a start waits for the database


class DatabaseAway(Exception):
    """The database cannot be reached, or cannot write; what was begun has not happened."""


def engine_of(url: str) -> Engine:
    """Return the engine of a database by its URL. Raises InputError for a URL that is none, or of another database."""
    target = _target(url)
    sqlite = target.get_backend_name() == "sqlite"
    options: dict[str, Any] = {"pool_pre_ping": True, "pool_recycle": 1800}
    if sqlite:
        options["connect_args"] = {"timeout": BUSY, "check_same_thread": False, "isolation_level": None}
        Path(target.database or "").parent.mkdir(parents=True, exist_ok=True)
    else:
        options |= {"pool_size": 10, "max_overflow": 20, "isolation_level": "READ COMMITTED"}
        options["connect_args"] = {"connect_timeout": 5}
    try:
        engine = sa.create_engine(target, **options)
    except ModuleNotFoundError as error:
        raise InputError(
            f"a database of {target.get_backend_name()} needs {error.name}; pip install 'isc[serve]'"
        ) from error
    if sqlite:
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _target(url: str) -> URL:
    try:
        target = make_url(url)
    except sa.exc.ArgumentError as error:
        raise InputError("the database is no URL; expected sqlite:///PATH, postgresql://… or mysql://…") from error
    driver = DRIVERS.get(target.get_backend_name())
    if driver is None or (driver == "sqlite" and not target.database):
        raise InputError(
            f"a database of {target.get_backend_name()}; expected sqlite:///PATH, postgresql:// or mysql://"
        )
    target = target.set(drivername=driver)
    return target.update_query_dict({"charset": "utf8mb4"}) if "pymysql" in driver else target


def _prepare_sqlite(connection: Any, _: Any) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "journal_size_limit=67108864"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    """Begin as a writer where a transaction will write: one that reads first could not become one later."""
    reading = connection.get_execution_options().get("reading", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


class Database:
    """The database of a service. Its methods may be called from any thread."""

    def __init__(self, url: str) -> None:
        self.engine = engine_of(url)
        self.kind = self.engine.dialect.name

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Yield a transaction, which is on disk when the block ends. Raises DatabaseAway if that was impossible."""
        with self._told(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Yield a transaction that only reads."""
        with self._told(), self.engine.connect().execution_options(reading=True) as connection, connection.begin():
            yield connection

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.InternalError, sa.exc.TimeoutError) as error:
            raise DatabaseAway(_one_line(error)) from error

    def upgrade(self, revision: str = "head") -> None:
        """Bring the tables to a revision; what is stored stays."""
        if revision != "head" or self._revision() != HEAD:
            self._migrate("upgrade", revision)

    def _revision(self) -> str | None:
        """Return the revision of the tables, None without tables."""
        with self.reading() as connection:
            if not sa.inspect(connection).has_table("alembic_version"):
                return None
            return str(connection.scalar(sa.text("SELECT version_num FROM alembic_version")))

    def downgrade(self, revision: str) -> None:
        self._migrate("downgrade", revision)

    def _migrate(self, verb: str, revision: str) -> None:
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        with self._told(), self.engine.connect() as connection:
            config.attributes["connection"] = connection
            with _keys_unchecked(connection):
                getattr(command, verb)(config, revision)

    def close(self) -> None:
        self.engine.dispose()


@contextmanager
def _keys_unchecked(connection: Connection) -> Iterator[None]:
    """Let SQLite exchange a table for its new form: with keys checked, all rows that name its rows would go with it."""
    if connection.dialect.name != "sqlite":
        yield
        return
    driver: Any = connection.connection.dbapi_connection
    driver.execute("PRAGMA foreign_keys=OFF")  # outside a transaction, in which it would do nothing
    try:
        yield
    finally:
        driver.execute("PRAGMA foreign_keys=ON")


def clashed(error: DatabaseAway) -> bool:
    """Return whether a transaction failed because of another one at the same time, so that it can be tried again."""
    return any(mark in str(error) for mark in CLASHES)


def trying_again(work: Any) -> Any:
    """Return the result of `work()`, which is called again if its transaction clashed with another one."""
    for attempt in range(TRIES):
        try:
            return work()
        except DatabaseAway as error:
            if not clashed(error) or attempt == TRIES - 1:
                raise
            time.sleep(0.01 * 2**attempt)
    raise AssertionError("not reached")


def insert_ignoring(connection: Connection, table: sa.Table, values: dict[str, Any]) -> bool:
    """Insert a row unless one with the same unique key is there; return whether it was inserted."""
    kind = connection.dialect.name
    if kind in ("mysql", "mariadb"):
        statement: Any = sa.insert(table).values(values).prefix_with("IGNORE")
    elif kind == "postgresql":
        from sqlalchemy.dialects.postgresql import insert

        keyed = insert(table).values(values).on_conflict_do_nothing().returning(*table.primary_key)
        return connection.execute(keyed).first() is not None
    else:
        statement = sa.insert(table).values(values).prefix_with("OR IGNORE")
    return bool(connection.execute(statement).rowcount)


def rows_among(
    connection: Connection, statement: sa.Select[Any], column: sa.ColumnElement[Any], values: Iterable[Any]
) -> list[sa.Row[Any]]:
    """Return the rows of a query whose `column` is among the values, however many there are.

    They are asked for in parts, in the order of the values: a database takes so many parameters in one statement
    (SQLite 32,766, PostgreSQL 65,535). Each part has the statement's own order.
    """
    wanted = list(dict.fromkeys(values))
    found: list[sa.Row[Any]] = []
    for first in range(0, len(wanted), PARAMETERS):
        found += connection.execute(statement.where(column.in_(wanted[first : first + PARAMETERS]))).all()
    return found


def column_pairs(connection: Connection, statement: Any) -> dict[Any, Any]:
    """Return {first column: second column} of a query's rows."""
    return {row[0]: row[1] for row in connection.execute(statement)}


def _one_line(error: Exception) -> str:
    """Return what the database said, without the statement and its values."""
    original = getattr(error, "orig", None) or error
    return " ".join(f"{getattr(original, 'sqlstate', None) or ''} {original}".split())[:300]
