"""The ledger's tables, as ledger_migrations/versions make them; a test compares.

Times are ISO strings in UTC ending in Z: they sort as text, in SQLite and PostgreSQL alike.
"""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()

forecasts = sa.Table(
    "forecasts",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("symbol", sa.String(16), nullable=False),
    sa.Column("timeframe", sa.String(4), nullable=False),
    sa.Column("as_of", sa.String(32), nullable=False),
    sa.Column("model_id", sa.String(64), nullable=False),
    sa.Column("body", sa.Text, nullable=False),  # canonical JSON of the forecast
    sa.Column("previous", sa.String(64), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
    sa.UniqueConstraint("symbol", "timeframe", "as_of", "model_id"),
    # The closes of one model are counted without reading bodies.
    sa.Index("forecasts_by_model", "model_id", "timeframe", "symbol", "seq", "as_of"),
)
outcomes = sa.Table(
    "outcomes",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("forecast_seq", sa.Integer, nullable=False),
    sa.Column("bars", sa.Integer, nullable=False),
    sa.Column("symbol", sa.String(16), nullable=False),
    sa.Column("timeframe", sa.String(4), nullable=False),
    sa.Column("inside80", sa.Boolean),  # null: the forecast had no interval
    sa.Column("inside90", sa.Boolean),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("previous", sa.String(64), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
    sa.UniqueConstraint("forecast_seq", "bars"),
)
# What still waits for its outcome: a to-do list, no record of anything.
pending = sa.Table(
    "pending",
    metadata,
    sa.Column("forecast_seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("bars", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("symbol", sa.String(16), nullable=False),
    sa.Column("timeframe", sa.String(4), nullable=False),
    sa.Column("as_of", sa.String(32), nullable=False),
    sa.Index("pending_by_series", "symbol", "timeframe", "as_of"),
)
# The newest link of each chain, so that cutting rows off its end is found too.
seals = sa.Table(
    "seals",
    metadata,
    sa.Column("chain", sa.String(16), primary_key=True),
    sa.Column("rows", sa.Integer, nullable=False),
    sa.Column("seal", sa.String(64), nullable=False),
)
CHAINS = {"forecasts": forecasts, "outcomes": outcomes}
