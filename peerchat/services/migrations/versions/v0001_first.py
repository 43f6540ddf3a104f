"""What peerchat 0.1 kept: accounts, accepted prompts, secrets."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v0001"
down_revision = None

_Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    about = op.create_table(
        "about",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("value", sa.String(256), nullable=False),
    )
    op.create_table(
        "accounts",
        sa.Column("email", sa.String(254), primary_key=True),
        sa.Column("password_hash", sa.String(128), nullable=False),
        sa.Column("role", sa.String(32), nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "accepted_prompts",
        sa.Column("id", _Id, primary_key=True, autoincrement=True),
        sa.Column("user", sa.String(254), nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("accepted_by_user", "accepted_prompts", ["user", "at_ms"])
    op.create_index("accepted_by_time", "accepted_prompts", ["at_ms"])
    op.create_table(
        "secrets",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("value", sa.String(256), nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(about, [{"key": "schema_version", "value": "1"}])
