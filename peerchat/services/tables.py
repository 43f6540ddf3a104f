"""The tables of the store, for SQLite and PostgreSQL; no I/O.

What a peer must remember: accounts, registration codes, accepted prompts, secrets, and
what an admin's home issued for its private swarms. `migrations` makes and changes them;
a test holds the two equal. Times end in their unit and are Unix time.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData()
_Id = BigInteger().with_variant(Integer, "sqlite")

about = Table(
    "about",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", String(256), nullable=False),
)
accounts = Table(
    "accounts",
    metadata,
    Column("email", String(254), primary_key=True),
    Column("password_hash", String(128), nullable=False),
    Column("role", String(32), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("status", String(16), nullable=False, server_default="active"),
    Column("epoch", Integer, nullable=False, server_default="0"),
    Column("max_requests", Integer, nullable=True),
    Column("changed_ms", BigInteger, nullable=False, server_default="0"),
    Index("accounts_by_change", "changed_ms"),
)
registration_codes = Table(
    "registration_codes",
    metadata,
    Column("code_hash", String(64), primary_key=True),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("used_by", String(254), nullable=True),
)
accepted_prompts = Table(
    "accepted_prompts",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("user", String(254), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    # A hash of the request; one that comes again is not counted again.
    Column("request", String(64), nullable=False, server_default=""),
    Column("uses", Integer, nullable=False, server_default="1"),
    Index("accepted_by_user", "user", "at_ms"),
    Index("accepted_by_time", "at_ms"),
)
api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("email", String(254), nullable=False),
    Column("name", String(64), nullable=False),
    # blake2b-256 of the secret part, hex.
    Column("secret_hash", String(64), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Index("keys_by_account", "email"),
)
secrets = Table(
    "secrets",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", String(256), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)
swarm_invites = Table(
    "swarm_invites",
    metadata,
    # The first 16 bytes of blake2b-256(code), hex.
    Column("id", String(32), primary_key=True),
    # The swarm's root key, hex.
    Column("swarm", String(64), nullable=False),
    Column("name", String(64), nullable=False),
    # Separated by spaces.
    Column("roles", String(64), nullable=False),
    Column("uses_max", Integer, nullable=False),
    Column("uses", Integer, nullable=False, server_default="0"),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("withdrawn_ms", BigInteger, nullable=True),
    Index("invites_by_swarm", "swarm"),
)
swarm_redemptions = Table(
    "swarm_redemptions",
    metadata,
    Column("invite_id", String(32), primary_key=True),
    Column("peer", String(64), primary_key=True),
    Column("serial", String(32), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)
swarm_certificates = Table(
    "swarm_certificates",
    metadata,
    Column("serial", String(32), primary_key=True),
    Column("swarm", String(64), nullable=False),
    Column("peer", String(64), nullable=False),
    Column("name", String(64), nullable=False),
    Column("roles", String(64), nullable=False),
    # JSON: purpose to key, hex.
    Column("keys", Text, nullable=False),
    # Hex.
    Column("chain", Text, nullable=False),
    Column("not_before_s", BigInteger, nullable=False),
    Column("not_after_s", BigInteger, nullable=False),
    Column("issued_ms", BigInteger, nullable=False),
    Column("revoked_ms", BigInteger, nullable=True),
    Index("certificates_by_peer", "peer"),
)
swarm_grants = Table(
    "swarm_grants",
    metadata,
    Column("swarm", String(64), primary_key=True),
    Column("key", String(64), primary_key=True),
    Column("role", String(32), nullable=False),
    Column("name", String(64), nullable=False),
    Column("not_after_s", BigInteger, nullable=False),
)
