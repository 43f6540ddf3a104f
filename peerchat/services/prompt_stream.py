"""The ``peerchat/stream`` channel: streamed answers beside the unary methods.

Both ends, from one place. The wire is docs/PROTOCOL.md section 12: `prompt_wire` has
its frame, `prompt_bodies` its fields, `prompt_requests` and `prompt_events` turn them
into what services use, `prompt_server` and `prompt_client` are the two ends.
"""

from __future__ import annotations

from .prompt_client import PromptStreamClient, RemoteAnswer
from .prompt_server import Caller, PromptHandler, PromptStreamServer, close_events
from .prompt_wire import PROTOCOL

__all__ = [
    "PROTOCOL",
    "Caller",
    "PromptHandler",
    "PromptStreamClient",
    "PromptStreamServer",
    "RemoteAnswer",
    "close_events",
]
