"""Items of a shop that pictures show, and the shop's pictures."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.mysql import MEDIUMBLOB

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JPEG = sa.LargeBinary().with_variant(MEDIUMBLOB(), "mysql", "mariadb")
BYTES: dict[str, Any] = {"mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin", "mariadb_charset": "utf8mb4",
         "mariadb_collate": "utf8mb4_bin", "sqlite_autoincrement": True}  # fmt: skip


def upgrade() -> None:
    op.create_table(
        "shop_picture",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("jpeg", JPEG, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shop_picture")),
        sa.UniqueConstraint("sha256", name=op.f("uq_shop_picture_sha256")),
        **BYTES,
    )
    op.create_table(
        "product",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("request_id", ID, nullable=False),
        sa.Column("image_id", ID, nullable=False),
        sa.Column("picture_id", ID, nullable=False),
        sa.Column("item_id", sa.String(length=200), nullable=False),
        sa.Column("title", sa.String(length=500), nullable=False),
        sa.Column("item_kind", sa.String(length=200), nullable=False),
        sa.Column("probability", sa.Double(), nullable=False),
        sa.Column("region", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("picture", sa.String(length=255), nullable=False),
        sa.Column("evidence", sa.JSON(none_as_null=True), nullable=False),
        sa.ForeignKeyConstraint(["request_id"], ["request.id"], name=op.f("fk_product_request_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["image_id"], ["image.id"], name=op.f("fk_product_image_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["picture_id"], ["shop_picture.id"], name=op.f("fk_product_picture_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_product")),
        **BYTES,
    )
    with op.batch_alter_table("product", schema=None) as batch_op:
        for column in ("request_id", "image_id", "picture_id"):
            batch_op.create_index(batch_op.f(f"ix_product_{column}"), [column], unique=False)


def downgrade() -> None:
    op.execute("DELETE FROM suggestion WHERE kind = 'product'")  # their votes go with them
    op.drop_table("product")
    op.drop_table("shop_picture")
