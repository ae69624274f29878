#!/bin/sh
# Would install packages with the token; here it shows that the token is there, and that the log does not show it.
set -eu
echo "building for $NODE_ENV with a token of ${#NPM_TOKEN} characters: $NPM_TOKEN"
mkdir -p dist
cp VERSION dist/
