"""Indexes by which each provider's queue is read in order, and ended leases are found."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("request", schema=None) as batch_op:
        batch_op.drop_index("ix_request_queue")
        batch_op.create_index("ix_request_queue", ["provider_id", "state", "priority", "image_id"], unique=False)
        batch_op.create_index("ix_request_lease", ["state", "lease_until"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("request", schema=None) as batch_op:
        batch_op.drop_index("ix_request_lease")
        batch_op.drop_index("ix_request_queue")
        batch_op.create_index("ix_request_queue", ["state", "priority", "image_id"], unique=False)
