"""Asks for a secret at the terminal: ``*`` per character, or nothing at all, never the characters."""

from __future__ import annotations

from daemon.errors import Interrupted, SecretNeededError
from daemon.secrets.plain_prompt import ask_plain
from daemon.secrets.terminal import HiddenTerminal, LineRefusedError, NoTerminalError


def ask_secret(label: str, term: str | None = None) -> str | None:
    """Show a label and read one secret line.

    Called from the main thread, with no event loop running. Blocks until the person answers; asks
    again when more than one line was pasted. The terminal is left as it was found, by signals too.

    Args:
        label: What is asked for, ending in a colon and a space.
        term: Kind of terminal; None takes what prompt-toolkit finds in the environment.

    Returns:
        The line; empty for Enter or blanks alone; None for Ctrl-D on an empty line, which is the end of input.

    Raises:
        Interrupted: Ctrl-C.
        SecretNeededError: There is no terminal.
    """
    try:
        with HiddenTerminal() as terminal:
            while True:
                try:
                    return _ask_once(terminal, label, term)
                except LineRefusedError as exc:
                    terminal.write(f"{exc}\n")
    except NoTerminalError as exc:
        raise SecretNeededError(f"there is no terminal to ask at: {label.rstrip(': ')}") from exc
    except KeyboardInterrupt as exc:
        raise Interrupted("interrupted at the prompt") from exc


def _ask_once(terminal: HiddenTerminal, label: str, term: str | None) -> str | None:
    try:
        # The library takes a seventh of a second to load, hence only when somebody is asked.
        from daemon.secrets.masked_prompt import ask_masked, is_dumb  # noqa: PLC0415

        dumb = is_dumb(term)
        value = None if dumb else ask_masked(terminal, label)
    except LineRefusedError:
        raise
    except Exception:  # noqa: BLE001 - whatever the library cannot do, the plain prompt can
        dumb = True
        value = None
    if dumb:
        value = ask_plain(terminal, label)
    if value is None or not value.strip():
        return None if value is None else ""
    if any((char < " " and char != "\t") or char == "\x7f" for char in value):
        raise LineRefusedError("the line holds control characters; enter it again")
    return value
