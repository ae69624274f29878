"""``runnerlib secret add``: hides what comes on standard input in the log of the job."""

from __future__ import annotations

import argparse
import sys

from runnerlib.mask import NotMaskedError, add_secret

MAX_VALUE_BYTES = 1 << 20


def main() -> int:
    """Run one command; return its exit code: 0, 1 if the value is not hidden, 2 for a wrong usage."""
    parser = argparse.ArgumentParser(prog="runnerlib")
    commands = parser.add_subparsers(dest="command", required=True)
    secret = commands.add_parser("secret", help="secrets of this job")
    actions = secret.add_subparsers(dest="action", required=True)
    add = actions.add_parser(
        "add",
        help="hide a value in the log from now on",
        epilog='Example: printf %%s "$TOKEN" | runnerlib secret add',
    )
    add.add_argument("--raw", action="store_true", help="keep a line end at the end of the value")
    asked = parser.parse_args()
    value = sys.stdin.buffer.read(MAX_VALUE_BYTES)
    if not asked.raw:
        value = (
            value[:-2] if value.endswith(b"\r\n") else value[: len(value) - value.endswith(b"\n")]
        )
    try:
        add_secret(value)
    except NotMaskedError as error:
        sys.stderr.write(f"runnerlib: the value is not masked: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
