"""gRPC without what nobody uses, and with it where somebody does."""

from __future__ import annotations

import os
import subprocess
import sys

UNUSED = {
    "ssl",
    "typing_extensions",
    "google.protobuf.text_format",
    "google.protobuf.internal.decoder",
    "google.protobuf.internal.encoder",
    "google.protobuf.internal.containers",
}
TALK = """
import agent_runner.plain_grpc
from google.protobuf import duration_pb2
from runner.v1 import agent_service_pb2 as pb, agent_service_pb2_grpc
sent = pb.WorkRequest(hello=pb.WorkHello(agent=pb.AgentIdentity(name="alpha")))
read = pb.WorkRequest.FromString(sent.SerializeToString())
assert read == sent and "alpha" in str(read)
assert duration_pb2.Duration(seconds=3).ToTimedelta().total_seconds() == 3
import sys
print(*sys.modules)
"""


def modules_of(code: str, **env: str) -> set[str]:
    """Return what a process has imported after some code."""
    command = [sys.executable, "-P", "-c", code]
    return set(subprocess.check_output(command, env=os.environ | env, text=True).split())


def test_messages_work_without_what_is_left_out():
    """They are made, read, compared and printed by C; nothing of what is left out comes by that."""
    assert modules_of(TALK) & UNUSED == set()


def test_what_is_left_out_can_be_imported_afterwards():
    """It is the real one, and another library finds what gRPC did not ask for."""
    code = """
import agent_runner.plain_grpc
import typing, typing_extensions
assert typing_extensions is not typing and typing_extensions.__name__ == "typing_extensions"
from google.protobuf import text_format
from google.protobuf.internal import python_message
assert python_message.GeneratedProtocolMessageType
import ssl, sys
print(*sys.modules)
"""
    assert modules_of(code) >= UNUSED


def test_the_messages_in_pure_python_are_there_where_they_are_asked_for():
    """As a host without the ones in C asks by itself, and this variable anywhere."""
    modules = modules_of(TALK, PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION="python")
    assert "google.protobuf.internal.decoder" in modules
