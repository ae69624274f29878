"""``runner config``: shows every setting, its value and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping

import click

from daemon.cli.output import print_json, print_table, state_of
from daemon.config import environ, load, read_config_file, secret_wishes
from daemon.errors import StateDirError


@click.group()
def config() -> None:
    """Show the configuration and where each value is from."""


@config.command(epilog="Example: runner config show --json")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def show(ctx: click.Context, as_json: bool) -> None:
    """Print every setting, its value and its origin."""
    env = environ()
    values = load(env, {})
    document, path = read_config_file(env)
    wishes = secret_wishes(document, path)
    rows = {key: {"value": item.value, "origin": item.origin} for key, item in values.items()}
    rows["state_dir"] = _state_row(ctx, env)
    present = "present" if document else "absent"
    rows["config_file"] = {"value": str(path) if path else None, "origin": present}
    origin = f"file {path}" if "secrets" in str(document.get("local", "")) else "default"
    names = [f"{wish.name}{' (required)' if wish.required else ''}" for wish in wishes]
    rows["local.secrets"] = {"value": names if as_json else ", ".join(names), "origin": origin}
    if as_json:
        print_json(rows)
    else:
        print_table(
            ("SETTING", "VALUE", "ORIGIN"),
            [(key, _text(row["value"]), str(row["origin"])) for key, row in sorted(rows.items())],
        )


def _state_row(ctx: click.Context, env: dict[str, str]) -> dict[str, object]:
    try:
        return {"value": str(state_of(ctx).root), "origin": _state_origin(ctx, env)}
    except StateDirError as error:  # whoever looks at the configuration looks for this
        return {"value": None, "origin": str(error)}


def _text(value: object) -> str:
    """Return a value as people write it, not as Python does; what is empty is a dash."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        value = [f"{name}={_text(each)}" for name, each in value.items()]
    if isinstance(value, list | tuple):
        value = ", ".join(map(_text, value))
    return str("-" if value in (None, "") else value)


def _state_origin(ctx: click.Context, env: dict[str, str]) -> str:
    if ctx.find_root().obj:
        return "flag"
    for name in ("RUNNER_STATE_DIR", "XDG_STATE_HOME"):
        if env.get(name):
            return f"environment {name}"
    return "default"
