"""Registers a secret that a job has made up or fetched, so that the runner hides it in the job's log from then on."""

from __future__ import annotations

import base64
import json
import os
import socket

SOCKET_VARIABLE = "RUNNER_MASK_SOCKET"
TOKEN_VARIABLE = "RUNNER_MASK_TOKEN"  # noqa: S105 - the name of a variable
TIMEOUT_S = 30.0
MAX_ANSWER_BYTES = 4096
_MAX_PATH_BYTES = 107


class NotMaskedError(Exception):
    """The value may show in the log: nobody has taken it."""


def add_secret(value: bytes) -> None:
    """Hide a value in everything that is printed after this returns.

    Raises:
        NotMaskedError: It is not hidden; says why, and never holds the value.
    """
    path, token = os.environ.get(SOCKET_VARIABLE), os.environ.get(TOKEN_VARIABLE)
    if not path or not token:
        raise NotMaskedError(
            "this job has no way to the runner; print a line ::add-mask::VALUE instead"
        )
    request = {"token": token, "add_mask": base64.b64encode(value).decode()}
    try:
        answer = json.loads(_exchange(path, json.dumps(request).encode() + b"\n"))
    except (OSError, ValueError) as error:
        raise NotMaskedError(f"the runner does not answer: {error}") from error
    if not isinstance(answer, dict) or answer.get("ok") is not True:
        why = answer.get("error") if isinstance(answer, dict) else None
        raise NotMaskedError(str(why or "the runner has refused it"))


def _exchange(path: str, request: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(TIMEOUT_S)
        _connect(connection, path)
        connection.sendall(request)
        answer = b""
        while not answer.endswith(b"\n") and len(answer) < MAX_ANSWER_BYTES:
            piece = connection.recv(MAX_ANSWER_BYTES)
            if not piece:
                break
            answer += piece
        return answer


def _connect(connection: socket.socket, path: str) -> None:
    if len(os.fsencode(path)) <= _MAX_PATH_BYTES:
        connection.connect(path)
        return
    folder, name = os.path.split(path)
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        connection.connect(f"/proc/self/fd/{fd}/{name}")
    finally:
        os.close(fd)
