#!/bin/sh
set -eu
mkdir -p dist
cp VERSION dist/
echo "built $(cat dist/VERSION)"
