"""Alembic's entry: runs the revisions on the connection, and inside the transaction, that `actors.ledger_database` holds."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
