"""UDX: reliable ordered streams over UDP, as pure machines.

The wire is in docs/PROTOCOL.md section 6.
"""
