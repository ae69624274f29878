#!/bin/sh
# Would push to a registry; then asks for the deploy of what was pushed, which needs no secret of its own.
set -eu
echo "pushing app:$IMAGE_TAG as ci with $REGISTRY_PASSWORD"
runnerlib trigger deploy --env DEPLOY_TARGET=staging --env IMAGE_TAG="$IMAGE_TAG" --depends-on multi-stage
