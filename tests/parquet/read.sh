#!/bin/sh
# Prints the rows of all Parquet files of a folder as pyarrow reads them, after DuckDB has read the same. Both
# are installed into a folder of their own; where that cannot be done it ends with 77 and says why.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
libraries="${CARGO_TARGET_DIR:-$here/../../target}/parquet-readers"
command -v python3 >/dev/null || { echo "there is no python3" >&2; exit 77; }
if ! PYTHONPATH="$libraries" python3 -c 'import pyarrow, duckdb' 2>/dev/null; then
    python3 -m pip install --quiet --target "$libraries" pyarrow duckdb >&2 ||
        { echo "pyarrow and duckdb cannot be installed" >&2; exit 77; }
fi
PYTHONPATH="$libraries" exec python3 "$here/read.py" "$1"
