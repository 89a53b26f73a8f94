#!/bin/sh
# Prints the path of axe, the accessibility checks that run inside a page. It comes from npm into a folder of its own;
# where that cannot be done this ends with 77 and says why.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder="${CARGO_TARGET_DIR:-$here/../../target}/axe"
if ! [ -s "$folder/package/axe.min.js" ]; then
    command -v npm >/dev/null || { echo "there is no npm" >&2; exit 77; }
    mkdir -p "$folder"
    cd "$folder"
    npm pack --silent axe-core@4 >/dev/null || { echo "axe-core cannot be fetched" >&2; exit 77; }
    tar -xzf axe-core-*.tgz package/axe.min.js
fi
echo "$folder/package/axe.min.js"
