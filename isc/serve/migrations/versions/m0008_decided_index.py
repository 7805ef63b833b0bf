"""An index of what was decided last: each new suggestion asks how often the last ones of its provider were accepted."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None
NAME = "ix_suggestion_decided"


def upgrade() -> None:
    op.create_index(NAME, "suggestion", ["provider_id", "kind", "decided"])


def downgrade() -> None:
    op.drop_index(NAME, "suggestion")
