"""The chat: transcript, prompt, panels, and the worker that runs the session."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.notifications import SeverityLevel
from textual.screen import Screen
from textual.worker import Worker, WorkerCancelled

from peerchat.api import ApiError, Node, NodeState, Phase
from peerchat.sanitize import display_line
from peerchat.tui.actions import Situation, key_bindings, parse_command
from peerchat.tui.conversation import QUEUE_MAX, Turn, TurnState
from peerchat.tui.session import Session
from peerchat.tui.widgets.bars import Notice, StatusBar, TopBar
from peerchat.tui.widgets.empty import Empty
from peerchat.tui.widgets.inert import Inert
from peerchat.tui.widgets.metrics import History, MetricsPanel
from peerchat.tui.widgets.peers import PeersPanel
from peerchat.tui.widgets.prompt import Prompt
from peerchat.tui.widgets.transcript import Transcript
from peerchat.tui.wording import Words, count, limit_notice, state_notice

from .dialogs import HelpScreen, ModelScreen

TICK_S = 0.1
"""How often a running answer is drawn: fast enough to read along."""

TICK_REST = 4
"""A tick that took long is followed by a rest of so many times its length."""

SECOND_S = 1.0

PEERS_EVERY_S = 15
"""How often peers are looked up while their panel is seen."""

WIDE_COLUMNS = 100
"""From here on the panels are shown unless they were switched off."""


class ChatScreen(Screen[None]):
    """Everything about one chat; asks the app only for what is outside of it."""

    AUTO_FOCUS = "#prompt"
    BINDINGS: ClassVar[list[BindingType]] = [
        *key_bindings(),
        Binding("escape", "stop", "Stop", show=False),
        Binding("pageup", "earlier", "Up", show=False, priority=True),
        Binding("pagedown", "later", "Down", show=False, priority=True),
        Binding("ctrl+end", "follow", "Newest", show=False, priority=True),
    ]

    class Opened(Message):
        """The screen stands: keys reach the prompt from now on."""

    class LoginWanted(Message):
        """A prompt waits for an account, or the user asked for the login."""

        def __init__(self, *, is_register: bool = False) -> None:
            super().__init__()
            self.is_register = is_register

    class LogoutWanted(Message):
        """The user wants the session forgotten."""

    def __init__(self, node: Node, clock: Callable[[], float], prompt_max: int) -> None:
        super().__init__()
        self.session = Session(node, clock, self._turn_changed)
        self.account_problem: Words | None = None
        """Why the account could not be had; shown until it could."""
        self._node = node
        self._clock = clock
        self._prompt_bytes_max = prompt_max
        self.transcript = Transcript()
        self.prompt = Prompt()
        self._top, self._status = TopBar(), StatusBar()
        self._empty, self._notice_bar = Empty(), Notice(classes="notice")
        self._pill = Inert("↓ Ctrl+End follows the answer", classes="pill")
        self._sidebar = Vertical(id="sidebar")
        self._peers, self._metrics = PeersPanel(id="peers"), MetricsPanel()
        self._state = node.state()
        self._model: str | None = None
        self.metrics_history = History()
        self._is_open = False
        self._is_closing = False
        self._is_dirty = False
        self._is_drawing = False
        self._rest_until_s = 0.0
        self._peers_due_s = 0.0
        self._sampled_s = clock()
        self._panels: dict[str, bool | None] = {"peers": None, "metrics": None}
        self._answer_worker: Worker[None] | None = None

    def compose(self) -> ComposeResult:
        yield self._top
        with Horizontal(id="body"):
            with Vertical(id="main"):
                with Vertical(id="stage"):
                    yield self._empty
                    yield self.transcript
                yield self._pill
                yield self._notice_bar
                yield self.prompt
            with self._sidebar:
                yield self._peers
                yield self._metrics
        yield self._status

    def on_mount(self) -> None:
        self.transcript.display = False
        self._is_open = True
        self.show_state(self._node.state())
        self.post_message(self.Opened())
        self.set_interval(TICK_S, self._tick)
        self.set_interval(SECOND_S, self._second)
        self.watch(self.transcript, "is_following", self._show_pill)

    # The node's state

    def show_state(self, state: NodeState) -> None:
        """Draw a new state, and send what waits when it can go now."""
        self._state = state
        if not self._is_open:
            return
        self._top.show_state(state, self._model)
        self._status.show_state(state)
        if not self.session.conversation.turns:
            self._empty.show_state(state)
        self._show_panels()
        self._show_notice()
        self.pump()

    def on_resize(self, event: events.Resize) -> None:
        self.show_state(self._state)

    def _show_panels(self) -> None:
        is_wide = self.app.size.width >= WIDE_COLUMNS
        shown = {
            name: is_wide if wanted is None else wanted
            for name, wanted in self._panels.items()
        }
        self._sidebar.display = any(shown.values())
        self._peers.display, self._metrics.display = shown["peers"], shown["metrics"]
        if shown["peers"]:
            self._peers.show_state(self._state)
        if shown["metrics"]:
            self._metrics.show_state(self._state, self.metrics_history)

    def _show_notice(self) -> None:
        self._notice_bar.show_words(self._notice())

    def _notice(self) -> Words | None:
        waiting = len(self.session.conversation.queue)
        words = state_notice(self._state, waiting)
        if self._state.phase is not Phase.READY:
            return words
        if self.account_problem is not None and self._state.account is None:
            return self.account_problem
        blocked_s = self.session.blocked_s()
        return limit_notice(blocked_s, waiting) if blocked_s else words

    # The session

    def pump(self) -> None:
        """Start the next prompt if one waits and can go."""
        if self._is_open and not self._is_closing and self.session.can_run():
            is_busy = self._answer_worker is not None and self._answer_worker.is_running
            if not is_busy:
                self._answer_worker = self.run_worker(
                    self._run_next(), group="answer", exit_on_error=False
                )

    async def _run_next(self) -> None:
        try:
            await self.session.run_next()
        finally:
            self.call_later(self._after_answer)

    async def _after_answer(self) -> None:
        last = self.session.conversation.last
        for turn in list(self.session.conversation.turns):
            if turn.state is TurnState.STOPPED and not turn.has_arrived:
                await self._take_back(turn)
        if self.session.needs_login:
            self.post_message(self.LoginWanted())
        elif last is not None:
            await self._draw()
        self._show_notice()
        self.pump()

    def _turn_changed(self, turn: Turn) -> None:
        self._is_dirty = True

    async def _take_back(self, turn: Turn) -> None:
        """Return a prompt, of which nothing came, to where it was typed."""
        self.session.conversation.remove(turn)
        self.prompt.give_back(turn.prompt)
        await self._show_turns()

    async def _show_turns(self) -> None:
        turns = self.session.conversation.turns
        self.transcript.display = bool(turns)
        self._empty.display = not turns
        if not turns:
            self._empty.show_state(self._state)
        await self.transcript.show_turns(turns)
        await self._draw()
        self._show_notice()

    async def _tick(self) -> None:
        is_moving = self.session.running or not self.transcript.is_settled
        is_due = self._is_dirty or is_moving
        if is_due and not self._is_drawing and self._clock() >= self._rest_until_s:
            await self._draw()

    async def _draw(self) -> None:
        """Bring the transcript up to date, then leave the loop to others a while."""
        self._is_drawing, self._is_dirty = True, False
        begun_s = self._clock()
        try:
            await self.transcript.refresh_turns(
                begun_s, is_animated=self.app.animation_level != "none"
            )
        finally:
            self._is_drawing = False
            took_s = self._clock() - begun_s
            self._rest_until_s = self._clock() + TICK_REST * took_s

    def _second(self) -> None:
        self._sample()
        self._show_notice()
        self.pump()
        is_seen = self._peers.display
        is_ready = self._state.phase is Phase.READY
        if is_seen and is_ready and self._clock() >= self._peers_due_s:
            self._peers_due_s = self._clock() + PEERS_EVERY_S
            self.run_worker(self._refresh_peers(), group="peers", exclusive=True)

    def _sample(self) -> None:
        """Take a metrics sample, unless the clock stands, as it does in pictures."""
        now_s = self._clock()
        if now_s - self._sampled_s >= SECOND_S / 2:
            self._sampled_s = now_s
            is_answering = self.session.running is not None
            self.metrics_history.add(self._state, is_answering=is_answering)
            if self._metrics.display:
                self._metrics.show_state(self._state, self.metrics_history)

    async def _refresh_peers(self) -> None:
        """Look the peers up; the result comes as a state, a failure as a phase."""
        try:
            await self._node.refresh_peers()
        except ApiError as error:
            self.log.warning(f"peers: {error.code}")

    # What the user does

    @on(Prompt.Submitted)
    async def submitted(self, event: Prompt.Submitted) -> None:
        command = parse_command(event.text)
        if command is not None and command.action is None:
            self.prompt.give_back(event.text)
            self.tell(
                f"There is no /{command.name}. /help lists the commands; "
                "// at the start sends it as a prompt."
            )
        elif command is not None and command.action is not None:
            if command.action.id == "model":
                self._use_model(command.argument or None)
            else:
                await self.run_action(command.action.id)
        else:
            is_escaped = event.text.startswith("//")
            await self.send(event.text[1:] if is_escaped else event.text)

    async def send(self, text: str) -> None:
        """Queue a prompt; it goes out as soon as it can."""
        if len(text.encode(errors="replace")) > self._prompt_bytes_max:
            self.prompt.give_back(text)
            limit = self._prompt_bytes_max // 1024
            self.tell(f"The prompt is longer than {limit} KiB. Shorten it.")
            return
        if self.session.conversation.add(text, self._model) is None:
            self.prompt.give_back(text)
            self.tell(f"{QUEUE_MAX} prompts wait already. Wait, or take one back: Esc.")
            return
        await self._show_turns()
        self.pump()
        if self._state.phase is Phase.READY and self._state.account is None:
            self.post_message(self.LoginWanted())

    async def action_stop(self) -> None:
        """Stop the answer, or take back the newest prompt that waits."""
        queue = self.session.conversation.queue
        if self.session.running is not None and self._answer_worker is not None:
            self._answer_worker.cancel()
        elif queue:
            await self._take_back(queue[-1])

    async def stop_all(self) -> None:
        """Stop the running answer and wait until its request is closed; for the end."""
        self._is_closing = True
        worker = self._answer_worker
        if worker is not None and worker.is_running:
            worker.cancel()
            with suppress(WorkerCancelled):
                await worker.wait()

    def situation(self) -> Situation:
        """What the actions depend on, now."""
        conversation = self.session.conversation
        return Situation(
            state=self._state,
            is_running=self.session.running is not None or bool(conversation.queue),
            has_answer=bool(conversation.last_answer()),
            has_failed=self._failed() is not None,
        )

    def action_help(self) -> None:
        self.app.push_screen(HelpScreen())

    def action_copy(self) -> None:
        """Copy the last answer's Markdown source (OSC 52)."""
        answer = self.session.conversation.last_answer()
        if answer:
            self.app.copy_to_clipboard(answer)
            self.tell(
                f"Copied {count(len(answer), 'character')} of Markdown.", "information"
            )
        else:
            self.tell("There is no answer to copy yet. Ask something first.")

    async def action_retry(self) -> None:
        """Send the last failed prompt once more."""
        turn = self._failed()
        if turn is None:
            self.tell("Nothing has failed, so there is nothing to try again.")
            return
        self.session.conversation.remove(turn)
        await self.send(turn.prompt)

    async def action_clear(self) -> None:
        """Forget what was said; a running answer goes on."""
        self.session.conversation.clear()
        await self._show_turns()

    def action_peers(self) -> None:
        self._toggle("peers")

    def action_metrics(self) -> None:
        self._toggle("metrics")

    def action_thinking(self) -> None:
        """Unfold or fold the thinking of the newest answer that has some."""
        for view in reversed(self.transcript.views):
            if view.turn.thinking:
                view.toggle_thinking()
                return
        self.tell("No answer here came with thinking.")

    def action_login(self) -> None:
        self.post_message(self.LoginWanted())

    def action_register(self) -> None:
        self.post_message(self.LoginWanted(is_register=True))

    def action_logout(self) -> None:
        self.post_message(self.LogoutWanted())

    def action_models(self) -> None:
        """Pick a model from those that the swarm serves."""
        picker = ModelScreen(self._state.models, self._model)
        self.app.push_screen(picker, self._picked)

    async def action_theme(self) -> None:
        await self.app.run_action("app.theme")

    async def action_quit(self) -> None:
        await self.app.run_action("app.quit")

    async def action_earlier(self) -> None:
        await self.transcript.page_up()

    async def action_later(self) -> None:
        await self.transcript.page_down()

    async def action_follow(self) -> None:
        await self.transcript.to_end()

    def on_key(self, event: events.Key) -> None:
        """Typing goes to the prompt wherever the focus is."""
        prompt = self.prompt
        if event.is_printable and event.character and not prompt.has_focus:
            event.stop()
            prompt.focus()
            prompt.insert(event.character)

    def tell(self, text: str, severity: SeverityLevel = "warning") -> None:
        """Show one line for a few seconds."""
        self.notify(display_line(text, 400), severity=severity, markup=False)

    def _picked(self, name: str | None) -> None:
        if name is not None:
            self._use_model(name or None)

    def _use_model(self, name: str | None) -> None:
        self._model = name
        self._top.show_state(self._state, name)
        known = {model.name for model in self._state.models}
        if name is None:
            self.tell("Any model may answer from now on.", "information")
        elif name in known or not known:
            self.tell(f"{name} answers from now on.", "information")
        else:
            self.tell(f"Nobody serves {name} now; it is asked for all the same.")

    def _toggle(self, panel: str) -> None:
        widget = self.query_one(f"#{panel}")
        is_seen = widget.display and self._sidebar.display
        self._panels[panel] = not is_seen
        self._show_panels()

    def _show_pill(self, is_following: bool) -> None:
        self._pill.display = not is_following

    def _failed(self) -> Turn | None:
        turns = reversed(self.session.conversation.turns)
        return next((turn for turn in turns if turn.state is TurnState.FAILED), None)
