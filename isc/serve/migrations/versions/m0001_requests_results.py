"""Images, providers, requests, results by kind, suggestions, votes, tokens."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
BYTES: dict[str, Any] = {"mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin", "mariadb_charset": "utf8mb4",
         "mariadb_collate": "utf8mb4_bin", "sqlite_autoincrement": True}  # fmt: skip


def upgrade() -> None:
    op.create_table(
        "event",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("image_id", ID, nullable=False),
        sa.Column("kind", sa.String(length=24), nullable=False),
        sa.Column("body", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event")),
        **BYTES,
    )
    with op.batch_alter_table("event", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_event_image_id"), ["image_id"], unique=False)

    op.create_table(
        "image",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("path", sa.String(length=1024), nullable=True),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=True),
        sa.Column("height", sa.Integer(), nullable=True),
        sa.Column("pdq", sa.String(length=64), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("uploader", sa.String(length=64), nullable=True),
        sa.Column("first_seen", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_image")),
        sa.UniqueConstraint("sha256", name=op.f("uq_image_sha256")),
        **BYTES,
    )
    with op.batch_alter_table("image", schema=None) as batch_op:
        batch_op.create_index("ix_image_state", ["state"], unique=False)

    op.create_table(
        "lease",
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("holder", sa.String(length=36), nullable=False),
        sa.Column("until", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_lease")),
        **BYTES,
    )
    op.create_table(
        "provider",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("version", sa.String(length=150), nullable=False),
        sa.Column("kinds", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("current", sa.Boolean(), nullable=False),
        sa.Column("first_seen", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_provider")),
        sa.UniqueConstraint("name", "version", name=op.f("uq_provider_name_version")),
        **BYTES,
    )
    op.create_table(
        "removal",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("image_id", ID, nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_removal")),
        **BYTES,
    )
    op.create_table(
        "token",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=8), nullable=False),
        sa.Column("trusted", sa.Boolean(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("revoked", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_token")),
        sa.UniqueConstraint("digest", name=op.f("uq_token_digest")),
        sa.UniqueConstraint("name", name=op.f("uq_token_name")),
        **BYTES,
    )
    op.create_table(
        "descriptor",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("image_id", ID, nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("vector", sa.LargeBinary(length=4096), nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["image.id"], name=op.f("fk_descriptor_image_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_descriptor")),
        sa.UniqueConstraint("image_id", "model", name=op.f("uq_descriptor_image_id_model")),
        **BYTES,
    )
    op.create_table(
        "request",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("image_id", ID, nullable=False),
        sa.Column("provider_id", ID, nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("run_after", sa.Double(), nullable=False),
        sa.Column("lease", sa.String(length=36), nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.Column("external_id", sa.String(length=200), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("started", sa.Double(), nullable=True),
        sa.Column("finished", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["image_id"], ["image.id"], name=op.f("fk_request_image_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["provider_id"], ["provider.id"], name=op.f("fk_request_provider_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_request")),
        sa.UniqueConstraint("image_id", "provider_id", name=op.f("uq_request_image_id_provider_id")),
        **BYTES,
    )
    with op.batch_alter_table("request", schema=None) as batch_op:
        batch_op.create_index("ix_request_external", ["external_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_request_provider_id"), ["provider_id"], unique=False)
        batch_op.create_index("ix_request_queue", ["state", "priority", "image_id"], unique=False)

    op.create_table(
        "session",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("token_id", ID, nullable=False),
        sa.Column("csrf", sa.String(length=64), nullable=False),
        sa.Column("until", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["token_id"], ["token.id"], name=op.f("fk_session_token_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_session")),
        **BYTES,
    )
    with op.batch_alter_table("session", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_session_token_id"), ["token_id"], unique=False)

    op.create_table(
        "caption",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("request_id", ID, nullable=False),
        sa.Column("image_id", ID, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("language", sa.String(length=16), nullable=True),
        sa.Column("score", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["image_id"], ["image.id"], name=op.f("fk_caption_image_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["request_id"], ["request.id"], name=op.f("fk_caption_request_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_caption")),
        **BYTES,
    )
    with op.batch_alter_table("caption", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_caption_image_id"), ["image_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_caption_request_id"), ["request_id"], unique=False)

    op.create_table(
        "copy_match",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("request_id", ID, nullable=False),
        sa.Column("image_id", ID, nullable=False),
        sa.Column("other_id", ID, nullable=False),
        sa.Column("distance", sa.Double(), nullable=False),
        sa.Column("probability", sa.Double(), nullable=True),
        sa.Column("verdict", sa.String(length=8), nullable=False),
        sa.Column("image_region", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("other_region", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("mirrored", sa.Boolean(), nullable=False),
        sa.Column("evidence", sa.JSON(none_as_null=True), nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["image.id"], name=op.f("fk_copy_match_image_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["other_id"], ["image.id"], name=op.f("fk_copy_match_other_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["request_id"], ["request.id"], name=op.f("fk_copy_match_request_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_copy_match")),
        **BYTES,
    )
    with op.batch_alter_table("copy_match", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_copy_match_image_id"), ["image_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_copy_match_other_id"), ["other_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_copy_match_request_id"), ["request_id"], unique=False)

    op.create_table(
        "label",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("request_id", ID, nullable=False),
        sa.Column("image_id", ID, nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("wikidata", sa.String(length=20), nullable=True),
        sa.Column("score", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["image.id"], name=op.f("fk_label_image_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["request_id"], ["request.id"], name=op.f("fk_label_request_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_label")),
        **BYTES,
    )
    with op.batch_alter_table("label", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_label_image_id"), ["image_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_label_request_id"), ["request_id"], unique=False)

    op.create_table(
        "number",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("request_id", ID, nullable=False),
        sa.Column("image_id", ID, nullable=False),
        sa.Column("classifier", sa.String(length=100), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["image.id"], name=op.f("fk_number_image_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["request_id"], ["request.id"], name=op.f("fk_number_request_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_number")),
        **BYTES,
    )
    with op.batch_alter_table("number", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_number_image_id"), ["image_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_number_request_id"), ["request_id"], unique=False)

    op.create_table(
        "suggestion",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("image_id", ID, nullable=False),
        sa.Column("request_id", ID, nullable=False),
        sa.Column("provider_id", ID, nullable=False),
        sa.Column("kind", sa.String(length=12), nullable=False),
        sa.Column("result_id", ID, nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("why", sa.String(length=255), nullable=True),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("priority", sa.Double(), nullable=False),
        sa.Column("shuffle", sa.Double(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("decided", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["image_id"], ["image.id"], name=op.f("fk_suggestion_image_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["provider_id"], ["provider.id"], name=op.f("fk_suggestion_provider_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["request_id"], ["request.id"], name=op.f("fk_suggestion_request_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_suggestion")),
        sa.UniqueConstraint("kind", "result_id", name=op.f("uq_suggestion_kind_result_id")),
        **BYTES,
    )
    with op.batch_alter_table("suggestion", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_suggestion_image_id"), ["image_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_suggestion_provider_id"), ["provider_id"], unique=False)
        batch_op.create_index("ix_suggestion_queue", ["state", "priority", "id"], unique=False)
        batch_op.create_index("ix_suggestion_random", ["state", "shuffle", "id"], unique=False)
        batch_op.create_index(batch_op.f("ix_suggestion_request_id"), ["request_id"], unique=False)

    op.create_table(
        "vote",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("suggestion_id", ID, nullable=False),
        sa.Column("reviewer", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("decision", sa.String(length=8), nullable=False),
        sa.Column("trusted", sa.Boolean(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["suggestion_id"], ["suggestion.id"], name=op.f("fk_vote_suggestion_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vote")),
        sa.UniqueConstraint("suggestion_id", "reviewer", "number", name=op.f("uq_vote_suggestion_id_reviewer_number")),
        **BYTES,
    )


def downgrade() -> None:
    for table in (
        "vote",
        "suggestion",
        "number",
        "label",
        "copy_match",
        "caption",
        "session",
        "request",
        "descriptor",
        "token",
        "removal",
        "provider",
        "lease",
        "image",
        "event",
    ):
        op.drop_table(table)
