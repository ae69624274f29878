"""How a command starts inside a container: a few lines for /bin/sh, which every image for jobs has.

The engine's own way would be shorter and break three promises:

* It keeps the environment of a container on its disk and shows it to whoever may inspect; secrets are in it. Here it
  comes over the standard input and is only ever in the memory of the job.
* It carries stdout and stderr apart, and their order is lost. Here both are one pipe; what the *engine* sees as stderr
  comes from its init and from this script, never from the command, and so tells how the start went.
* Its TERM reaches the first process only, and all others die with that one. Here the first process survives TERM, and
  waits, when it was told of a stop (by USR1), until every other has ended.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping

from sandbox.base import ExecRequest

STARTED = b"runner: started\n"
"""What the script says right before it becomes the command."""
TERM_ALL = ("/bin/sh", "-c", "kill -TERM -1")
"""Reaches every process of the container but the first one and itself."""
STOP_NOTICE = "USR1"

_ENDED = re.compile(r"^runner: ended ([0-9]{1,3})$", re.MULTILINE)
_SHELL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SET_BY_SHELL = ("HOSTNAME", "PWD", "OLDPWD", "SHLVL")
"""Set by the engine or by a shell; gone unless the job asks for them."""

SCRIPT = r"""trap '' TERM
unset t s l m d r f p
trap t=1 USR1
m=$1 d=$2
shift 2
while IFS= read -r l && [ "$l" != "$m" ]; do s="$s$l
"; done
cd "$d" 2>/dev/null || {
  printf 'the working directory %s cannot be used\n' "$d" >&2
  exit 125
}
(
  eval "$s" || exit 127
  set -f
  f=
  case $1 in
  */*) [ ! -e "$1" ] || f=$1 ;;
  *)
    IFS=:
    for p in $PATH; do
      f=${p:-.}/$1
      [ -f "$f" ] && [ -x "$f" ] && break
      f=
    done
    ;;
  esac
  if [ -z "$f" ]; then
    printf 'runner: cannot execute %s: No such file or directory\n' "$1"
    exit 127
  fi
  if [ -d "$f" ] || [ ! -x "$f" ]; then
    printf 'runner: cannot execute %s: Permission denied\n' "$1"
    exit 126
  fi
  exit 0
)
r=$?
if [ "$r" = 0 ]; then
  (
    trap - TERM USR1
    eval "$s"
    echo 'runner: started' >&2
    exec "$@" </dev/null 2>&1
  )
  r=$?
else
  echo 'runner: started' >&2
fi
if [ -n "$t" ]; then
  echo "runner: ended $r" >&2
  while kill -0 -1 2>/dev/null; do sleep 0.1 2>/dev/null || sleep 1 || break; done
fi
exit "$r"
"""


def words(request: ExecRequest, marker: str) -> list[str]:
    """Return the command of the container; nothing of the environment is in it."""
    return ["/bin/sh", "-c", SCRIPT, "runner", marker, request.cwd, *request.argv]


def can_carry(name: str) -> bool:
    """Tell whether a shell can set a variable of this name."""
    return _SHELL_NAME.fullmatch(name) is not None


def new_marker() -> str:
    """Return a line that no environment holds."""
    return f"end-{secrets.token_hex(16)}"


def own_exit_code(said: str) -> int | None:
    """Return how the command itself ended, if others of its tree had to be killed after a stop."""
    match = _ENDED.search(said)
    return None if match is None else int(match[1])


def environment(env: Mapping[str, str], also_unset: Mapping[str, str], marker: str) -> bytes:
    """Return what is written to the input: a script that makes the environment, and the marker.

    Args:
        env: The whole environment of the command.
        also_unset: What the image sets, which is gone unless it is in ``env``.
        marker: Of ``new_marker``.

    Raises:
        ValueError: A name is none for a shell.
    """
    gone = {*_SET_BY_SHELL, *filter(can_carry, also_unset)} - env.keys()
    lines = [f"unset {' '.join(sorted(gone))}"] if gone else []
    for name, value in env.items():
        if not can_carry(name):
            raise ValueError(f"{name!r} cannot be the name of a variable in a container")
        quoted = value.replace("'", "'\\''")
        lines.append(f"export {name}='{quoted}'")
    return "\n".join([*lines, marker, ""]).encode("utf-8", "surrogateescape")
