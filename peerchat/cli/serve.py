"""`peerchat serve`: roles without a screen, until SIGINT or SIGTERM."""

from __future__ import annotations

import sys

from peerchat.api import Role
from peerchat.sanitize import display_line
from peerchat.settings import Settings

from .options import Invocation
from .run import termination


async def run_serve(settings: Settings, call: Invocation) -> None:
    """Print ``ready`` once every role is announced; end cleanly on a signal."""
    from peerchat.logs import Logs
    from peerchat.services.node_runtime import NodeRuntime

    out = call.out
    with Logs(settings, verbosity=call.verbosity, stream=sys.stderr):
        async with termination() as stop:
            runtime = NodeRuntime(settings, is_serving=True)
            await runtime.start()
            try:
                keys = runtime.role_keys()
                problem = runtime.processor_problem
                fields = {
                    "event": "ready",
                    "problem": problem or None,
                    "roles": {
                        role.value: {"key": keys[role]} if role in keys else {}
                        for role in Role
                        if role in settings.roles
                    },
                    "http": runtime.http or None,
                    "ollama": runtime.ollama or None,
                    "metrics": list(runtime.metrics_urls),
                    "dht": str(runtime.dht.address),
                }
                out.line(ready_text(settings, problem), fields)
                await stop.wait()
            finally:
                await runtime.close()


def ready_text(settings: Settings, problem: str) -> str:
    """The roles that work, and what is wrong with a processor that does not."""
    ready = [
        role
        for role in Role
        if role in settings.roles and not (problem and role is Role.PROCESSOR)
    ]
    text = f"ready: {' '.join(ready) or 'nothing yet'}"
    return f"{text}; processor waits: {display_line(problem, 400)}" if problem else text
