"""Run by alembic for every command; `peerchat.services.schema` gives the connection.

The transaction is the caller's, so that a failed upgrade leaves nothing behind.
"""

from __future__ import annotations

from alembic import context

from peerchat.services.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite can roll tables back too, once its transaction was begun by hand.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
