"""`peerchat models …`: what the swarm serves, and the model files of this home."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import (
    BootstrapOption,
    HomeOption,
    Invocation,
    JsonOption,
    OpenOption,
    QuietOption,
    SwarmOption,
    VerboseOption,
    joined,
    merge,
    network_command,
)
from .run import run

models_app = typer.Typer(
    name="models",
    add_completion=False,
    no_args_is_help=False,
    invoke_without_command=True,
    rich_markup_mode=None,
    help="The models that the swarm serves; pull, list and remove files of this home.",
)


@models_app.callback()
def models(
    context: typer.Context,
    home: HomeOption = None,
    bootstrap: BootstrapOption = None,
    open_: OpenOption = None,
    swarm: SwarmOption = None,
    json_: JsonOption = False,
    verbose: VerboseOption = 0,
    quiet: QuietOption = 0,
) -> None:
    given = joined(context.obj, (home, bootstrap, open_, swarm, json_, verbose, quiet))
    context.obj = given
    if context.invoked_subcommand is None:
        from .listing import run_models

        call = merge(None, given)
        run(call.out, run_models(call.settings(), call))


@network_command(models_app)
def pull(
    call: Invocation,
    source: Annotated[
        str,
        typer.Argument(
            metavar="URL|NAME@PEER",
            help="Of a GGUF file; or what a processor gives, by the beginning of its "
            "key, or NAME@swarm for any that gives it.",
        ),
    ],
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="Else that of the file.")
    ] = "",
    sha256: Annotated[
        str, typer.Option("--sha256", metavar="HEX", help="What the file must hash to.")
    ] = "",
) -> None:
    """Get a model file; goes on where it broke off."""
    from .model_work import is_of_peers, run_pull

    settings = call.settings(for_dht=not is_of_peers(source))
    run(call.out, run_pull(settings, call, source, name, sha256))


@network_command(models_app, "list")
def list_(
    call: Invocation,
    peer: Annotated[
        str,
        typer.Option(
            "--peer", metavar="PEER", help="Those a processor gives; 'swarm': all do."
        ),
    ] = "",
) -> None:
    """The model files of this home, or of a peer of the swarm."""
    if peer:
        from .model_peers import run_offers

        run(call.out, run_offers(call.settings(), call, peer))
        return
    from .model_work import run_list

    run(call.out, run_list(call.settings(for_dht=True), call))


@network_command(models_app)
def rm(call: Invocation, name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Remove a model file of this home."""
    from .model_work import run_remove

    run(call.out, run_remove(call.settings(for_dht=True), call, name))
