#!/bin/sh
# Installs what the demo and the tests need on Debian 12 and is missing: RabbitMQ, Redis, Java, Maven,
# Elasticsearch. Quick when nothing is missing. Starts no service, and leaves running ones alone.
set -eu

ELASTICSEARCH=8.19.8
POLICY=/usr/sbin/policy-rc.d
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

missing_packages() {
  [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || echo rabbitmq-server
  have redis-server || echo redis-server
  have java || echo openjdk-17-jre-headless
  have cc || echo build-essential
  have cmake || echo cmake # for aws-lc, the TLS of every client here
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
  [ -e "$POLICY" ] || {
    trap lift_policy EXIT
    trap 'exit 130' INT TERM
    policy=ours
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$POLICY" >/dev/null
    as_root chmod 755 "$POLICY"
  }
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
  mkdir -p "$cache"
  work=$(mktemp -d "$cache/unpack.XXXXXX")
  mvn -q -B dependency:get -Dtransitive=false -Dartifact="$coordinates" >&2 ||
    fail "Maven could not fetch $coordinates"
  mvn -q -B dependency:copy -Dartifact="$coordinates" -DoutputDirectory="$work" \
    -Dmdep.useBaseVersion=true >&2 || fail "Maven could not copy $coordinates"
  unzip -q "$work"/elasticsearch-*.zip -d "$work"
  # Another account must be able to read it: Elasticsearch does not run as root.
  chmod -R a+rX "$work/elasticsearch-$ELASTICSEARCH" "$cache"
  mv "$work/elasticsearch-$ELASTICSEARCH" "$elasticsearch"
  rm -rf "$work"
}

if [ "$(id -u)" = 0 ]; then
  cache=/var/cache/paceline
else
  cache="${XDG_CACHE_HOME:-$HOME/.cache}/paceline"
fi
elasticsearch="${PACELINE_ELASTICSEARCH_HOME:-$cache/elasticsearch-$ELASTICSEARCH}"

have cargo || fail "Rust is missing: https://rustup.rs"
packages=$(missing_packages)
# shellcheck disable=SC2086 # one word for each package
[ -z "$packages" ] || install_packages $packages
[ -x "$elasticsearch/bin/elasticsearch" ] || install_elasticsearch
