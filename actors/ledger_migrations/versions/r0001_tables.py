"""The tables as they were before there were revisions; a ledger of that time has them already and keeps every row."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "forecasts",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("symbol", sa.String(16), nullable=False),
        sa.Column("timeframe", sa.String(4), nullable=False),
        sa.Column("as_of", sa.String(32), nullable=False),
        sa.Column("model_id", sa.String(64), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("previous", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.UniqueConstraint("symbol", "timeframe", "as_of", "model_id"),
        if_not_exists=True,
    )
    op.create_table(
        "outcomes",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("forecast_seq", sa.Integer, nullable=False),
        sa.Column("bars", sa.Integer, nullable=False),
        sa.Column("symbol", sa.String(16), nullable=False),
        sa.Column("timeframe", sa.String(4), nullable=False),
        sa.Column("inside80", sa.Boolean),
        sa.Column("inside90", sa.Boolean),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("previous", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.UniqueConstraint("forecast_seq", "bars"),
        if_not_exists=True,
    )
    op.create_table(
        "pending",
        sa.Column("forecast_seq", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("bars", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("symbol", sa.String(16), nullable=False),
        sa.Column("timeframe", sa.String(4), nullable=False),
        sa.Column("as_of", sa.String(32), nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "seals",
        sa.Column("chain", sa.String(16), primary_key=True),
        sa.Column("rows", sa.Integer, nullable=False),
        sa.Column("seal", sa.String(64), nullable=False),
        if_not_exists=True,
    )
    # Some of those ledgers are older than the second index.
    op.create_index("ix_outcomes_forecast_seq", "outcomes", ["forecast_seq"], if_not_exists=True)
    op.create_index(
        "outcomes_coverage", "outcomes", ["timeframe", "bars", "symbol", "inside80", "inside90"], if_not_exists=True
    )
    op.create_index("pending_by_series", "pending", ["symbol", "timeframe", "as_of"], if_not_exists=True)
