#!/bin/sh
# What `make run` does: a whole round of local mode in a state directory of its own, with nothing left behind.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
RUNNER_STATE_DIR=$(mktemp -d "${TMPDIR:-/tmp}/runner-run.XXXXXX")
export RUNNER_STATE_DIR

finish() {
    code=$?
    trap - EXIT
    runner local stop || [ $? -eq 3 ] || code=1
    rm -rf "$RUNNER_STATE_DIR"
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT TERM

# Port 0 takes a free one, so that this works beside an instance that is already running.
runner local start --no-input --listen 127.0.0.1:0
runner jobs submit --file "$here/hello.yaml" --follow
