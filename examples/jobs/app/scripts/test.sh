#!/bin/sh
set -eu
test "$(cat dist/VERSION)" = "$(cat VERSION)"
echo "tests passed"
