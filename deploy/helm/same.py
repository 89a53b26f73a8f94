"""Renders the Helm chart and demands what kustomize renders: RENDERED_BASE RENDERED_PRODUCTION CHART OUT. The ConfigMaps of the
spec folder and kustomize's hashes in names are left out."""
import re
import sys

import yaml
from helm_python.chart import Chart


def objects(text):
    found = {}
    for one in yaml.safe_load_all(text):
        if one:
            found[one["kind"], plain(one["metadata"]["name"])] = cleaned(one)
    return found


def plain(name):
    return re.sub(r"-[a-z0-9]{10}$", "", name)


def cleaned(value):
    if isinstance(value, dict):
        left = {k: cleaned(v) for k, v in value.items() if k not in ("app.kubernetes.io/part-of", "namespace")}
        return {k: v for k, v in left.items() if v not in ({}, None)}
    if isinstance(value, list):
        return [cleaned(v) for v in value]
    return plain(value) if isinstance(value, str) and value.startswith("paceline-") else value


def rendered(chart, values):
    return "\n---\n".join(chart.render(values, name="paceline", namespace="paceline").values())


def main(base, production, folder, out):
    chart = Chart.load(folder)
    ours = rendered(chart, {})
    spec = {("ConfigMap", "paceline-jobs"), ("ConfigMap", "paceline-providers")}
    theirs = {k: v for k, v in objects(open(base, encoding="utf-8").read()).items() if k not in spec}
    wrong = compare(objects(ours), theirs)
    # With everything on: the objects of the production overlay's components are the same too.
    everything = rendered(chart, {
        "keda": {"enabled": True}, "podMonitor": {"enabled": True},
        "egress": [{"label": "static", "replicas": 1, "nodeSelector": {"network": "static"}}],
        "jobs": {"a.yaml": "job: a\n"}, "providers": {"p.yaml": "provider: p\n"},
    })
    full = objects(everything)
    watched = {k: v for k, v in objects(open(production, encoding="utf-8").read()).items() if k[0] in ("ScaledObject", "PodMonitor")}
    wrong += compare({k: v for k, v in full.items() if k in watched}, watched)
    for expected in [("Deployment", "collect-static"), ("ScaledObject", "collect-static"), *spec]:
        if expected not in full:
            wrong.append(f"{expected} is not rendered")
    if "replicas" in full["Deployment", "collect"]["spec"]:
        wrong.append("KEDA sets the number of collectors, the chart sets it too")
    with open(out, "w", encoding="utf-8") as file:
        file.write(everything)
    if wrong:
        sys.exit("\n".join(wrong))


def compare(ours, theirs):
    names = sorted(set(ours) | set(theirs))
    return [f"{name}: helm {ours.get(name)}\n  kustomize {theirs.get(name)}" for name in names if ours.get(name) != theirs.get(name)]


main(*sys.argv[1:])
