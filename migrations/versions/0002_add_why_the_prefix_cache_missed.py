"""Add to each request why the prefix cache held no more of its prompt."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To this revision."""
    op.add_column("requests", sa.Column("cache_miss", sa.Text(), nullable=True))


def downgrade() -> None:
    """Back to the revision before it."""
    op.drop_column("requests", "cache_miss")
