"""API tokens and the sessions of the page. Only hashes are stored: a copy of the database opens nothing."""

from __future__ import annotations

import hashlib
import secrets
import time
from dataclasses import dataclass

import sqlalchemy as sa

from isc.errors import InputError
from isc.serve.database import Database, trying_again
from isc.serve.kinds import Role
from isc.serve.schema import session, token
from isc.serve.settings import Settings

PREFIX = "isc_"
DAYS = 14 * 86_400.0  # seconds that a session lasts


@dataclass(frozen=True)
class Holder:
    """Whoever a token belongs to."""

    token_id: int
    name: str
    role: Role
    trusted: bool


@dataclass(frozen=True)
class Session:
    """A session of the page: its secret for the cookie, and the one that forms and scripts send along."""

    secret: str
    csrf: str


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def create_token(database: Database, name: str, role: Role, *, trusted: bool = False) -> str:
    """Create a token and return it; it is shown this once. Raises InputError for a name that is taken or unusable."""
    if not 0 < len(name) <= 64 or not name.isprintable():
        raise InputError(f"token name {name!r}; expected 1 to 64 printable characters")
    secret = PREFIX + secrets.token_urlsafe(32)
    row = {"name": name, "digest": digest(secret), "role": role, "trusted": trusted, "created": time.time()}

    def write() -> bool:
        with database.writing() as connection:
            if connection.execute(sa.select(token.c.id).where(token.c.name == name)).first():
                return False
            connection.execute(sa.insert(token).values(row))
            return True

    if not trying_again(write):
        raise InputError(f"token name {name!r} is taken; expected a new one (votes keep the name of their token)")
    return secret


def revoke_token(database: Database, name: str) -> bool:
    """Revoke a token and end its sessions; return whether there was one."""

    def write() -> bool:
        with database.writing() as connection:
            mine = sa.select(token.c.id).where(token.c.name == name)
            connection.execute(sa.delete(session).where(session.c.token_id.in_(mine)))
            live = (token.c.name == name) & token.c.revoked.is_(None)
            return bool(connection.execute(sa.update(token).where(live).values(revoked=time.time())).rowcount)

    return bool(trying_again(write))


def any_token(database: Database) -> bool:
    """Return whether there is a token that is not revoked."""
    with database.reading() as connection:
        return connection.execute(sa.select(token.c.id).where(token.c.revoked.is_(None)).limit(1)).first() is not None


def refuse_without_token(settings: Settings) -> None:
    """Raise InputError if others can reach the service, and nobody has made a token."""
    if settings.local:
        return
    database = Database(settings.database)
    database.upgrade()
    known = any_token(database)
    database.close()
    if not known:
        raise InputError(
            f"host={settings.host}: others can reach it, and there is no token; make one: isc serve token NAME"
        )


def holder_of(database: Database, secret: str) -> Holder | None:
    """Return whoever the token belongs to, None for an unknown or revoked one."""
    wanted = sa.select(token.c.id, token.c.name, token.c.role, token.c.trusted)
    with database.reading() as connection:
        row = connection.execute(wanted.where(token.c.digest == digest(secret), token.c.revoked.is_(None))).first()
    return None if row is None else Holder(row.id, row.name, Role(row.role), bool(row.trusted))


def begin_session(database: Database, holder: Holder) -> Session:
    """Begin a session of the page for the holder of a token."""
    one = Session(secrets.token_urlsafe(32), secrets.token_urlsafe(32))
    now = time.time()
    row = {"digest": digest(one.secret), "token_id": holder.token_id, "csrf": one.csrf, "until": now + DAYS}

    def write() -> None:
        with database.writing() as connection:
            connection.execute(sa.delete(session).where(session.c.until < now))
            connection.execute(sa.insert(session).values(row))

    trying_again(write)
    return one


def session_of(database: Database, secret: str) -> tuple[Holder, str] | None:
    """Return the holder of a session's token, and the session's secret for forms."""
    wanted = sa.select(token.c.id, token.c.name, token.c.role, token.c.trusted, session.c.csrf)
    live = (session.c.digest == digest(secret)) & (session.c.until > time.time()) & token.c.revoked.is_(None)
    with database.reading() as connection:
        row = connection.execute(wanted.join(session, session.c.token_id == token.c.id).where(live)).first()
    return None if row is None else (Holder(row.id, row.name, Role(row.role), bool(row.trusted)), row.csrf)


def end_session(database: Database, secret: str) -> None:
    def write() -> None:
        with database.writing() as connection:
            connection.execute(sa.delete(session).where(session.c.digest == digest(secret)))

    trying_again(write)
