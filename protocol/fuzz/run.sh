#!/bin/sh
# Runs the fuzz targets, each for SECONDS (60), one after the other. FUZZ="json xml" runs those alone.
# What breaks one lies in target/fuzz/found afterwards; see README.md for what comes then.
set -eu
cd "$(dirname "$0")"
: "${SECONDS_EACH:=60}" "${FUZZ:=$(sed -n 's/^name = "\([a-z]*\)"$/\1/p' Cargo.toml)}"
target=$(cd ../.. && pwd)/target/fuzz
host=$(rustc -vV | sed -n 's/^host: //p')

# What cargo-fuzz sets for `-s none`; with --target they concern neither build scripts nor macros.
flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
flags="$flags -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
flags="$flags -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing"
RUSTFLAGS="$flags" cargo build --locked --bins --target "$host" --target-dir "$target"

failed=""
for name in $FUZZ; do
	mkdir -p "$target/corpus/$name" "$target/found"
	seeds="seeds/$name"
	[ "$name" != spec ] || seeds="$seeds ../../deploy/spec/jobs ../../deploy/spec/providers"
	echo "== $name: $SECONDS_EACH s"
	if ! "$target/$host/debug/$name" -max_total_time="$SECONDS_EACH" -timeout=20 -rss_limit_mb=2048 -max_len=8192 \
		-print_final_stats=1 -verbosity=0 -artifact_prefix="$target/found/$name-" \
		"$target/corpus/$name" $seeds; then
		failed="$failed $name"
	fi
done
[ -z "$failed" ] || { echo "broken:$failed; inputs in $target/found" >&2; exit 1; }
