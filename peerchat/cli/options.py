"""Options that every command which touches the network takes, and how they arrive.

`network_command` registers a function that wants an `Invocation` first; typer sees its
own parameters followed by the common ones. The same options stand before the command's
name too (`peerchat --open ask …`); what stands after it wins.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Concatenate, ParamSpec

import typer

from peerchat.settings import OPEN_WARNING, Settings

from .output import EXIT_USAGE, Output

P = ParamSpec("P")

HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home", metavar="DIR", help="One folder for everything peerchat keeps."
    ),
]
BootstrapOption = Annotated[
    str | None,
    typer.Option(
        "--bootstrap",
        metavar="HOST:PORT[,…]",
        help="DHT bootstrap nodes; 'none' is a DHT of its own on this machine.",
    ),
]
OpenOption = Annotated[
    bool | None,
    typer.Option("--open", help="The open swarm: plain topics, no membership."),
]
SwarmOption = Annotated[
    str | None, typer.Option("--swarm", metavar="NAME", help="Which swarm.")
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Machine-readable: one JSON object a line.")
]
VerboseOption = Annotated[
    int, typer.Option("-v", "--verbose", count=True, help="More logging.")
]
QuietOption = Annotated[
    int, typer.Option("-q", "--quiet", count=True, help="Less logging.")
]

COMMON = {
    "home": (HomeOption, None),
    "bootstrap": (BootstrapOption, None),
    "open_": (OpenOption, None),
    "swarm": (SwarmOption, None),
    "json_": (JsonOption, False),
    "verbose": (VerboseOption, 0),
    "quiet": (QuietOption, 0),
}
"""Parameter name to its annotation and default."""


@dataclass(frozen=True, slots=True)
class Invocation:
    """What a command got from the common options; settings are read when asked for."""

    overrides: dict[str, object]
    verbosity: int
    out: Output

    def settings(self, *, for_dht: bool = False, **overrides: object) -> Settings:
        """Flags, environment, file and defaults together; ends with 2 when wrong.

        Args:
            for_dht: the command joins no swarm.
            overrides: this command's own flags; those that are None were not given.
        """
        from peerchat.config import ConfigError, load_settings, prepare_home

        given = {key: value for key, value in overrides.items() if value is not None}
        try:
            settings = load_settings({**self.overrides, **given}, for_dht=for_dht)
            for repaired in prepare_home(settings.home):
                self.out.note(f"peerchat: {repaired}")
        except ConfigError as error:
            self.out.fail(error.message, code=EXIT_USAGE)
        # `serve` says it in its log, which people see on standard error.
        is_told = for_dht or "roles" in given or self.out.is_json
        if settings.is_open and not is_told:
            self.out.note(f"peerchat: {OPEN_WARNING}")
        return settings


def joined(above: object, given: Sequence[object]) -> dict[str, object]:
    """Common options, in the order of `COMMON`, over those before (``above``)."""
    before: dict[str, object] = above if isinstance(above, dict) else {}
    return {
        key: value if value not in (None, False, 0) else before.get(key, value)
        for key, value in zip(COMMON, given, strict=True)
    }


def merge(above: object, given: dict[str, object]) -> Invocation:
    """Join a command's common options with those before its name (``above``)."""
    values = joined(above, [given[key] for key in COMMON])
    overrides = {
        "home": values["home"],
        "bootstrap": values["bootstrap"],
        "is_open": values["open_"],
        "swarm": values["swarm"],
    }
    verbose, quiet = values["verbose"], values["quiet"]
    assert isinstance(verbose, int)
    assert isinstance(quiet, int)
    return Invocation(
        {key: value for key, value in overrides.items() if value is not None},
        verbose - quiet,
        Output(is_json=bool(values["json_"])),
    )


def network_command(
    app: typer.Typer, name: str | None = None
) -> Callable[[Callable[Concatenate[Invocation, P], None]], Callable[..., None]]:
    """Register a command that takes the common options as its `Invocation`."""

    def register(
        function: Callable[Concatenate[Invocation, P], None],
    ) -> Callable[..., None]:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        common = [
            inspect.Parameter(
                key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind
            )
            for key, (kind, default) in COMMON.items()
        ]
        context = inspect.Parameter(
            "context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context
        )
        own = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own]

        @functools.wraps(function)
        def command(**values: object) -> None:
            above = getattr(values.pop("context"), "obj", None)
            given = {key: values.pop(key) for key in COMMON}
            function(merge(above, given), **values)  # type: ignore[arg-type, call-arg]

        signature = inspect.Signature([context, *own, *common])
        command.__signature__ = signature  # type: ignore[attr-defined]
        command.__annotations__ = {
            key: parameter.annotation for key, parameter in signature.parameters.items()
        }
        app.command(name)(command)
        return command

    return register
