"""Keys of users for programs, beside session tokens."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v0004"
down_revision = "v0003"


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("email", sa.String(254), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("secret_hash", sa.String(64), nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("keys_by_account", "api_keys", ["email"])
    about = sa.table("about", sa.column("key"), sa.column("value"))
    is_version = about.c.key == "schema_version"
    op.execute(about.update().where(is_version).values(value="4"))
