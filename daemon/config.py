"""The configuration: flags, then environment, then file, then defaults; each value knows where it came from.

The only reader of the environment in this package. A setting is declared once, in ``SETTINGS``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from agent_runner.container_policy import ContainerPolicy
from daemon.container_settings import CONTAINER_SETTINGS, container_policy
from daemon.defaults import (
    DEFAULT_MAX_AGE_DAYS,
    DEFAULT_MAX_JOBS,
    DEFAULT_MAX_LOG_BYTES,
    DEFAULT_MAX_OUTPUT_BYTES,
)
from daemon.errors import InvalidConfigError, UsageError
from daemon.link_settings import LINK_SETTINGS
from daemon.paths import config_file
from daemon.settings import (
    Setting,
    choice,
    optional,
    parse_address,
    parse_flag,
    parse_labels,
    parse_listen,
    parse_name,
    parse_seconds,
    parse_words,
    whole,
)

DEFAULT_LISTEN = "127.0.0.1:50051"
DEFAULT_WARM_SLOTS = 2
"""What the aim for the idle memory of an agent-runner has room for."""
MAX_BOUND = 999_999_999
MAX_BYTES = 1 << 60
SECRET_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,127}")


class Value(NamedTuple):
    """A value and its origin: ``flag``, ``environment NAME``, ``file PATH`` or ``default``."""

    value: object
    origin: str


class SecretWish(NamedTuple):
    """A secret that ``local start`` gathers."""

    name: str
    required: bool = False


class LocalConfig(NamedTuple):
    """What ``local start`` runs with."""

    listen: str
    """``host:port`` of the TCP listener, or ``none``."""
    slots: int
    sandbox_tier: str
    allow_unsandboxed: bool
    agent_name: str
    drain_timeout_s: float
    secrets: tuple[SecretWish, ...]
    env_label: str
    warm_slots: int = DEFAULT_WARM_SLOTS
    agent_runners: int = 1
    mode: str = "local"
    """``local`` runs jobs behind the walls of the host's kernel, ``cloud`` in containers."""
    container_engine: str = ""
    container_certs: str = ""
    container_image: str = ""
    container_pull: str = "missing"
    containers: ContainerPolicy = ContainerPolicy()
    max_jobs: int = DEFAULT_MAX_JOBS
    """How many jobs that have ended are kept; 0 is no bound, here and in the two after it."""
    max_age_days: int = DEFAULT_MAX_AGE_DAYS
    max_log_bytes: int = DEFAULT_MAX_LOG_BYTES
    max_output_bytes: int = DEFAULT_MAX_OUTPUT_BYTES
    """How much the outputs of one attempt may be together."""


def environ() -> dict[str, str]:
    """Return a copy of this process's environment; the one place that reads it."""
    return dict(os.environ)


SETTINGS: tuple[Setting, ...] = (
    Setting("local.listen", "RUNNER_LISTEN", DEFAULT_LISTEN, parse_listen, "TCP address, or none"),
    Setting("local.slots", "RUNNER_SLOTS", 2, whole(1, 256), "attempts at once"),
    Setting(
        "local.warm_slots",
        "RUNNER_WARM_SLOTS",
        DEFAULT_WARM_SLOTS,
        whole(0, 256),
        "sandboxes built ahead, or 0",
    ),
    Setting(
        "local.agent_runners",
        "RUNNER_AGENT_RUNNERS",
        1,
        whole(1, 16),
        "agent-runners, each with its own slots",
    ),
    Setting(
        "local.sandbox_tier",
        "RUNNER_SANDBOX_TIER",
        "auto",
        choice("auto", "bwrap", "landlock", "plain"),
        "strongest sandbox tier to use",
    ),
    Setting(
        "local.allow_unsandboxed",
        "RUNNER_ALLOW_UNSANDBOXED",
        False,
        parse_flag,
        "let jobs run without walls where nothing better works",
    ),
    Setting(
        "local.agent_name", "RUNNER_AGENT_NAME", "local", parse_name, "name of the agent-runner"
    ),
    Setting("local.drain_timeout", "RUNNER_DRAIN_TIMEOUT", 60.0, parse_seconds, "seconds to drain"),
    Setting(
        "retention.max_jobs",
        "RUNNER_RETENTION_MAX_JOBS",
        DEFAULT_MAX_JOBS,
        whole(0, MAX_BOUND),
        "ended jobs to keep, or 0",
    ),
    Setting(
        "retention.max_age_days",
        "RUNNER_RETENTION_MAX_AGE_DAYS",
        DEFAULT_MAX_AGE_DAYS,
        whole(0, MAX_BOUND),
        "days to keep ended jobs, or 0",
    ),
    Setting(
        "retention.max_log_bytes",
        "RUNNER_RETENTION_MAX_LOG_BYTES",
        DEFAULT_MAX_LOG_BYTES,
        whole(0, MAX_BYTES),
        "bytes of their logs and outputs to keep, or 0",
    ),
    Setting(
        "outputs.max_bytes",
        "RUNNER_OUTPUTS_MAX_BYTES",
        DEFAULT_MAX_OUTPUT_BYTES,
        whole(1, MAX_BYTES),
        "bytes of the outputs of one attempt",
    ),
    Setting(
        "secrets.keyring",
        "RUNNER_SECRETS_KEYRING",
        False,
        parse_flag,
        "keep the password of the secret store in the keyring of the desktop",
    ),
    Setting("local.mode", "MODE", "local", choice("local", "cloud"), "where jobs run"),
    Setting(
        "local.container_engine",
        "RUNNER_CONTAINER_ENGINE",
        "",
        parse_words,
        "address of the container engine",
    ),
    Setting(
        "local.container_certs",
        "RUNNER_CONTAINER_CERTS",
        "",
        parse_words,
        "folder of ca.pem, cert.pem and key.pem for an engine behind TLS",
    ),
    Setting(
        "local.container_image", "RUNNER_IMAGE", "", parse_words, "image for jobs that name none"
    ),
    Setting(
        "local.container_pull",
        "RUNNER_CONTAINER_PULL",
        "missing",
        choice("always", "missing", "never"),
        "when images are fetched",
    ),
    Setting(
        "local.fallback",
        "RUNNER_FALLBACK",
        "never",
        choice("never", "ask", "allow"),
        "whether run-local may do without a container that cannot be had",
    ),
    Setting(
        "server.listen",
        "RUNNER_SERVER_LISTEN",
        DEFAULT_LISTEN,
        parse_address,
        "where `runner server` listens, or none",
    ),
    Setting(
        "agent_runner.server",
        "RUNNER_SERVER",
        "",
        parse_words,
        "job server of `runner agent-runner`: HOST:PORT or unix:/PATH",
    ),
    Setting("agent_runner.name", "RUNNER_AGENT_NAME", "", optional(parse_name), "its name"),
    Setting("agent_runner.labels", "RUNNER_LABELS", "", parse_labels, "what it offers to jobs"),
    Setting("agent_runner.mode", "MODE", "cloud", choice("local", "cloud"), "where its jobs run"),
    Setting("agent_runner.token_file", "RUNNER_TOKEN_FILE", "", parse_words, "file of its token"),
    Setting(
        "agent_runner.tls_ca",
        "RUNNER_TLS_CA",
        "",
        parse_words,
        "who must have signed the certificate of the job server",
    ),
    Setting(
        "agent_runner.tls_certificate",
        "RUNNER_TLS_CERTIFICATE",
        "",
        parse_words,
        "what is shown to a server that asks for one",
    ),
    Setting("agent_runner.tls_key", "RUNNER_TLS_KEY", "", parse_words, "the key that goes with it"),
    Setting(
        "agent_runner.insecure",
        "RUNNER_INSECURE",
        False,
        parse_flag,
        "let the token cross a network in clear",
    ),
    *LINK_SETTINGS,
    *CONTAINER_SETTINGS,
    Setting("env", "ENV", "dev", parse_name, "a label; changes no behaviour"),
)


def load(env: Mapping[str, str], flags: Mapping[str, object]) -> dict[str, Value]:
    """Return every setting with its origin; ``flags`` holds only what was given, by key.

    Raises:
        InvalidConfigError: The file or a variable is malformed. UsageError: a flag is.
    """
    document, origin = read_config_file(env)
    values = {}
    for setting in SETTINGS:
        raw, source = setting.default, "default"
        table = _table(document, setting.key, origin)
        if table is not None:
            raw, source = table, f"file {origin}"
        if env.get(setting.env):
            raw, source = env[setting.env], f"environment {setting.env}"
        if flags.get(setting.key) is not None:
            raw, source = flags[setting.key], "flag"
        values[setting.key] = Value(_parsed(setting, raw, source), source)
    return values


def _parsed(setting: Setting, raw: object, source: str) -> object:
    try:
        return setting.parse(raw)
    except ValueError as error:
        if source == "flag":
            flag = setting.key.rpartition(".")[2].replace("_", "-")
            raise UsageError(f"--{flag} {raw}: {error}") from None
        given = f" = {raw!r}" if setting.repeated else ""
        raise InvalidConfigError(f"{source}: {setting.key}{given}: {error}") from None


def read_config_file(env: Mapping[str, str]) -> tuple[dict[str, object], Path | None]:
    """Return the parsed configuration file and its path; empty if there is none.

    Raises:
        InvalidConfigError: It cannot be read, is not TOML, or has an unknown key.
    """
    path = config_file(env)
    if path is None:
        return {}, None
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        if env.get("RUNNER_CONFIG"):
            raise InvalidConfigError(f"RUNNER_CONFIG names {path}, which does not exist") from None
        return {}, path
    except OSError as error:
        raise InvalidConfigError(f"cannot read {path}: {error.strerror}") from error
    import tomllib  # noqa: PLC0415 - most runs have no file

    try:
        document = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidConfigError(f"{path}: {error}") from None
    _refuse_unknown(document, path)
    return document, path


def _refuse_unknown(document: Mapping[str, object], path: Path) -> None:
    known = {setting.key for setting in SETTINGS} | {"local.secrets"}
    for key, value in document.items():
        names = [f"{key}.{inner}" for inner in value] if isinstance(value, dict) else [key]
        for name in names:
            if name not in known:
                import difflib  # noqa: PLC0415 - only on the way to an error

                near = difflib.get_close_matches(name, known, 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise InvalidConfigError(f"{path}: unknown setting {name!r}{hint}")


def _table(document: Mapping[str, object], key: str, path: Path | None) -> object | None:
    node: object = document
    for part in key.split("."):
        if node is None:
            return None
        if not isinstance(node, dict):
            raise InvalidConfigError(f"{path}: {key.partition('.')[0]} must be a table")
        node = node.get(part)
    return node


def secret_wishes(document: Mapping[str, object], path: Path | None) -> tuple[SecretWish, ...]:
    """Return the secrets that ``[[local.secrets]]`` names; without any, ANTHROPIC_API_KEY as an optional one.

    Raises:
        InvalidConfigError: An entry is malformed.
    """
    entries = _table(document, "local.secrets", path)
    if entries is None:
        return (SecretWish(name="ANTHROPIC_API_KEY"),)
    wishes = []
    if not isinstance(entries, list):
        raise InvalidConfigError(f"{path}: local.secrets must be [[local.secrets]] tables")
    for entry in entries:
        name = entry.get("name") if isinstance(entry, dict) else None
        required = entry.get("required", False) if isinstance(entry, dict) else None
        if not isinstance(name, str) or not SECRET_NAME.fullmatch(name):
            raise InvalidConfigError(f'{path}: each [[local.secrets]] needs name = "VARIABLE_NAME"')
        if not isinstance(required, bool) or set(entry) - {"name", "required"}:
            raise InvalidConfigError(f"{path}: secret {name}: only name and required = true|false")
        wishes.append(SecretWish(name=name, required=required))
    return tuple(wishes)


def local_config(
    env: Mapping[str, str], flags: Mapping[str, object], extra_secrets: tuple[str, ...] = ()
) -> LocalConfig:
    """Return what ``local start`` runs with; ``extra_secrets`` are the required ones of ``--secret``.

    Raises:
        InvalidConfigError, UsageError: As ``load``.
    """
    values = load(env, flags)
    document, path = read_config_file(env)
    wishes = {wish.name: wish for wish in secret_wishes(document, path)}
    for name in extra_secrets:
        if not SECRET_NAME.fullmatch(name):
            raise UsageError(
                "--secret: expected the name of a variable, never a value "
                "(what was given may be one, so it is not repeated)"
            )
        wishes[name] = SecretWish(name=name, required=True)

    def text(key: str) -> str:
        return str(values[key].value)

    return LocalConfig(
        listen=text("local.listen"),
        slots=int(text("local.slots")),
        warm_slots=int(text("local.warm_slots")),
        agent_runners=int(text("local.agent_runners")),
        sandbox_tier=text("local.sandbox_tier"),
        allow_unsandboxed=values["local.allow_unsandboxed"].value is True,
        agent_name=text("local.agent_name"),
        drain_timeout_s=float(text("local.drain_timeout")),
        secrets=tuple(wishes.values()),
        env_label=text("env"),
        mode=text("local.mode"),
        container_engine=text("local.container_engine"),
        container_certs=text("local.container_certs"),
        container_image=text("local.container_image"),
        container_pull=text("local.container_pull"),
        containers=container_policy(lambda key: values[key].value),
        max_jobs=int(text("retention.max_jobs")),
        max_age_days=int(text("retention.max_age_days")),
        max_log_bytes=int(text("retention.max_log_bytes")),
        max_output_bytes=int(text("outputs.max_bytes")),
    )
