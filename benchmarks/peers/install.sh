#!/bin/sh
# Installs what `make bench-peers` measures against: install.sh PYTHON FOLDER.
# What cannot be installed is missing in the table, so nothing here ends the run.
python=$1
folder=$2
here=$(dirname "$0")
mkdir -p "$folder" || exit 1

[ -x "$folder/venv/bin/python" ] || "$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --requirement "$here/requirements.txt" ||
	echo "bench-peers: huey, celery, procrastinate and supervisor cannot be installed" >&2

if [ ! -x "$folder/node_modules/.bin/pm2" ]; then
	if command -v npm >/dev/null; then
		npm install --silent --no-audit --no-fund --prefix "$folder" pm2@6.0.14 ||
			echo "bench-peers: pm2 cannot be installed" >&2
	else
		echo "bench-peers: pm2 needs node and npm" >&2
	fi
fi

missing=
command -v redis-server >/dev/null || missing=redis-server
for postgres in "$(command -v postgres)" /usr/lib/postgresql/*/bin/postgres; do
	[ -x "$postgres" ] && break
done
[ -x "$postgres" ] || missing="$missing postgresql"
[ -z "$missing" ] && exit 0
# Where systemd runs, these packages start services of their own: that is for whoever owns the host to decide.
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && [ ! -d /run/systemd/system ]; then
	# shellcheck disable=SC2086 # two words, if two are missing
	apt-get install --quiet --quiet --yes --no-install-recommends $missing >/dev/null ||
		echo "bench-peers: cannot be installed: $missing" >&2
else
	echo "bench-peers: to be installed by hand: apt-get install $missing" >&2
fi
exit 0
