"""A pure-Python HyperDHT, wire-compatible with npm hyperdht 6.34.

Knows nothing of peerchat and could be published alone.
"""
