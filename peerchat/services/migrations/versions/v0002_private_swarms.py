"""Status, sessions and limits of accounts; what an admin issues for its swarms."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v0002"
down_revision = "v0001"


def upgrade() -> None:
    _accounts()
    _swarms()
    about = sa.table("about", sa.column("key"), sa.column("value"))
    is_version = about.c.key == "schema_version"
    op.execute(about.update().where(is_version).values(value="2"))


def _accounts() -> None:
    for column in (
        sa.Column("status", sa.String(16), nullable=False, server_default="active"),
        sa.Column("epoch", sa.Integer, nullable=False, server_default="0"),
        sa.Column("max_requests", sa.Integer, nullable=True),
        sa.Column("changed_ms", sa.BigInteger, nullable=False, server_default="0"),
    ):
        op.add_column("accounts", column)
    op.create_index("accounts_by_change", "accounts", ["changed_ms"])
    op.create_table(
        "registration_codes",
        sa.Column("code_hash", sa.String(64), primary_key=True),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("expires_ms", sa.BigInteger, nullable=False),
        sa.Column("used_by", sa.String(254), nullable=True),
    )


def _swarms() -> None:
    op.create_table(
        "swarm_invites",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("swarm", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("roles", sa.String(64), nullable=False),
        sa.Column("uses_max", sa.Integer, nullable=False),
        sa.Column("uses", sa.Integer, nullable=False, server_default="0"),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("expires_ms", sa.BigInteger, nullable=False),
        sa.Column("withdrawn_ms", sa.BigInteger, nullable=True),
    )
    op.create_index("invites_by_swarm", "swarm_invites", ["swarm"])
    op.create_table(
        "swarm_redemptions",
        sa.Column("invite_id", sa.String(32), primary_key=True),
        sa.Column("peer", sa.String(64), primary_key=True),
        sa.Column("serial", sa.String(32), nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "swarm_certificates",
        sa.Column("serial", sa.String(32), primary_key=True),
        sa.Column("swarm", sa.String(64), nullable=False),
        sa.Column("peer", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("roles", sa.String(64), nullable=False),
        sa.Column("keys", sa.Text, nullable=False),
        sa.Column("chain", sa.Text, nullable=False),
        sa.Column("not_before_s", sa.BigInteger, nullable=False),
        sa.Column("not_after_s", sa.BigInteger, nullable=False),
        sa.Column("issued_ms", sa.BigInteger, nullable=False),
        sa.Column("revoked_ms", sa.BigInteger, nullable=True),
    )
    op.create_index("certificates_by_peer", "swarm_certificates", ["peer"])
    op.create_table(
        "swarm_grants",
        sa.Column("swarm", sa.String(64), primary_key=True),
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("role", sa.String(32), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("not_after_s", sa.BigInteger, nullable=False),
    )
