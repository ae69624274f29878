"""The prompt that draws, without a terminal: what a person sees of it is in tests/integration/test_prompt.py."""

from __future__ import annotations

import asyncio
import time

import pytest
from prompt_toolkit import PromptSession
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from daemon.secrets.masked_prompt import _redraw

DEADLINE_S = 20


@pytest.mark.parametrize("pending", [False, True])
async def test_it_is_drawn_anew_after_a_suspension(
    monkeypatch: pytest.MonkeyPatch, pending: bool
) -> None:
    """Also if the library was about to draw as the suspension came, and draws before it starts over."""
    with create_pipe_input() as keys:
        session: PromptSession[str] = PromptSession(
            is_password=True, input=keys, output=DummyOutput()
        )
        asking = asyncio.create_task(session.prompt_async("Label: "))
        async with asyncio.timeout(DEADLINE_S):
            while session.app.render_counter == 0:
                await asyncio.sleep(0)
            started_over: list[bool] = []
            monkeypatch.setattr(
                session.app.current_buffer, "reset", lambda: started_over.append(True)
            )
            if pending:
                session.app.invalidate()
                time.sleep(
                    0.02
                )  # longer than the library waits for a moment with nothing else to do
            _redraw(session.app)
            while not started_over or session.app.renderer.last_rendered_screen is None:
                await asyncio.sleep(0)
        session.app.exit(result="")
        await asking
