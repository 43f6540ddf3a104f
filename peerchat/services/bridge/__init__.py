"""The HTTP face of a client: `role.BridgeRole`, paths in `operations`."""

from .role import BridgeRole

__all__ = ["BridgeRole"]
