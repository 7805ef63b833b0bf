"""Ratings of captions by three questions, and captions that people wrote."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
BYTES: dict[str, Any] = {"mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin", "mariadb_charset": "utf8mb4",
         "mariadb_collate": "utf8mb4_bin", "sqlite_autoincrement": True}  # fmt: skip


def upgrade() -> None:
    op.create_table(
        "rating",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("suggestion_id", ID, nullable=False),
        sa.Column("reviewer", sa.String(length=64), nullable=False),
        sa.Column("question", sa.String(length=16), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("answer", sa.String(length=8), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["suggestion_id"], ["suggestion.id"], name=op.f("fk_rating_suggestion_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rating")),
        sa.UniqueConstraint(
            "suggestion_id",
            "reviewer",
            "question",
            "number",
            name=op.f("uq_rating_suggestion_id_reviewer_question_number"),
        ),
        **BYTES,
    )
    op.create_table(
        "written_caption",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("image_id", ID, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("language", sa.String(length=16), nullable=True),
        sa.Column("writer", sa.String(length=64), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["image_id"], ["image.id"], name=op.f("fk_written_caption_image_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_written_caption")),
        **BYTES,
    )
    with op.batch_alter_table("written_caption", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_written_caption_image_id"), ["image_id"], unique=False)


def downgrade() -> None:
    op.drop_table("written_caption")
    op.drop_table("rating")
