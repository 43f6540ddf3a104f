"""Which request an accepted prompt was, so that one that goes on elsewhere is known."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v0003"
down_revision = "v0002"


def upgrade() -> None:
    for column in (
        sa.Column("request", sa.String(64), nullable=False, server_default=""),
        sa.Column("uses", sa.Integer, nullable=False, server_default="1"),
    ):
        op.add_column("accepted_prompts", column)
    about = sa.table("about", sa.column("key"), sa.column("value"))
    is_version = about.c.key == "schema_version"
    op.execute(about.update().where(is_version).values(value="3"))
