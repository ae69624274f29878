#!/bin/sh
# Would log in and install; here it shows that everything that it needs is there.
set -eu
: "${DEPLOY_HOST:?}" "${DEPLOY_USER:?}" "${DB_PASSWORD:?}" "${JWT_SECRET:?}"
echo "deploying to $DEPLOY_USER@$DEPLOY_HOST with $DB_PASSWORD and $JWT_SECRET"
