"""How a command starts inside a container: a few lines for /bin/sh, which every image for jobs has.

The engine's own way would be shorter and break five promises:

* It keeps the environment of a container on its disk and shows it to whoever may inspect; secrets are in it. Here it
  comes over the standard input and is only ever in the memory of the job.
* It carries stdout and stderr apart, and their order is lost. Here both are one pipe; what the *engine* sees as stderr
  comes from its init and from this script, never from the command, and so tells how the start went.
* Its TERM reaches the first process only, and all others die with that one. Here the first process survives TERM, and
  waits, when it was told of a stop (by USR1), until every other has ended.
* It wants the words of the command when the container is made, before its source is there.
* Its processes are all equal to the kernel where memory is short. Here a command goes before the script, which lives to tell of it.

One script serves one command and ends with its code; the other serves one after the other (``residents.py``), and the shell itself
reads that and its calls from the input: ``read`` takes a byte at a time, which was a third of what a job there cost.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping

from sandbox.base import ExecRequest

STARTED = b"runner: started\n"
"""What the script says right before it becomes the command."""
SHORT_OF_MEMORY = b"runner: short of memory\n"
"""What it says at the end if the kernel has killed for memory, which Podman does not see."""
CLEAN = b"runner: clean\n"
DIRTY = b"runner: dirty\n"
"""What it says after ``CLEANING``: whether another command may follow."""
TERM_ALL = ("/bin/sh", "-c", "kill -TERM -1")
"""Reaches every process of the container but the first one and itself."""
STOP_NOTICE = "USR1"

_ENDED = re.compile(r"^runner: ended ([0-9]{1,3})$", re.MULTILINE)
_SHELL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SET_BY_SHELL = ("HOSTNAME", "PWD", "OLDPWD", "SHLVL", "container")
"""Set by the engine or by a shell; gone unless the job asks for them."""
_CLEANED = ("/job", "/job/src", "/tmp", "/home/job", "/dev/shm", "/dev/mqueue")  # noqa: S108  # inside a container

_FUNCTIONS = r"""trap '' TERM
unset t s l m c d r f p g e i k o
look() {
  f=
  case $1 in
  */*) [ ! -e "$1" ] || f=$1 ;;
  *)
    set -f
    IFS=:
    for p in $g; do
      f=${p:-.}/$1
      [ -f "$f" ] && [ -x "$f" ] && break
      f=
    done
    unset IFS
    set +f
    ;;
  esac
  r=0
  if [ -z "$f" ]; then
    printf 'runner: cannot execute %s: No such file or directory\n' "$1"
    r=127
  elif [ -d "$f" ] || [ ! -x "$f" ]; then
    printf 'runner: cannot execute %s: Permission denied\n' "$1"
    r=126
  fi
}
run() {
  cd "$d" 2>/dev/null || {
    printf 'the working directory %s cannot be used\n' "$d" >&2
    exit 125
  }
  look "$1"
  [ "$r" = 0 ] || {
    echo 'runner: started' >&2
    return 0
  }
  (
    trap - TERM USR1
    { echo 700 >/proc/self/oom_score_adj; } 2>/dev/null
    echo 'runner: started' >&2
    eval "$s" 2>/dev/null || exit 127
    exec "$@" </dev/null 2>&1
  )
  r=$?
}
killed() {
  k=
  for f in /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control; do
    while read -r l i; do
      [ "$l" != oom_kill ] || k=$i
    done <$f
  done 2>/dev/null
}
others() {
  i=0
  while kill -0 -1 2>/dev/null; do
    i=$((i + 1))
    [ -n "$t" ] || kill -KILL -1 2>/dev/null
    [ "$i" -lt 9 ] || sleep 0.1 2>/dev/null || sleep 1 || break
  done
}
"""
SCRIPT = (
    _FUNCTIONS
    + r"""m=$1
take() {
  s=
  while IFS= read -r l; do
    [ "$l" != "$m" ] || return 0
    s="$s$l
"
  done
  exit 125
}
t=
trap t=1 USR1
take
eval "$s"
take
killed
o=$k
run "$@"
if [ -n "$t" ]; then
  echo "runner: ended $r" >&2
  others
elif [ "$r" = 0 ] && [ -n "$o" ] && ! kill -0 -1 2>/dev/null; then
  killed
  [ "$k" != "$o" ] || {
    printf '%s000.' "$e"
    exit 0
  }
fi
killed
[ -z "$k" ] || [ "$k" = "$o" ] || echo 'runner: short of memory' >&2
exit "$r"
"""
)
"""Serves one command; says so if that ended well and left nobody: the engine needs 50 ms more to notice."""
RESIDENT_SCRIPT = (
    _FUNCTIONS
    + r"""c=$*
s=variables
each() {
  for p in $c; do
    for f in "$p"/* "$p"/.[!.]* "$p"/..?*; do
      case $f in
      /job/src | /job/ci) [ ! -d "$f" ] || [ -L "$f" ] || continue ;;
      esac
      [ ! -e "$f" ] && [ ! -L "$f" ] || "$@" "$f" || return 1
    done
  done
}
drop() {
  [ -L "$1" ] || [ ! -d "$1" ] || chmod -R u+rwx "$1"
  rm -rf "$1"
}
clean() {
  cd /
  chmod 755 /job/src && chmod 700 /home/job
  each drop
  [ -d /job/src ] || mkdir /job/src
  each false && [ -d /job/src ] && [ ! -L /job/src ] || return 1
  for f in /job/ci/* /job/ci/.[!.]* /job/ci/..?*; do [ ! -e "$f" ] && [ ! -L "$f" ] || return 1; done
  for f in shm sem msg; do
    { read -r l && read -r l; } 2>/dev/null </proc/sysvipc/$f && return 1
  done
  return 0
}
ready() {
  variables() { :; }
  killed
  o=$k
  t=
  trap t=1 USR1
}
serve() {
  run "$@"
  [ -z "$t" ] || echo "runner: ended $r" >&2
  others
  killed
  f=m
  [ "$k" != "$o" ] || f=.
  [ -n "$k" ] || f=u
  printf '%s%03d%s' "$e" "$r" "$f"
  ready
}
empty() {
  if clean >/dev/null 2>&1; then echo 'runner: clean' >&2; else echo 'runner: dirty' >&2; fi
  ready
}
ready
"""
)
"""Serves one command after the other: each is a ``resident_call``."""
RESIDENT_SHELL = ("/bin/sh", "-s", "--", "runner-resident")


def words(marker: str) -> list[str]:
    """Return the command of a container for one command of a job; nothing of that is in it."""
    return ["/bin/sh", "-c", SCRIPT, "runner", marker]


def resident_words(also_cleaned: Iterable[str]) -> list[str]:
    """Return the command of a container for one command after the other, which reads ``RESIDENT_SCRIPT`` first.

    Args:
        also_cleaned: Folders that the image has made writable.
    """
    folders = [*_CLEANED, *(each for each in also_cleaned if re.fullmatch(r"[/\w.-]+", each))]
    return [*RESIDENT_SHELL, *folders]


def can_carry(name: str) -> bool:
    """Tell whether a shell can set a variable of this name."""
    return _SHELL_NAME.fullmatch(name) is not None


def new_marker() -> str:
    """Return a line that no environment holds."""
    return f"end-{secrets.token_hex(16)}"


def new_end_mark() -> str:
    """Return what no output holds. A control character begins it, because output that ends like its beginning is held back."""
    return f"\x1e{new_marker()}"


def own_exit_code(said: str) -> int | None:
    """Return how the command itself ended, if the script said so before the container's end."""
    match = _ENDED.search(said)
    return None if match is None else int(match[1])


def call(
    request: ExecRequest,
    env: Mapping[str, str],
    also_unset: Iterable[str],
    marker: str,
    end_mark: str,
) -> bytes:
    """Return what is written to the input to start the one command.

    Args:
        request: The command.
        env: Its whole environment.
        also_unset: Names that the image sets, which are gone unless they are in ``env``.
        marker: Of ``words``.
        end_mark: What the script may write behind the output of the command; see ``EndMark``.

    Raises:
        ValueError: A name of the environment is none for a shell.
    """
    place, argv = _place(request, env, end_mark), " ".join(map(_quoted, request.argv))
    return _encoded([place, f"set -- {argv}", marker, *_variables(env, also_unset), marker])


def resident_call(
    request: ExecRequest, env: Mapping[str, str], also_unset: Iterable[str], end_mark: str
) -> bytes:
    """Return what is written to the input to start one command of several; see ``call``.

    A shell runs what is between braces once it has read all of that.

    Args:
        request: The command.
        env: Its whole environment.
        also_unset: Names that the image sets.
        end_mark: What the script writes behind the output of the command; see ``EndMark``.

    Raises:
        ValueError: A name of the environment is none for a shell.
    """
    place, argv = _place(request, env, end_mark), " ".join(map(_quoted, request.argv))
    begin = ["{", "variables() {", ":", *_variables(env, also_unset), "}"]
    return _encoded([*begin, place, f"serve {argv}", "}"])


CLEANING = b"empty\n"
"""What is written to the input of a resident to have removed what its commands left."""


def _place(request: ExecRequest, env: Mapping[str, str], end_mark: str) -> str:
    """Return where a command starts and is looked for, and what tells its end: without a trace of that in its environment."""
    path = env.get("PATH", "")
    return f"d={_quoted(request.cwd)} g={_quoted(path)} e={_quoted(end_mark)}"


def _variables(env: Mapping[str, str], also_unset: Iterable[str]) -> list[str]:
    gone = {*_SET_BY_SHELL, *filter(can_carry, also_unset)} - env.keys()
    lines = [f"unset {' '.join(sorted(gone))}"] if gone else []
    for name, value in env.items():
        if not can_carry(name):
            raise ValueError(f"{name!r} cannot be the name of a variable in a container")
        lines.append(f"export {name}={_quoted(value)}")
    return lines


def _encoded(lines: Iterable[str]) -> bytes:
    return "\n".join([*lines, ""]).encode("utf-8", "surrogateescape")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
