"""The chat: transcript, prompt, panels, and the worker that runs the session."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.notifications import SeverityLevel
from textual.screen import Screen

from peerchat.api import ApiError, Node, NodeState, Phase
from peerchat.model_names import served_name
from peerchat.sanitize import display_line
from peerchat.tui.actions import action_of, key_bindings, matching, parse_command
from peerchat.tui.clipboard import Clipboard
from peerchat.tui.conversation import Turn
from peerchat.tui.first_run import FirstRun
from peerchat.tui.registry import Action, Situation
from peerchat.tui.session import Session
from peerchat.tui.widgets.bars import Notice, StatusBar, TopBar
from peerchat.tui.widgets.commands import CommandHints
from peerchat.tui.widgets.empty import Empty
from peerchat.tui.widgets.inert import Inert
from peerchat.tui.widgets.prompt import Prompt
from peerchat.tui.widgets.sidebar import Sidebar
from peerchat.tui.widgets.transcript import Transcript
from peerchat.tui.wording import Tone, Words, limit_notice, state_notice

from .chat_deeds import ChatDeeds
from .dispatch import Dispatch

TICK_S = 0.1
"""How often a running answer is drawn: fast enough to read along."""

TICK_REST = 4
"""A tick that took long is followed by a rest of so many times its length."""

SECOND_S = 1.0

PEERS_EVERY_S = 15
"""How often peers are looked up while their panel is seen."""


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

    class AccountWanted(Message):
        """A prompt waits for an account, or was refused for want of one."""

    class Wanted(Message):
        """An action that is not the chat's own."""

        def __init__(self, action_id: str, argument: str) -> None:
            super().__init__()
            self.action_id = action_id
            self.argument = argument

    def __init__(
        self,
        node: Node,
        clock: Callable[[], float],
        prompt_max: int,
        first_run: FirstRun,
        clipboard: Clipboard,
    ) -> None:
        super().__init__()
        self.session = Session(node, clock, self._turn_changed)
        self.account_problem: Words | None = None
        """Why the account could not be had; shown until it could."""
        self.model: str | None = None
        """What is asked; None: any."""
        self._node = node
        self._clock = clock
        self._first_run = first_run
        self.dispatch = Dispatch(self, prompt_max)
        self.deeds = ChatDeeds(self, clipboard)
        self.transcript = Transcript()
        self.prompt = Prompt()
        self.sidebar = Sidebar()
        self._top, self._status = TopBar(), StatusBar()
        self._empty, self._notice_bar = Empty(), Notice(classes="notice")
        self._pill = Inert("↓ Ctrl+End follows the answer", classes="pill")
        self._hints = CommandHints(classes="hints")
        self._state = node.state()
        self._is_open = False
        self._is_dirty = False
        self._is_drawing = False
        self._rest_until_s = 0.0
        self._peers_due_s = 0.0
        self._sampled_s = clock()

    def compose(self) -> ComposeResult:
        yield self._top
        with Horizontal(id="body"):
            with Vertical(id="main"):
                with Vertical(id="stage"):
                    yield self._empty
                    yield self.transcript
                yield self._pill
                yield self._notice_bar
                yield self._hints
                yield self.prompt
            yield self.sidebar
        yield self._status

    def on_mount(self) -> None:
        self.transcript.display = False
        self._is_open = True
        self.dispatch.open()
        self.show_state(self._node.state())
        self.post_message(self.Opened())
        self.set_interval(TICK_S, self._tick)
        self.set_interval(SECOND_S, self._second)
        self.watch(self.transcript, "is_following", self._show_pill)

    def on_screen_resume(self) -> None:
        self.prompt.end_invite()

    # The node's state

    def show_state(self, state: NodeState) -> None:
        """Draw a new state, and send what waits when it can go now."""
        self._state = state
        if not self._is_open:
            return
        self._top.show_state(state, self.model)
        self._status.show_state(state)
        self._show_empty()
        self.sidebar.show_state(state)
        self._show_notice()
        self.dispatch.pump()

    def on_resize(self, event: events.Resize) -> None:
        self.show_state(self._state)

    def _show_empty(self) -> None:
        if not self.session.conversation.turns:
            is_offered = self._first_run.is_due(self._state)
            self._empty.show_state(self._state, is_offered=is_offered)

    def _show_notice(self) -> None:
        self._notice_bar.show_words(self._notice())

    def _notice(self) -> Words | None:
        waiting = len(self.session.conversation.queue)
        words = state_notice(self._state, waiting)
        if self._state.phase is not Phase.READY:
            return words
        if self.session.is_held:
            return Words("Going into another swarm…", "What you send waits.", Tone.INFO)
        if self.account_problem is not None and self._state.account is None:
            return self.account_problem
        blocked_s = self.session.blocked_s()
        return limit_notice(blocked_s, waiting) if blocked_s else words

    # The session

    def refresh_state(self) -> None:
        """Draw the node's newest state."""
        self.show_state(self._node.state())

    async def answer_ended(self) -> None:
        """An answer is over, in whatever way."""
        if self.session.needs_login:
            self.post_message(self.AccountWanted())
        elif self.session.conversation.turns:
            await self._draw()
        self._show_notice()

    def _turn_changed(self, turn: Turn) -> None:
        self._is_dirty = True

    async def show_turns(self) -> None:
        """Show the conversation as it is now."""
        turns = self.session.conversation.turns
        self.transcript.display = bool(turns)
        self._empty.display = not turns
        self._show_empty()
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
        self.dispatch.pump()
        is_seen = self.sidebar.shows_peers
        is_ready = self._state.phase is Phase.READY
        if is_seen and is_ready and self._clock() >= self._peers_due_s:
            self._peers_due_s = self._clock() + PEERS_EVERY_S
            self.run_worker(self._refresh_peers(), group="peers", exclusive=True)

    def _sample(self) -> None:
        """Take a metrics sample, unless the clock stands, as it does in pictures."""
        now_s = self._clock()
        if now_s - self._sampled_s >= SECOND_S / 2:
            self._sampled_s = now_s
            self.sidebar.sample(is_answering=self.session.running is not None)

    async def _refresh_peers(self) -> None:
        """Look the peers up; the result comes as a state, a failure as a phase."""
        try:
            await self._node.refresh_peers()
        except ApiError as error:
            self.log.warning(f"peers: {error.code}")

    # What the user does

    async def perform(self, action: Action, argument: str = "") -> None:
        """Do what was asked for by key, command or palette, or say why not."""
        situation = self.situation()
        if not action.is_available(situation) and action.otherwise:
            self.tell(action.otherwise)
        elif action.id in self.deeds.table:
            await self.deeds.table[action.id](argument)
        else:
            self.post_message(self.Wanted(action.id, argument))

    async def action_perform(self, action_id: str) -> None:
        """Do an action of the registry; what keys are bound to."""
        await self.perform(action_of(action_id))

    @on(Empty.Chosen)
    async def chosen(self, event: Empty.Chosen) -> None:
        self.prompt.focus()
        await self.perform(action_of(event.action_id))

    @on(Prompt.InviteGiven)
    async def invite_given(self, event: Prompt.InviteGiven) -> None:
        """An invite is a secret: it never goes out as a prompt."""
        await self.perform(action_of("join"), event.line)

    @on(Prompt.Changed)
    def typed(self) -> None:
        situation = self.situation()
        self._hints.show(matching(self.prompt.text, situation), situation)

    @on(Prompt.CompletionWanted)
    def complete(self) -> None:
        """Finish the command that is being typed; Tab goes on when there is none."""
        found = matching(self.prompt.text, self.situation())
        if found:
            space = " " if found[0].argument else ""
            self.prompt.fill(f"/{found[0].slash}{space}")
        else:
            self.focus_next()

    @on(Prompt.Submitted)
    async def submitted(self, event: Prompt.Submitted) -> None:
        command = parse_command(event.text)
        if command is None:
            is_escaped = event.text.startswith("//")
            await self.send(event.text[1:] if is_escaped else event.text)
        elif command.action is not None:
            await self.perform(command.action, command.argument)
        else:
            self.prompt.give_back(event.text)
            self.tell(
                f"There is no /{command.name}. /help lists the commands; "
                "// at the start sends it as a prompt."
            )

    async def send(self, text: str) -> None:
        """Queue a prompt; it goes out as soon as it can."""
        if not await self.dispatch.queue(text):
            return
        if self._first_run.is_due(self._state):
            self._first_run.choose()
        if self._state.phase is Phase.READY and self._state.account is None:
            self.post_message(self.AccountWanted())

    async def action_stop(self) -> None:
        """Stop the answer, or take back the newest prompt that waits."""
        await self.dispatch.stop()

    def situation(self) -> Situation:
        """What the actions depend on, now."""
        conversation = self.session.conversation
        return Situation(
            state=self._state,
            is_running=self.session.running is not None or bool(conversation.queue),
            has_answer=bool(conversation.last_answer()),
            has_failed=conversation.last_failed() is not None,
        )

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

    def use_model(self, name: str | None) -> None:
        """Ask this model from now on; None: any."""
        known = {model.name for model in self._state.models}
        served = None if name is None else served_name(name, known)
        self.model = served or name
        self._top.show_state(self._state, self.model)
        if name is None:
            self.tell("Any model may answer from now on.", "information")
        elif served or not known:
            self.tell(f"{self.model} answers from now on.", "information")
        else:
            self.tell(f"Nobody serves {name} now; it is asked for all the same.")

    def _show_pill(self, is_following: bool) -> None:
        self._pill.display = not is_following
