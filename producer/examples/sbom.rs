//! Writes what the programs are made of, as CycloneDX 1.6 JSON: every crate that `producer` and `worker` are built with,
//! with licence and checksum, and who needs whom. Reads `cargo metadata` and `Cargo.lock`: `make dist`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Error;
use std::process::Command;

use serde_json::{Value, json};

/// What is shipped.
const PROGRAMS: [&str; 2] = ["paceline-producer", "paceline-worker"];

fn main() -> Result<(), Error> {
    let mut arguments = std::env::args_os().skip(1);
    let target = arguments
        .next()
        .ok_or_else(|| Error::other("name the file"))?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let asked = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(["--filter-platform", &platform()?])
        .output()?;
    if !asked.status.success() {
        let why = String::from_utf8_lossy(&asked.stderr).into_owned();
        return Err(Error::other(why));
    }
    let metadata: Value = serde_json::from_slice(&asked.stdout)?;
    let root = metadata["workspace_root"].as_str().unwrap_or(".");
    let lock = std::fs::read_to_string(format!("{root}/Cargo.lock"))?;
    let bill = bill(&metadata, &checksums(&lock));
    let text = serde_json::to_string_pretty(&bill)? + "\n";
    std::fs::write(target, text)
}

/// What the programs are built for: this machine.
fn platform() -> Result<String, Error> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = Command::new(rustc).arg("-vV").output()?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned)
        .ok_or_else(|| Error::other("rustc does not name its host"))
}

/// The checksums of `Cargo.lock` by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let field = |entry: &str, name: &str| {
        let rest = entry
            .lines()
            .find_map(|l| l.strip_prefix(name)?.strip_prefix(" = \""))?;
        Some(rest.trim_end_matches('"').to_owned())
    };
    let entries = lock.split("[[package]]");
    let read = |entry: &str| {
        let key = (field(entry, "name")?, field(entry, "version")?);
        Some((key, field(entry, "checksum")?))
    };
    entries.filter_map(read).collect()
}

/// The bill of materials of what `cargo metadata` describes.
fn bill(metadata: &Value, checksums: &BTreeMap<(String, String), String>) -> Value {
    let packages = by_id(&metadata["packages"]);
    let needs: BTreeMap<&str, Vec<&str>> = by_id(&metadata["resolve"]["nodes"])
        .into_iter()
        .map(|(id, node)| (id, needed(node)))
        .collect();
    let name = |id: &&str| {
        packages
            .get(*id)
            .and_then(|package| package["name"].as_str())
    };
    let programs = packages
        .keys()
        .filter(|id| name(id).is_some_and(|n| PROGRAMS.contains(&n)));
    let programs: Vec<&str> = programs.copied().collect();
    let shipped = reachable(&programs, &needs);
    let component = |id: &&str| component(packages.get(*id)?, checksums);
    let version = programs
        .first()
        .and_then(|id| packages[id]["version"].as_str());
    json!({
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "metadata": { "component": {
            "type": "application", "name": "paceline", "version": version, "bom-ref": "paceline",
        }},
        "components": shipped.iter().filter_map(component).collect::<Vec<Value>>(),
        "dependencies": dependencies(&programs, &shipped, &needs, &packages),
    })
}

fn by_id(list: &Value) -> BTreeMap<&str, &Value> {
    let all = list.as_array().into_iter().flatten();
    all.filter_map(|one| Some((one["id"].as_str()?, one)))
        .collect()
}

/// What a package is built with, tests and build scripts left out.
fn needed(node: &Value) -> Vec<&str> {
    let all = node["deps"].as_array().into_iter().flatten();
    let normal = |dep: &&Value| {
        let kinds = dep["dep_kinds"].as_array();
        kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()))
    };
    all.filter(normal)
        .filter_map(|dep| dep["pkg"].as_str())
        .collect()
}

fn reachable<'m>(from: &[&'m str], needs: &BTreeMap<&'m str, Vec<&'m str>>) -> BTreeSet<&'m str> {
    let mut found = BTreeSet::new();
    let mut open = from.to_vec();
    while let Some(id) = open.pop() {
        if found.insert(id) {
            open.extend(needs.get(id).into_iter().flatten());
        }
    }
    found
}

fn purl(package: &Value) -> Option<String> {
    let (name, version) = (package["name"].as_str()?, package["version"].as_str()?);
    Some(format!("pkg:cargo/{name}@{}", version.replace('+', "%2B")))
}

fn component(package: &Value, checksums: &BTreeMap<(String, String), String>) -> Option<Value> {
    let (name, version) = (package["name"].as_str()?, package["version"].as_str()?);
    let purl = purl(package)?;
    let mut component = json!({
        "type": "library", "name": name, "version": version, "bom-ref": purl, "purl": purl,
    });
    if let Some(licence) = package["license"].as_str() {
        // Some still write what SPDX writes as OR.
        component["licenses"] = json!([{ "expression": licence.replace('/', " OR ") }]);
    }
    if let Some(sum) = checksums.get(&(name.to_owned(), version.to_owned())) {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": sum }]);
    }
    Some(component)
}

fn dependencies(
    programs: &[&str],
    shipped: &BTreeSet<&str>,
    needs: &BTreeMap<&str, Vec<&str>>,
    packages: &BTreeMap<&str, &Value>,
) -> Vec<Value> {
    let reference = |id: &&str| purl(packages.get(*id)?);
    let whole = programs
        .iter()
        .filter_map(reference)
        .collect::<BTreeSet<_>>();
    let mut all = vec![json!({ "ref": "paceline", "dependsOn": whole })];
    all.extend(shipped.iter().filter_map(|id| {
        let on: BTreeSet<String> = needs.get(id)?.iter().filter_map(reference).collect();
        Some(json!({ "ref": reference(id)?, "dependsOn": on }))
    }));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_shipped_is_in_the_bill() {
        let package = |name: &str| json!({ "id": name, "name": name, "version": "1.0.0+a", "license": "MIT/Apache-2.0" });
        let dep = |name: &str, kind: Value| json!({ "pkg": name, "dep_kinds": [{ "kind": kind }] });
        let packages = [
            "paceline-worker",
            "used",
            "deeper",
            "tests-only",
            "elsewhere",
        ]
        .map(package);
        let metadata = json!({
            "packages": packages,
            "resolve": { "nodes": [
                { "id": "paceline-worker", "deps": [dep("used", Value::Null), dep("tests-only", json!("dev"))] },
                { "id": "used", "deps": [dep("deeper", Value::Null)] },
                { "id": "deeper", "deps": [] },
                { "id": "elsewhere", "deps": [] },
            ]},
        });
        let lock = "[[package]]\nname = \"used\"\nversion = \"1.0.0+a\"\nchecksum = \"ab\"\n";
        let bill = bill(&metadata, &checksums(lock));
        let components = bill["components"].as_array().expect("a list");
        let names: Vec<&str> = components
            .iter()
            .filter_map(|c| c["name"].as_str())
            .collect();
        assert_eq!(names, ["deeper", "paceline-worker", "used"]);
        assert_eq!(components[2]["hashes"][0]["content"], "ab");
        assert_eq!(components[2]["purl"], "pkg:cargo/used@1.0.0%2Ba");
        assert_eq!(
            components[2]["licenses"][0]["expression"],
            "MIT OR Apache-2.0"
        );
        let whole = &bill["dependencies"][0];
        assert_eq!(
            whole["dependsOn"],
            json!(["pkg:cargo/paceline-worker@1.0.0%2Ba"])
        );
    }
}
