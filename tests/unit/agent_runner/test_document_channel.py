"""Handing a document and descriptors to another process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading

import pytest

from agent_runner import document_channel


@pytest.mark.parametrize("size", [1, 65536, 65537, 3 << 20])
def test_a_document_arrives_whole_with_its_descriptors(size):
    """Whatever its size; what came is not inherited by the next process."""
    document = os.urandom(size)
    ours, theirs = socket.socketpair()
    memory = os.memfd_create("sent")
    os.write(memory, b"held")
    found: list[tuple[bytes, list[int]]] = []
    taker = threading.Thread(target=lambda: found.append(document_channel.take(theirs.detach())))
    taker.start()
    with ours:
        sent = document_channel.begin(ours, document, [memory, memory])
        ours.sendall(document[sent:])
    taker.join(20)
    os.close(memory)
    (content, fds) = found[0]
    assert content == document
    assert [os.pread(fd, 9, 0) for fd in fds] == [b"held", b"held"]
    assert not any(os.get_inheritable(fd) for fd in fds)
    for fd in fds:
        os.close(fd)


def test_whoever_goes_without_a_word_hands_over_nothing():
    """That is an answer too, so it has come."""
    ours, theirs = socket.socketpair()
    assert not document_channel.has_come(theirs.fileno())
    ours.close()
    assert document_channel.has_come(theirs.fileno())
    assert document_channel.take(theirs.detach()) == (b"", [])


def test_one_who_does_not_listen_is_an_error():
    """The sender has to know, because a descriptor that it sends may be all that keeps something open."""
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, pytest.raises(ConnectionError):
        document_channel.begin(ours, b"{}", [])


def test_descriptors_that_find_no_room_are_an_error():
    """One of them may be the lock: to go on without it would be to go on unlocked."""
    script = (
        "import errno, resource, socket\n"
        "from agent_runner import document_channel\n"
        "ours, theirs = socket.socketpair()\n"
        "document_channel.begin(ours, b'{}', [1, 2, 2])\n"
        "ours.close()\n"
        "fd = theirs.detach()\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (fd + 2, fd + 2))\n"
        "try:\n"
        "    document_channel.take(fd)\n"
        "except OSError as error:\n"
        "    print(errno.errorcode[error.errno])\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, check=True)
    assert done.stdout == b"EMFILE\n"


def test_memory_is_read_like_a_socket():
    """Where a process becomes another, nobody is left to write."""
    memory = os.memfd_create("document")
    os.write(memory, b"{}")
    os.lseek(memory, 0, os.SEEK_SET)
    assert document_channel.has_come(memory)
    assert document_channel.take(memory) == (b"{}", [])
