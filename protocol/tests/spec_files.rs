//! The example files read without a fault, and every wrong file of `wrong/` says what is expected beside it.
#![allow(missing_docs)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use paceline_protocol::spec::{
    Diagnostic, DimensionValues, KeepScore, LimitRule, LoadError, SpecFolder, Wait, not_built,
};

fn examples() -> SpecFolder {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/spec");
    SpecFolder::open(&dir).expect("the example files are beside this package")
}

fn shown(found: &[Diagnostic]) -> String {
    found.iter().map(|d| format!("{d}\n")).collect()
}

#[test]
fn every_example_reads_without_a_fault() {
    let mut found = examples().check(&[], None).expect("readable");
    found.retain(Diagnostic::is_error);
    assert!(found.is_empty(), "{}", shown(&found));
}

#[test]
fn every_job_loads_with_its_providers() {
    let folder = examples();
    for name in folder.job_names() {
        let loaded = folder.job(name).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        assert_eq!(loaded.job.name, name);
    }
    assert_eq!(folder.job_names().len(), 10);
    let markets: Vec<String> = folder
        .job("orders")
        .expect("loads")
        .providers
        .into_keys()
        .collect();
    assert_eq!(markets, ["coupang", "eleven-street", "naver-commerce"]);
    let engines: Vec<String> = folder
        .job("search")
        .expect("loads")
        .providers
        .into_keys()
        .collect();
    assert_eq!(engines, ["kakao", "naver"]);
}

#[test]
fn the_fare_calendar_says_what_it_says() {
    let fares = examples().job("fares").expect("loads");
    assert_eq!(not_built(&fares), []);
    assert_eq!(
        (fares.job.shard.cells, fares.job.shard.checkpoint),
        (140, 20)
    );
    assert_eq!(
        fares.job.split["nights"].values,
        DimensionValues::Range { first: 1, last: 14 }
    );
    assert_eq!(fares.job.outputs.rankings[0].keep, KeepScore::Min);
    assert_eq!(fares.job.outputs.index.as_ref().map(|i| i.keep), Some(3));
    let provider = &fares.providers["fare-search"];
    assert!(
        matches!(&provider.limits[1].rule, LimitRule::Quota { calls: 25_000, resets_at: 0, zone, .. } if zone == "Asia/Seoul")
    );
    assert!(matches!(
        provider.outcomes[1].wait,
        Some(Wait::From { fallback: None, .. })
    ));
    assert_eq!(provider.retry.from.0, Duration::from_millis(500));
    let fields: Vec<&String> = provider.endpoints["fares"].fields.keys().collect();
    assert_eq!(fields, ["carrier", "price", "currency", "departs_at"]);
}

#[test]
fn a_job_is_found_by_its_path_too() {
    let folder = examples();
    let path = folder.dir().join("jobs/fares.yaml").display().to_string();
    assert_eq!(folder.job(&path).expect("loads").job.name, "fares");
    let error = folder.job("fare").expect_err("no such job").to_string();
    assert!(error.contains("did you mean `fares`?"), "{error}");
}

#[test]
fn what_is_not_built_yet_is_named_with_its_place() {
    let mut loaded = examples().job("reviews").expect("loads");
    assert_eq!(not_built(&loaded), []);
    let portal = loaded.providers.get_mut("seller-portal").expect("loaded");
    portal.credentials = None;
    let found = not_built(&loaded);
    let has = |file: &str, text: &str| {
        found
            .iter()
            .any(|d| d.file.ends_with(file) && d.message.contains(text) && d.line > 1)
    };
    assert!(has("seller-portal.yaml", "log-in"), "{}", shown(&found));
}

#[test]
fn names_that_the_environment_lacks_are_warned_of() {
    let env = std::collections::BTreeMap::from([(
        "FARE_SEARCH_URL".to_owned(),
        "http://localhost".to_owned(),
    )]);
    let provider = examples().dir().join("providers/fare-search.yaml");
    let found = examples().check(&[provider], Some(&env)).expect("readable");
    assert_eq!(found.len(), 1, "{}", shown(&found));
    assert!(found[0].message.contains("FARE_SEARCH_KEYS") && !found[0].is_error());
}

const JOB: &str =
    "job: j\nprovider: broken\nendpoint: e\nsplit: {d: [1]}\noutputs: {s3: {format: ndjson}}\n";

/// Of a provider's file that is wrong the job says so; it does not say that there is none.
#[test]
fn a_job_names_the_wrong_file_of_its_provider() {
    // Too wrong to be a provider, and no YAML at all.
    for provider in [
        "provider: broken # mine\nlimits: 7\n",
        "provider: \"broken\"\nlimits: [{\n",
    ] {
        let files = [
            ("jobs/j.yaml", JOB),
            ("providers/other-name.yaml", provider),
        ];
        let folder = SpecFolder::of_texts(Path::new("spec"), files);
        let found = folder.check(&[], None).expect("nothing is listed");
        let of_job: Vec<_> = found
            .iter()
            .filter(|d| d.file.ends_with("j.yaml"))
            .collect();
        assert_eq!(of_job.len(), 1, "{}", shown(&found));
        let message = &of_job[0].message;
        assert!(
            message.contains("is wrong: spec/providers/other-name.yaml"),
            "{message}"
        );
        assert!(
            found.len() > 1,
            "what is wrong there is said: {}",
            shown(&found)
        );
        let error = folder.job("j").expect_err("its provider is wrong");
        let LoadError::Wrong(all) = error else {
            panic!("{error}");
        };
        assert!(all.iter().any(|d| d.file.ends_with("other-name.yaml")));
    }
    let folder = SpecFolder::of_texts(Path::new("spec"), [("jobs/j.yaml", JOB)]);
    let found = folder.check(&[], None).expect("nothing is listed");
    assert!(shown(&found).contains("no provider `broken`"));
}

#[test]
fn jobs_in_a_circle_are_refused() {
    let after = "job: NAME\nprovider: p\nendpoint: e\nafter: OTHER\nsplit: {d: [1]}\noutputs: {s3: {format: ndjson}}\n";
    let reading = "job: NAME\nsource: {records_of: {job: OTHER}}\nfields: {a: \"{{ a }}\"}\noutputs: {s3: {format: ndjson}}\n";
    for (text, says) in [
        (after, "would start the next one"),
        (reading, "reads the records of"),
    ] {
        let job = |name: &str, other: &str| text.replace("NAME", name).replace("OTHER", other);
        let jobs = [job("one", "two"), job("two", "three"), job("three", "two")];
        let files = [
            ("jobs/one.yaml", jobs[0].as_str()),
            ("jobs/two.yaml", jobs[1].as_str()),
            ("jobs/three.yaml", jobs[2].as_str()),
            (
                "providers/p.yaml",
                "provider: p\nbase_url: \"https://a.test\"\nendpoints: {e: {get: /x, records: \"$[*]\", fields: {a: $.a}}}\n",
            ),
        ];
        let folder = SpecFolder::of_texts(Path::new("spec"), files);
        let found = shown(&folder.check(&[], None).expect("nothing is listed"));
        assert!(
            found.contains(&format!("two.yaml:{}", line_of(text))),
            "{found}"
        );
        assert!(found.contains("two -> three -> two"), "{found}");
        assert!(found.contains(says), "{found}");
        assert!(
            !found.contains("one.yaml"),
            "it is in no circle itself: {found}"
        );
    }
}

/// The line of a text that names the other job.
fn line_of(text: &str) -> usize {
    let place = text.lines().position(|line| line.contains("OTHER"));
    place.expect("it does") + 1
}

#[test]
fn a_key_that_stands_twice_in_a_pool_is_warned_of() {
    let env = |keys: &str| {
        std::collections::BTreeMap::from([
            ("FARE_SEARCH_URL".to_owned(), "http://localhost".to_owned()),
            ("FARE_SEARCH_KEYS".to_owned(), keys.to_owned()),
        ])
    };
    let provider = examples().dir().join("providers/fare-search.yaml");
    let said = |keys: &str| {
        let found = examples().check(std::slice::from_ref(&provider), Some(&env(keys)));
        shown(&found.expect("readable"))
    };
    assert_eq!(said("secret-a,secret-b"), "");
    let twice = said("secret-a,secret-b,secret-a");
    assert!(
        twice.contains("1 of the keys in FARE_SEARCH_KEYS"),
        "{twice}"
    );
    assert!(!twice.contains("secret-a"), "{twice}");
}

/// Set to rewrite the expected texts; read the difference before it is committed.
const REWRITE: &str = "UPDATE";

fn wrong_files() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wrong");
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .expect("the folder is there")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    files
}

/// What `check` says of one file, with the folder's name taken out.
fn said_of(folder: &SpecFolder, path: &Path) -> String {
    let found = folder.check(&[path.to_owned()], None).expect("readable");
    let beside = format!("{}/", path.parent().expect("in a folder").display());
    let examples = format!("{}/", folder.dir().display());
    shown(&found)
        .replace(&beside, "")
        .replace(&examples, "")
        .replace(beside.trim_end_matches('/'), "here")
}

#[test]
fn every_wrong_file_says_what_is_wrong_and_what_would_be_right() {
    let folder = examples();
    let mut differences = String::new();
    for path in wrong_files() {
        let said = said_of(&folder, &path);
        let expected_in = path.with_extension("txt");
        if std::env::var_os(REWRITE).is_some() {
            std::fs::write(&expected_in, &said).expect("writable");
        }
        let expected = std::fs::read_to_string(&expected_in).unwrap_or_default();
        if said != expected || !said.contains("hint:") {
            differences += &format!(
                "--- {}\nexpected:\n{expected}said:\n{said}\n",
                path.display()
            );
        }
    }
    assert!(differences.is_empty(), "{differences}");
    assert!(wrong_files().len() >= 40, "a wrong file was lost");
}

#[test]
fn a_job_is_checked_with_its_providers_and_their_names_with_the_job() {
    let provider = r#"provider: signs
base_url: http://localhost:1
credentials: {from_env: SIGNS_KEYS, fields: [key]}
auth:
  - {sign: hmac_sha256_hex, key: "{{ credential.key }}", message: "{{ request.methodd }}{{ request.path }}", header: x-sign, value: "{{ signature }}"}
limits: [{name: s, rate: 1/s}]
endpoints: {e: {get: /e, records: $.r, fields: {id: $.id}}}
"#;
    let job = "job: x\nprovider: signs\nendpoint: e\nsplit: {n: [1]}\noutputs: {s3: {}}\n";
    let said = |provider: &str| {
        let dir = tempfile::tempdir().expect("a folder");
        for (name, text) in [("jobs/x.yaml", job), ("providers/signs.yaml", provider)] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
            std::fs::write(path, text).expect("writable");
        }
        let folder = SpecFolder::open(dir.path()).expect("readable");
        let found = folder.check(&[dir.path().join("jobs/x.yaml")], None);
        shown(&found.expect("readable"))
    };
    let named = said(provider);
    assert!(named.contains("nothing gives `request.methodd`"), "{named}");
    assert!(named.contains("did you mean `request.method`?"), "{named}");
    let right = provider.replace("methodd", "method");
    assert_eq!(said(&right), "");
    let wrong = said(&right.replace("rate: 1/s", "rato: 1/s"));
    assert!(wrong.contains("providers/signs.yaml:6"), "{wrong}");
}
