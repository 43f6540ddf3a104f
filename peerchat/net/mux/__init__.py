"""Channels and remote procedure calls over one framed stream, as pure machines."""
