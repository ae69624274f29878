"""``runner config``: shows every setting, its value and where it comes from."""

from __future__ import annotations

import click

from daemon.cli.output import print_json, print_table, state_of
from daemon.config import environ, load, read_config_file, secret_wishes


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
    rows["state_dir"] = {"value": str(state_of(ctx).root), "origin": _state_origin(ctx, env)}
    rows["config_file"] = {"value": str(path), "origin": "present" if document else "absent"}
    origin = f"file {path}" if "secrets" in str(document.get("local", "")) else "default"
    names = [f"{wish.name}{' (required)' if wish.required else ''}" for wish in wishes]
    rows["local.secrets"] = {"value": names if as_json else ", ".join(names), "origin": origin}
    if as_json:
        print_json(rows)
    else:
        print_table(
            ("SETTING", "VALUE", "ORIGIN"),
            [(key, str(row["value"]), str(row["origin"])) for key, row in sorted(rows.items())],
        )


def _state_origin(ctx: click.Context, env: dict[str, str]) -> str:
    if ctx.find_root().obj:
        return "flag"
    for name in ("RUNNER_STATE_DIR", "XDG_STATE_HOME"):
        if env.get(name):
            return f"environment {name}"
    return "default"
