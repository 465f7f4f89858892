"""Add what routing by targets and learning from traffic record: outcomes, more of each decision, keys that may operate.

Columns of existing tables have defaults in the database, so that a gateway of the version before can go on writing.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To this revision."""
    op.add_column("api_keys", sa.Column("router_admin", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("decisions", sa.Column("calibrated", sa.Boolean(), nullable=False, server_default=sa.true()))
    op.add_column("decisions", sa.Column("early", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("decisions", sa.Column("wanted", sa.JSON(), nullable=False, server_default=sa.text("'{}'")))
    op.add_column("decisions", sa.Column("p_right", sa.Double(), nullable=True))
    op.add_column("decisions", sa.Column("logprob_min", sa.Double(), nullable=True))
    op.create_index("ix_decisions_key_id_created_at", "decisions", ["key_id", "created_at"])
    op.create_table(
        "outcomes",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("decision_id", sa.Uuid(), nullable=False),
        sa.Column("key_id", sa.Uuid(), nullable=True),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("score", sa.Double(), nullable=True),
        sa.Column("feedback", sa.Integer(), nullable=True),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("weight", sa.Double(), nullable=False),
        sa.Column("shadow", sa.Boolean(), nullable=False),
        sa.Column("keep_prob", sa.Double(), nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=True),
        sa.Column("cost_usd", sa.Double(), nullable=False),
        sa.Column("logprob_mean", sa.Double(), nullable=True),
        sa.Column("logprob_min", sa.Double(), nullable=True),
        sa.Column("valid", sa.Boolean(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_outcomes"),
    )
    op.create_index("ix_outcomes_created_at", "outcomes", ["created_at"])
    op.create_index("ix_outcomes_decision_id", "outcomes", ["decision_id"])


def downgrade() -> None:
    """Back to the revision before it."""
    op.drop_index("ix_outcomes_decision_id", table_name="outcomes")
    op.drop_index("ix_outcomes_created_at", table_name="outcomes")
    op.drop_table("outcomes")
    op.drop_index("ix_decisions_key_id_created_at", table_name="decisions")
    op.drop_column("decisions", "logprob_min")
    op.drop_column("decisions", "p_right")
    op.drop_column("decisions", "wanted")
    op.drop_column("decisions", "early")
    op.drop_column("decisions", "calibrated")
    op.drop_column("api_keys", "router_admin")
