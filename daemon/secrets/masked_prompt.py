"""The prompt that shows ``*`` per character, drawn by prompt-toolkit with its traps closed.

Left alone the library writes to standard output, takes pasted line ends into the value, keeps a
history, offers a search and a count that show what is typed, asks the terminal where the cursor
is, and on a dumb terminal echoes a password in clear; such terminals never get here.
"""

from __future__ import annotations

import os
import signal
import string

from prompt_toolkit import PromptSession
from prompt_toolkit.application import Application
from prompt_toolkit.history import DummyHistory
from prompt_toolkit.input.typeahead import get_typeahead
from prompt_toolkit.input.vt100 import Vt100Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.utils import get_term_environment_variable

from daemon.secrets.terminal import SEVERAL_LINES, HiddenTerminal, LineRefusedError

_DUMB_TERMINALS = frozenset({"", "dumb", "emacs", "unknown"})


def is_dumb(term: str | None) -> bool:
    """Return whether a kind of terminal cannot draw; None asks for the one of this process."""
    kind = get_term_environment_variable() if term is None else term
    return kind.lower() in _DUMB_TERMINALS


def ask_masked(terminal: HiddenTerminal, label: str) -> str | None:
    """Read one line; None at the end of input.

    Raises:
        LineRefusedError: More than one line was pasted.
        KeyboardInterrupt: Ctrl-C.
    """
    source = Vt100Input(terminal.input)
    output = Vt100_Output.from_pty(terminal.output)
    # The answer to a cursor position request would end up in the shell's input.
    output.enable_cpr = False
    session: PromptSession[str] = PromptSession(
        is_password=True,
        history=DummyHistory(),
        key_bindings=_bindings(),
        input=source,
        output=output,
    )
    terminal.redraw = lambda: _redraw(session.app)
    terminal.is_editor = True
    try:
        value = session.prompt(label)
    except EOFError:
        return None
    finally:
        terminal.is_editor = False
        terminal.redraw = _nothing
        early = "".join(key.data for key in get_typeahead(source))
        late = terminal.read_pending().decode("utf-8", "replace")
    if (early + late).strip():
        raise LineRefusedError(SEVERAL_LINES)
    return value


def _bindings() -> KeyBindings:
    bindings = KeyBindings()

    @bindings.add(Keys.BracketedPaste)
    def _paste(event: KeyPressEvent) -> None:
        lines = event.data.strip("\r\n")
        if "\r" in lines or "\n" in lines:
            event.app.exit(exception=LineRefusedError(SEVERAL_LINES))
        else:
            event.current_buffer.insert_text(lines)

    def _ignore(_: KeyPressEvent) -> None:
        """Keep the default binding away: it would show what is typed next."""

    @bindings.add("c-z", eager=True)
    def _suspend(_: KeyPressEvent) -> None:
        """Do what the terminal does outside of an editor, which takes the key for a character."""
        os.kill(0, signal.SIGTSTP)

    bindings.add("c-r", eager=True)(_ignore)
    bindings.add("c-s", eager=True)(_ignore)
    for char in string.digits + "-":
        bindings.add("escape", char, eager=True)(_ignore)
    return bindings


def _redraw(app: Application[str]) -> None:
    """Start over, on an empty line; called from a signal handler, hence through the loop."""

    def start_over() -> None:
        app.renderer.reset()
        app.current_buffer.reset()
        # Not before: where the library is about to draw anyway it takes no second order, and may draw too soon.
        app.invalidate()

    if app.loop is not None:
        app.loop.call_soon_threadsafe(start_over)


def _nothing() -> None:
    pass
