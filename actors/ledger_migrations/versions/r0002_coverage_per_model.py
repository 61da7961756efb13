"""Indexes for live coverage per model. No new column: a row's columns are signed, so old rows could not get one."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_index("forecasts_by_model", "forecasts", ["model_id", "timeframe", "symbol", "seq", "as_of"])
    op.create_index("outcomes_by_forecast", "outcomes", ["forecast_seq", "bars", "inside80", "inside90"])
    op.drop_index("ix_outcomes_forecast_seq", "outcomes")  # the new one begins with the same column
