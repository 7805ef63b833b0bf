"""The tables of the service. The migrations in `migrations/` make them; a test compares both.

Times are seconds since 1970 (UTC) as double precision numbers. Texts compare by bytes on every database.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.mysql import MEDIUMBLOB

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)
Json = sa.JSON(none_as_null=True)
Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")
Jpeg = sa.LargeBinary().with_variant(MEDIUMBLOB(), "mysql", "mariadb")
BYTES: dict[str, Any] = {"mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin", "mariadb_charset": "utf8mb4",
         "mariadb_collate": "utf8mb4_bin", "sqlite_autoincrement": True}  # fmt: skip


def _id() -> sa.Column[Any]:
    return sa.Column("id", Id, primary_key=True, autoincrement=True)


def _of(table: str, name: str | None = None, *, index: bool = True, null: bool = False) -> sa.Column[Any]:
    """Return a column that names a row of another table, and goes with it."""
    key = sa.ForeignKey(f"{table}.id", ondelete="CASCADE")
    return sa.Column(name or f"{table}_id", Id, key, nullable=null, index=index)


def _time(name: str, *, null: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.Double, nullable=null)


def _text(name: str, length: int, *, null: bool = False, unique: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.String(length), nullable=null, unique=unique or None)


image = sa.Table(
    "image",
    metadata,
    _id(),
    _text("sha256", 64, unique=True),
    _text("path", 1024, null=True),  # of a file that stays where it is; None: the service keeps the picture
    _text("name", 255),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("width", sa.Integer),
    sa.Column("height", sa.Integer),
    _text("pdq", 64, null=True),
    _text("state", 16),
    sa.Column("reason", sa.Text),  # a key of the catalogue, and its values; without them a text
    sa.Column("reason_values", Json),
    sa.Column("uploader", sa.String(64)),
    _time("first_seen"),
    sa.Index("ix_image_state", "state"),
    **BYTES,
)
provider = sa.Table(
    "provider",
    metadata,
    _id(),
    _text("name", 64),
    _text("version", 150),
    sa.Column("kinds", Json, nullable=False),
    sa.Column("current", sa.Boolean, nullable=False),
    _time("first_seen"),
    sa.UniqueConstraint("name", "version"),
    **BYTES,
)
circuit = sa.Table(
    "circuit",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("failures", sa.Integer, nullable=False),
    _time("open_until"),
    sa.Column("reason", sa.Text),
    **BYTES,
)
request = sa.Table(
    "request",
    metadata,
    _id(),
    _of("image", index=False),
    _of("provider"),
    _text("state", 12),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    _time("run_after"),
    _text("lease", 36, null=True),
    _time("lease_until", null=True),
    _text("external_id", 200, null=True),
    sa.Column("error", sa.Text),
    _time("created"),
    _time("started", null=True),
    _time("finished", null=True),
    sa.UniqueConstraint("image_id", "provider_id"),
    sa.Index("ix_request_queue", "provider_id", "state", "priority", "image_id"),
    sa.Index("ix_request_lease", "state", "lease_until"),
    sa.Index("ix_request_external", "external_id"),
    **BYTES,
)
descriptor = sa.Table(
    "descriptor",
    metadata,
    _id(),
    _of("image", index=False),
    _text("model", 64),
    sa.Column("vector", sa.LargeBinary(4096), nullable=False),
    sa.UniqueConstraint("image_id", "model"),
    **BYTES,
)
removal = sa.Table(  # the file is forgotten when all machines have had the time to follow
    "removal",
    metadata,
    _id(),
    sa.Column("image_id", Id, nullable=False),
    _time("created"),
    _text("sha256", 64, null=True),
    _text("path", 1024, null=True),
    **BYTES,
)

copy_match = sa.Table(
    "copy_match",
    metadata,
    _id(),
    _of("request"),
    _of("image"),
    _of("image", "other_id"),
    sa.Column("distance", sa.Double, nullable=False),
    sa.Column("probability", sa.Double),
    _text("verdict", 8),
    sa.Column("image_region", Json),
    sa.Column("other_region", Json),
    sa.Column("mirrored", sa.Boolean, nullable=False),
    sa.Column("evidence", Json, nullable=False),
    **BYTES,
)
label = sa.Table(
    "label",
    metadata,
    _id(),
    _of("request"),
    _of("image"),
    _text("name", 200),
    _text("wikidata", 20, null=True),
    sa.Column("score", sa.Double, nullable=False),
    **BYTES,
)
caption = sa.Table(
    "caption",
    metadata,
    _id(),
    _of("request"),
    _of("image"),
    sa.Column("text", sa.Text, nullable=False),
    _text("language", 16, null=True),
    sa.Column("score", sa.Double),
    **BYTES,
)
shop_picture = sa.Table(  # small JPEGs, each once; the service shows these, and never a file of the shop
    "shop_picture",
    metadata,
    _id(),
    _text("sha256", 64, unique=True),
    sa.Column("jpeg", Jpeg, nullable=False),
    **BYTES,
)
product = sa.Table(
    "product",
    metadata,
    _id(),
    _of("request"),
    _of("image"),
    _of("shop_picture", "picture_id"),
    _text("item_id", 200),
    _text("title", 500),
    _text("item_kind", 200),
    sa.Column("probability", sa.Double, nullable=False),
    sa.Column("region", Json),
    _text("picture", 255),
    sa.Column("evidence", Json, nullable=False),
    **BYTES,
)
number = sa.Table(
    "number",
    metadata,
    _id(),
    _of("request"),
    _of("image"),
    _text("classifier", 100),
    sa.Column("value", sa.Double, nullable=False),
    **BYTES,
)
suggestion = sa.Table(
    "suggestion",
    metadata,
    _id(),
    _of("image"),
    _of("request"),
    _of("provider"),
    _text("kind", 12),
    sa.Column("result_id", Id, nullable=False),
    _text("state", 12),
    _text("why", 255, null=True),  # a key of the catalogue, and its values; without them a text
    sa.Column("why_values", Json),
    sa.Column("audit", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("score", sa.Double, nullable=False),
    sa.Column("priority", sa.Double, nullable=False),
    sa.Column("shuffle", sa.Double, nullable=False),
    _time("created"),
    _time("decided", null=True),
    sa.UniqueConstraint("kind", "result_id"),
    sa.Index("ix_suggestion_queue", "state", "priority", "id"),
    sa.Index("ix_suggestion_random", "state", "shuffle", "id"),
    sa.Index("ix_suggestion_decided", "provider_id", "kind", "decided"),
    **BYTES,
)
vote = sa.Table(
    "vote",
    metadata,
    _id(),
    _of("suggestion", index=False),
    _text("reviewer", 64),
    sa.Column("number", sa.Integer, nullable=False),
    _text("decision", 8),
    sa.Column("trusted", sa.Boolean, nullable=False),
    _time("created"),
    sa.UniqueConstraint("suggestion_id", "reviewer", "number"),
    **BYTES,
)
rating = sa.Table(
    "rating",
    metadata,
    _id(),
    _of("suggestion", index=False),
    _text("reviewer", 64),
    _text("question", 16),
    sa.Column("number", sa.Integer, nullable=False),
    _text("answer", 8),
    _time("created"),
    sa.UniqueConstraint("suggestion_id", "reviewer", "question", "number"),
    **BYTES,
)
written_caption = sa.Table(  # by people; no provider writes here
    "written_caption",
    metadata,
    _id(),
    _of("image"),
    sa.Column("text", sa.Text, nullable=False),
    _text("language", 16, null=True),
    _text("writer", 64),
    _time("created"),
    **BYTES,
)
listing = sa.Table(
    "listing",
    metadata,
    _id(),
    _text("action", 12),  # block: an upload of this SHA-256; withhold: suggestions of this value
    _text("kind", 12, null=True),
    _text("value", 200),
    sa.Column("note", sa.Text),
    _time("created"),
    sa.UniqueConstraint("action", "kind", "value"),
    **BYTES,
)
event = sa.Table(
    "event",
    metadata,
    _id(),
    sa.Column("image_id", Id, nullable=False, index=True),
    _text("kind", 24),
    sa.Column("body", Json, nullable=False),
    _time("created"),
    **BYTES,
)
outbox = sa.Table(
    "outbox",
    metadata,
    _id(),
    _text("destination", 80),
    _text("key", 100, unique=True),
    sa.Column("body", Json, nullable=False),
    _text("state", 12),
    sa.Column("attempts", sa.Integer, nullable=False),
    _time("run_after"),
    sa.Column("error", sa.Text),
    _time("created"),
    _time("delivered", null=True),
    sa.Index("ix_outbox_queue", "state", "destination", "id"),
    **BYTES,
)
folder_import = sa.Table(
    "folder_import",
    metadata,
    _id(),
    _text("path", 1024),
    _text("state", 12),
    sa.Column("found", sa.Integer, nullable=False),
    sa.Column("error", sa.Text),
    _time("lease_until"),
    _time("created"),
    _time("finished", null=True),
    **BYTES,
)
lease = sa.Table(
    "lease",
    metadata,
    sa.Column("name", sa.String(100), primary_key=True),
    _text("holder", 36),
    _time("until"),
    **BYTES,
)
token = sa.Table(
    "token",
    metadata,
    _id(),
    _text("name", 64, unique=True),
    _text("digest", 64, unique=True),
    _text("role", 8),
    sa.Column("trusted", sa.Boolean, nullable=False),
    _time("created"),
    _time("revoked", null=True),
    **BYTES,
)
session = sa.Table(
    "session",
    metadata,
    sa.Column("digest", sa.String(64), primary_key=True),
    _of("token", index=True),
    _text("csrf", 64),
    _time("until"),
    **BYTES,
)

RESULTS = {"copy": copy_match, "label": label, "caption": caption, "product": product, "number": number}
