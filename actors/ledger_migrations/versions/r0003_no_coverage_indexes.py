"""Live coverage is counted in memory, from outcomes that are read once: its two indexes only cost writes."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.drop_index("outcomes_coverage", "outcomes")
    op.drop_index("outcomes_by_forecast", "outcomes")  # the unique (forecast_seq, bars) is one, too
