#!/bin/sh
# JupyterLab on copies of the runbooks, so that saving never dirties the sources: lab.sh BIN FOLDER [OPTION...]
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
bin=$(cd "$1" && pwd) folder=$2
shift 2

mkdir -p "$folder"
# what a user has edited there stays; some versions of cp call that a failure
cp -n "$here"/notebooks/*.ipynb "$folder"/ || true
cp -rn "$here"/parameters "$folder"/ || true
cd "$folder"
[ "$(id -u)" != 0 ] || set -- --allow-root "$@"
exec "$bin/jupyter" lab "$@"
