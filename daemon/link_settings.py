"""The settings of the two ends of a connection beyond one machine: what a job server shows, and where the CLI finds one."""

from __future__ import annotations

from daemon.settings import (
    Setting,
    optional,
    parse_flag,
    parse_project,
    parse_projects,
    parse_words,
)

LINK_SETTINGS: tuple[Setting, ...] = (
    Setting(
        "server.tls_certificate",
        "RUNNER_SERVER_TLS_CERTIFICATE",
        "",
        parse_words,
        "certificate of `runner server`, PEM",
    ),
    Setting(
        "server.tls_key", "RUNNER_SERVER_TLS_KEY", "", parse_words, "the key that goes with it"
    ),
    Setting(
        "server.tls_client_ca",
        "RUNNER_SERVER_TLS_CLIENT_CA",
        "",
        parse_words,
        "who must have signed the certificate of each client; empty asks for none",
    ),
    Setting(
        "server.insecure",
        "RUNNER_SERVER_INSECURE",
        False,
        parse_flag,
        "let `runner server` speak in clear beyond this machine",
    ),
    Setting(
        "client.server",
        "RUNNER_SERVER",
        "",
        parse_words,
        "job server of the CLI: HOST:PORT; empty for the one of the state directory",
    ),
    Setting("client.token_file", "RUNNER_TOKEN_FILE", "", parse_words, "file of the token for it"),
    Setting(
        "client.tls_ca",
        "RUNNER_TLS_CA",
        "",
        parse_words,
        "who must have signed the certificate of that server",
    ),
    Setting(
        "client.tls_certificate",
        "RUNNER_TLS_CERTIFICATE",
        "",
        parse_words,
        "what is shown to a server that asks for one",
    ),
    Setting("client.tls_key", "RUNNER_TLS_KEY", "", parse_words, "the key that goes with it"),
    Setting(
        "client.insecure",
        "RUNNER_INSECURE",
        False,
        parse_flag,
        "let the token cross a network in clear",
    ),
    Setting(
        "agent_runner.projects",
        "RUNNER_PROJECTS",
        "",
        parse_projects,
        "whose jobs `runner agent-runner` takes; empty for all that its token is for",
    ),
    Setting(
        "project",
        "RUNNER_PROJECT",
        "",
        optional(parse_project),
        "project of jobs that are submitted or listed; empty leaves that to the token",
    ),
)
