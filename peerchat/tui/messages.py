"""What reaches the app from the node's thread."""

from __future__ import annotations

from textual.message import Message

from peerchat.api import NodeState


class NodeChanged(Message):
    """The node has a new state; of many that wait, only the newest is handled."""

    def __init__(self, state: NodeState) -> None:
        super().__init__()
        self.state = state

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, NodeChanged)
