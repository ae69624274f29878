"""What git may do for a job: its whole configuration and environment, which nothing of the host adds to.

The caller's configuration is left out because a job must do the same for everybody. Credentials travel in memory only:
git asks a helper, and the helper prints a descriptor that git inherited. They are in no URL, argument, variable or
file, and git sends them to one scheme, host and port only.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agent_runner.errors import SourceError
from agent_runner.git_names import GitUrl
from agent_runner.source.git_command import PATH, Git
from sandbox.masking.masker import Masker

DEFAULT_USER = "x-access-token"
"""For a token alone: forges that take tokens take any user."""
STALLED_S = 120
"""A server that sends nothing for so long is given up."""
_SSH = (
    "ssh -oBatchMode=yes -oStrictHostKeyChecking=yes -oControlMaster=no -oControlPath=none"
    " -oPermitLocalCommand=no -oForwardAgent=no -oConnectTimeout=30"
)
_Section = tuple[str, dict[str, str]]
_LFS = {
    "process": "git-lfs filter-process",
    "smudge": "git-lfs smudge -- %f",
    "clean": "git-lfs clean -- %f",
    "required": "true",
}
_SECTIONS = {
    "core": {"hooksPath": "/dev/null", "fsmonitor": "false", "logAllRefUpdates": "false"},
    "protocol": {"allow": "never"},
    "gc": {"autoDetach": "false"},
    "maintenance": {"autoDetach": "false"},
    "advice": {"detachedHead": "false"},
    "init": {"defaultBranch": "main"},
    "submodule": {"recurse": "false"},
    "transfer": {"credentialsInUrl": "die"},
    "http": {"lowSpeedLimit": "1", "lowSpeedTime": str(STALLED_S)},
    "credential": {"helper": ""},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What git may reach for one preparation, and how."""

    url: GitUrl
    secret: str = ""
    """``USER:PASSWORD``, a password or token, or a private key."""
    lfs: bool = False
    """Whether large files are fetched; else their pointers stay."""
    lfs_storage: Path
    """Where those of other hosts are kept between jobs."""
    known_hosts: Path
    """Keys of ssh servers, beside those that the user of the agent-runner knows. It need not exist."""


@contextlib.contextmanager
def git_for(place: Path, markers: dict[str, str], access: Access | None = None) -> Iterator[Git]:
    """Give git for one preparation.

    Args:
        place: Private folder of the preparation.
        markers: Variables by which a later start finds what a killed one left.
        access: What it may reach; nothing by default.

    Raises:
        SourceError: The secret cannot be used.
    """
    sections = list(_SECTIONS.items())
    ssh, fd = _SSH, -1
    try:
        if access is not None:
            ssh += f" -o {shlex.quote(f'UserKnownHostsFile=~/.ssh/known_hosts {_quoted(str(access.known_hosts))}')}"
            sections += _access_sections(access)
        if access is not None and access.secret:
            if access.url.scheme == "ssh":
                fd = _memory_file(_private_key(access.secret))
                # ssh closes what it inherits, so it reads from git, its parent.
                ssh += f" -oIdentitiesOnly=yes -i /proc/$PPID/fd/{fd}"
            else:
                fd = _memory_file(_answer(access.url, access.secret))
                helper = f'!f() {{ test "$1" = get && cat /proc/self/fd/{fd}; }}; f'
                sections.append((f'credential "{access.url.origin}"', {"helper": helper}))
        config = place / "gitconfig"
        config.write_text(_config_text(sections))
        (place / "home").mkdir()
        yield Git(
            env=_environment(place, config, ssh) | markers,
            fds=(fd,) if fd >= 0 else (),
            mask=str if access is None else _mask_of(access),
        )
    finally:
        if fd >= 0:
            os.close(fd)


def has_lfs() -> bool:
    """Tell whether git-lfs is installed."""
    return shutil.which("git-lfs", path=PATH) is not None


def _environment(place: Path, config: Path, ssh: str) -> dict[str, str]:
    return {
        "HOME": str(place / "home"),
        "TMPDIR": str(place),
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_SYSTEM": os.devnull,
        "GIT_CONFIG_GLOBAL": str(config),
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TEMPLATE_DIR": "",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "",
        "SSH_ASKPASS": "",
        "GIT_SSH_COMMAND": ssh,
        "GIT_SSH_VARIANT": "ssh",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_ALLOW_PROTOCOL": "none",
    }


def _access_sections(access: Access) -> list[_Section]:
    sections: list[_Section] = []
    if access.url.scheme == "file":
        # Whoever submits jobs may read what this process may; whose the folder is makes no difference.
        sections += [
            ("safe", {"directory": path}) for path in (access.url.path, f"{access.url.path}/.git")
        ]
    if access.lfs:
        # Of a repository on this host, git-lfs would take the setting for the repository's own.
        if access.url.scheme != "file":
            sections.append(("lfs", {"storage": str(access.lfs_storage)}))
        sections.append(('filter "lfs"', _LFS))
    return sections


def _config_text(sections: list[_Section]) -> str:
    lines = []
    for section, values in sections:
        lines.append(f"[{section}]")
        lines += [f"\t{name} = {_quoted(value)}" for name, value in values.items()]
    return "\n".join(lines) + "\n"


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t")
    return f'"{escaped}"'


def _answer(url: GitUrl, secret: str) -> str:
    """Return what the helper answers."""
    secret = secret.rstrip("\r\n")
    if any(not char.isprintable() for char in secret):
        raise SourceError("the credentials hold a line break or a control character")
    user, colon, password = secret.partition(":")
    if url.user:
        user, password = url.user, secret
    elif not colon:
        user, password = DEFAULT_USER, secret
    return f"username={user}\npassword={password}\n"


def _mask_of(access: Access) -> Callable[[str], str]:
    masker = Masker()
    for part in (access.secret, access.secret.partition(":")[2]):
        masker.add("credentials", part)
    return masker.mask_text


def _private_key(secret: str) -> str:
    if "PRIVATE KEY" not in secret:
        raise SourceError("the credentials of a repository over ssh must be a private key")
    return secret.rstrip() + "\n"


def _memory_file(text: str) -> int:
    fd = os.memfd_create("credentials")
    try:
        os.fchmod(fd, 0o600)
        os.write(fd, text.encode())
    except BaseException:
        os.close(fd)
        raise
    return fd
