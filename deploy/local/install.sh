#!/bin/sh
# Installs what the demo and the tests need on Debian 12 and is missing: make, a C compiler, RabbitMQ, Redis,
# Java, Elasticsearch (and Maven to fetch it), Prometheus, rustfmt and clippy. Quick when nothing is missing. Starts no
# service, and leaves running ones alone.
set -eu

ELASTICSEARCH=8.19.8
POLICY=/usr/sbin/policy-rc.d
POLICY_MARK='# paceline: no service starts while its packages are installed'
policy= # `ours` while the file is there and from us

say() { printf 'install: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif have sudo; then
    sudo "$@"
  else
    fail "this needs root, and there is no sudo; as root run: $0"
  fi
}

# The major version of the Java in the path; nothing without one.
java_version() {
  java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1
}

has_java() {
  [ -n "${ES_JAVA_HOME:-}" ] || { have java && [ "$(java_version)" -ge 17 ] 2>/dev/null; }
}

missing_packages() {
  have make || echo make
  # Rust's linker, and the compiler of aws-lc (the TLS of every client here) and zstd.
  have cc || echo gcc libc6-dev
  [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || echo rabbitmq-server
  have redis-server || echo redis-server
  has_java || echo openjdk-17-jre-headless
  # Only the download of Elasticsearch needs these two.
  [ -x "$elasticsearch/bin/elasticsearch" ] || {
    have mvn || echo maven
    have unzip || echo unzip
  }
}

# Packages would start their services at once: a policy for the time of the installation forbids it.
install_packages() {
  have apt-get || fail "not a Debian system; install these yourself: $*"
  say "installing $*"
  # One that is not from us stays. One from us was left by an installation that was killed.
  if ! [ -e "$POLICY" ] || grep -qs "$POLICY_MARK" "$POLICY"; then
    trap lift_policy EXIT
    trap 'exit 130' INT TERM
    policy=ours
    printf '#!/bin/sh\n%s\nexit 101\n' "$POLICY_MARK" | as_root tee "$POLICY" >/dev/null
    as_root chmod 755 "$POLICY"
  fi
  log=$(mktemp)
  {
    as_root apt-get -qq -o Acquire::Retries=3 update &&
      as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -y --no-install-recommends install "$@"
  } >"$log" 2>&1 || { tail -n 20 "$log" >&2; fail "apt-get failed; all it said is in $log"; }
  rm -f "$log"
  lift_policy
}

lift_policy() {
  [ -z "$policy" ] || as_root rm -f "$POLICY"
  policy=
}

# The distribution that Elasticsearch publishes for integration tests, by its Maven coordinates.
install_elasticsearch() {
  coordinates="org.elasticsearch.distribution.integ-test-zip:elasticsearch:$ELASTICSEARCH:zip"
  say "fetching Elasticsearch $ELASTICSEARCH (100 MB, once)"
  mkdir -p "$cache" "$(dirname "$elasticsearch")"
  work=$(mktemp -d "$cache/unpack.XXXXXX")
  mvn -q -B dependency:get -Dtransitive=false -Dartifact="$coordinates" >&2 ||
    fail "Maven could not fetch $coordinates"
  mvn -q -B dependency:copy -Dartifact="$coordinates" -DoutputDirectory="$work" \
    -Dmdep.useBaseVersion=true >&2 || fail "Maven could not copy $coordinates"
  unzip -q "$work"/elasticsearch-*.zip -d "$work"
  # Another account must be able to read it: Elasticsearch does not run as root.
  chmod -R a+rX "$work/elasticsearch-$ELASTICSEARCH"
  chmod a+rx "$cache"
  # In one step, so that a half-unpacked one never counts. It may be refused: another installation was first.
  mv -T "$work/elasticsearch-$ELASTICSEARCH" "$elasticsearch" ||
    [ -x "$elasticsearch/bin/elasticsearch" ] || fail "cannot put Elasticsearch into $elasticsearch"
  rm -rf "$work"
}

# Prometheus and promtool out of Debian's package, without installing it: no service, no user, no other files.
install_prometheus() {
  have apt-get || fail "not a Debian system; put prometheus and promtool into the path yourself"
  say "fetching Prometheus (20 MB, once)"
  mkdir -p "$cache"
  chmod a+rx "$cache"
  work=$(mktemp -d "$cache/unpack.XXXXXX")
  log=$(mktemp)
  {
    (cd "$work" && apt-get -qq download prometheus) ||
      { as_root apt-get -qq -o Acquire::Retries=3 update && (cd "$work" && apt-get -qq download prometheus); }
  } >"$log" 2>&1 || { tail -n 20 "$log" >&2; fail "apt-get could not download prometheus; all it said is in $log"; }
  rm -f "$log"
  dpkg -x "$work"/prometheus_*.deb "$work/unpacked"
  mv -T "$work/unpacked/usr/bin" "$prometheus" || [ -x "$prometheus/promtool" ] || fail "cannot put Prometheus into $prometheus"
  rm -rf "$work"
}

# What `make fmt` and `make clippy` need and a minimal Rust lacks.
install_components() {
  have rustup || return 0
  cargo fmt --version >/dev/null 2>&1 || rustup --quiet component add rustfmt
  cargo clippy --version >/dev/null 2>&1 || rustup --quiet component add clippy
}

if [ "$(id -u)" = 0 ]; then
  cache=/var/cache/paceline
else
  cache="${XDG_CACHE_HOME:-$HOME/.cache}/paceline"
fi
elasticsearch="${PACELINE_ELASTICSEARCH_HOME:-$cache/elasticsearch-$ELASTICSEARCH}"
prometheus="$cache/prometheus"

have cargo || fail "Rust is missing: https://rustup.rs"
packages=$(missing_packages)
# shellcheck disable=SC2086 # one word for each package
[ -z "$packages" ] || install_packages $packages
[ -x "$elasticsearch/bin/elasticsearch" ] || install_elasticsearch
have promtool && have prometheus || [ -x "$prometheus/promtool" ] || install_prometheus
install_components
