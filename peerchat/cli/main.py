"""Every command with its options and help; the work is in the modules beside this."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from typer.exceptions import TyperException

from peerchat.api import Role

from .key import key as key_app
from .models import models_app
from .options import (
    COMMON,
    BootstrapOption,
    HomeOption,
    Invocation,
    JsonOption,
    OpenOption,
    QuietOption,
    SwarmOption,
    VerboseOption,
    merge,
    network_command,
)
from .output import EXIT_INTERRUPTED, EXIT_USAGE, Output
from .run import reported, run
from .swarm import swarm_app
from .user import user

app = typer.Typer(
    name="peerchat",
    add_completion=False,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Share language models with each other, peer to peer.\n\n"
    "Without a command: open the terminal app.",
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(user, name="user")
app.add_typer(key_app, name="key")

app.add_typer(swarm_app)

app.add_typer(models_app)

ModelOption = Annotated[
    str | None, typer.Option("--model", metavar="NAME", help="Which model.")
]


def main() -> None:
    """Run the command line of this process; a wrong one ends with 2 and one line."""
    try:
        code = app(standalone_mode=False)
    except typer.Abort:
        raise SystemExit(EXIT_INTERRUPTED) from None
    except TyperException as error:
        line = getattr(error, "format_message", error.__str__)()
        path = getattr(getattr(error, "ctx", None), "command_path", "peerchat")
        out = Output(is_json="--json" in sys.argv)
        out.error(f"{line.rstrip('.')}. See {path} --help.")
        raise SystemExit(EXIT_USAGE) from None
    raise SystemExit(code if isinstance(code, int) else 0)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        from importlib.metadata import version

        print(f"peerchat {version('peerchat')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def open_app(
    context: typer.Context,
    home: HomeOption = None,
    bootstrap: BootstrapOption = None,
    open_: OpenOption = None,
    swarm: SwarmOption = None,
    json_: JsonOption = False,
    verbose: VerboseOption = 0,
    quiet: QuietOption = 0,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="The version."
        ),
    ] = False,
) -> None:
    given: dict[str, object] = dict(
        zip(COMMON, (home, bootstrap, open_, swarm, json_, verbose, quiet), strict=True)
    )
    context.obj = given
    if context.invoked_subcommand is None:
        from .terminal import run_app

        run_app(merge(None, given))


@network_command(app)
def serve(
    call: Invocation,
    role: Annotated[
        list[str],
        typer.Option(
            "--role", metavar="ROLE", help="auth gateway processor bridge all"
        ),
    ],
    http_host: Annotated[str | None, typer.Option(help="127.0.0.1")] = None,
    http_port: Annotated[
        int | None, typer.Option(help="3000", min=0, max=65535)
    ] = None,
    ollama_port: Annotated[
        int | None,
        typer.Option(
            help="Ollama's API on a port of its own, such as 11434.", min=0, max=65535
        ),
    ] = None,
    metrics_host: Annotated[str | None, typer.Option(help="127.0.0.1")] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            help="One endpoint for all roles; unset: 9100 to 9103.", min=0, max=65535
        ),
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="auto, ollama, openai, llama or guide")
    ] = None,
    engine_url: Annotated[
        str | None, typer.Option(help="OpenAI-compatible: http://127.0.0.1:8080/v1")
    ] = None,
    model_file: Annotated[
        str | None, typer.Option(help="GGUF file for the embedded llama.cpp.")
    ] = None,
    model: ModelOption = None,
    max_requests: Annotated[int | None, typer.Option(help="10", min=1)] = None,
    window_minutes: Annotated[float | None, typer.Option(help="1", min=0.01)] = None,
    slots: Annotated[
        int | None, typer.Option(help="Requests an engine runs at once.", min=1)
    ] = None,
    offer: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Models to give: 'llama3*,qwen*'; all."),
    ] = None,
    hours: Annotated[
        str | None,
        typer.Option(metavar="FROM-TO", help="When to take prompts: 22:00-07:00."),
    ] = None,
    tokens_per_day: Annotated[
        int | None, typer.Option(help="Most tokens of answers in a day.", min=1)
    ] = None,
) -> None:
    """Run roles headless until SIGINT or SIGTERM."""
    from .serve import run_serve

    settings = call.settings(
        roles=_roles(call, role),
        http_host=http_host,
        http_port=http_port,
        ollama_port=ollama_port,
        metrics_host=metrics_host,
        metrics_port=metrics_port,
        engine=engine,
        engine_url=engine_url,
        model_file=model_file,
        model=model,
        max_requests=max_requests,
        window_minutes=window_minutes,
        slots=slots,
        offer=offer,
        hours=hours,
        tokens_per_day=tokens_per_day,
    )
    run(call.out, run_serve(settings, call))


def _roles(call: Invocation, names: list[str]) -> frozenset[Role]:
    wanted: set[Role] = set()
    for name in (part for one in names for part in one.replace(",", " ").split()):
        if name == "all":
            wanted |= set(Role)
        elif name in set(Role):
            wanted.add(Role(name))
        else:
            known = " ".join(Role)
            call.out.fail(
                f"no role is called {name!r}: choose from {known} all", code=EXIT_USAGE
            )
    return frozenset(wanted)


@network_command(app)
def dht(
    call: Invocation,
    host: Annotated[str | None, typer.Option(help="0.0.0.0")] = None,
    port: Annotated[int | None, typer.Option(help="49737", min=0, max=65535)] = None,
) -> None:
    """Run a persistent DHT node that others can bootstrap from."""
    from .dht import run_dht

    settings = call.settings(for_dht=True, dht_host=host, dht_port=port)
    run(call.out, run_dht(settings, call.out))


@network_command(app)
def ask(
    call: Invocation,
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", help="'-' reads standard input.")
    ],
    model: ModelOption = None,
) -> None:
    """One prompt; the answer streams to standard output."""
    from .ask import run_ask

    text = sys.stdin.read() if prompt == "-" else prompt
    if not text.strip():
        call.out.fail(
            "the prompt is empty: write one, or pipe it in and use -", code=EXIT_USAGE
        )
    run(call.out, run_ask(call.settings(), call, text, model))


@network_command(app)
def chat(call: Invocation, model: ModelOption = None) -> None:
    """Line mode, for terminals that cannot show the app."""
    from .chat import run_chat

    run(call.out, run_chat(call.settings(), call, model))


@network_command(app)
def status(call: Invocation) -> None:
    """What runs in this home."""
    from .status import run_status

    run(call.out, run_status(call.settings(), call))


@network_command(app)
def stop(call: Invocation) -> None:
    """Stop what runs in this home, and clear up after a crash."""
    from .status import run_stop

    run(call.out, run_stop(call.settings(), call.out))


@network_command(app)
def pause(call: Invocation) -> None:
    """Let this home's processor take nothing new; running answers finish."""
    from .contribution import run_set_paused

    with reported(call.out):
        run_set_paused(call.settings(), call.out, is_paused=True)


@network_command(app)
def resume(call: Invocation) -> None:
    """Let this home's processor take prompts again."""
    from .contribution import run_set_paused

    with reported(call.out):
        run_set_paused(call.settings(), call.out, is_paused=False)


@network_command(app)
def trace(
    call: Invocation,
    request_id: Annotated[str, typer.Argument(metavar="REQUEST-ID")],
) -> None:
    """Each step of one of your last requests, with times."""
    from .trace import run_trace

    run(call.out, run_trace(call.settings(), call, request_id))


@network_command(app)
def verify(
    call: Invocation,
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="What `ask --json` printed, an answer of the bridge, or a receipt; "
            "'-' reads standard input.",
        ),
    ],
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt", metavar="FILE", help="What was asked, as text, or '-'."
        ),
    ] = None,
    request: Annotated[
        str | None,
        typer.Option(
            "--request",
            metavar="FILE",
            help="What the bridge was sent, as JSON, or '-'.",
        ),
    ] = None,
) -> None:
    """Check an answer's signed receipt: what was said, asked, counted, and by whom.

    Ends with 0 only if everything holds that could be checked.
    """
    from .verify import Given, run_verify

    given = Given(file, prompt, request)
    if problem := given.problem:
        call.out.fail(problem, code=EXIT_USAGE)
    run(call.out, run_verify(call.settings(), call, given))


@network_command(app)
def register(
    call: Invocation,
    email: Annotated[str, typer.Argument(metavar="EMAIL")],
    code: Annotated[
        str | None,
        typer.Option(
            metavar="CODE",
            help="From an admin, where it takes one; '-' reads standard input, and "
            "PEERCHAT_CODE does too.",
        ),
    ] = None,
) -> None:
    """Make an account; PEERCHAT_PASSWORD or a prompt gives the password."""
    from .account import run_register

    run(call.out, run_register(call.settings(), call, email, code))


@network_command(app)
def password(call: Invocation) -> None:
    """Change the password, and end all other sessions.

    PEERCHAT_PASSWORD and PEERCHAT_NEW_PASSWORD, two lines of standard input, or prompts
    give them.
    """
    from .account import run_password

    run(call.out, run_password(call.settings(), call))


@network_command(app)
def login(
    call: Invocation, email: Annotated[str, typer.Argument(metavar="EMAIL")]
) -> None:
    """Log in; PEERCHAT_PASSWORD or a prompt gives the password."""
    from .account import run_login

    run(call.out, run_login(call.settings(), call, email))


@network_command(app)
def logout(
    call: Invocation,
    everywhere: Annotated[
        bool,
        typer.Option("--everywhere", help="End the account's sessions on all devices."),
    ] = False,
) -> None:
    """Forget the session of this home."""
    from .account import run_logout, run_logout_everywhere

    settings = call.settings()
    if everywhere:
        run(call.out, run_logout_everywhere(settings, call))
    else:
        run(call.out, run_logout(settings, call.out))


@network_command(app)
def whoami(call: Invocation) -> None:
    """Who is logged in."""
    from .account import run_whoami

    run(call.out, run_whoami(call.settings(), call))


@network_command(app)
def token(call: Invocation) -> None:
    """Print the current API token."""
    from .account import run_token

    run(call.out, run_token(call.settings(), call))


@network_command(app)
def peers(call: Invocation) -> None:
    """The peers found, by role, with round-trip time."""
    from .listing import run_peers

    run(call.out, run_peers(call.settings(), call))


@network_command(app)
def doctor(call: Invocation) -> None:
    """Check engine, ports, store, DHT and clock; say what to do about each failure."""
    from .doctor import run_doctor

    run(call.out, run_doctor(call.settings(), call))
