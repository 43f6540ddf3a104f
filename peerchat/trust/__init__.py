"""Private swarms as bytes and rules: keys, certificates, invites, the swarm record.

Everything here is pure: bytes, ``now_s`` and random bytes come in as arguments, and
nothing is read, sent or waited for. What is kept on disk and said to peers is in
`peerchat.services`. Parsers of foreign bytes end in ``_untrusted``, are bounded, and
raise only `DecodeError` (and where they say so `TrustRefused` or `WrongPassphrase`).
The formats are in docs/PROTOCOL.md, sections 13 to 20.
"""
