#!/bin/sh
# Asks the API at the URL `$1` everything that its OpenAPI document allows, and much that it does not, with the token
# `$2`; what comes back has to be what the document says. schemathesis is installed into a folder of its own; where that
# cannot be done this ends with 77 and says why. The same examples each time: the seed is fixed.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
tools="${CARGO_TARGET_DIR:-$here/../../target}/schemathesis"
command -v python3 >/dev/null || { echo "there is no python3" >&2; exit 77; }
if ! PYTHONPATH="$tools" python3 -c 'import schemathesis' 2>/dev/null; then
    python3 -m pip install --quiet --target "$tools" 'schemathesis==4.*' >&2 ||
        { echo "schemathesis cannot be installed" >&2; exit 77; }
fi
# Where it keeps what it found.
cd "$(mktemp -d)"
# The stream of events never ends: it has tests of its own.
PYTHONPATH="$tools" exec python3 "$tools/bin/schemathesis" --config-file "$here/schemathesis.toml" run "$1/api/v1/openapi.json" --url "$1" \
    --header "Authorization: Bearer $2" --exclude-path /api/v1/events \
    --phases examples,coverage,fuzzing --max-examples 8 --seed 1 --generation-deterministic \
    --request-timeout 20 --no-color
