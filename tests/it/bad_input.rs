//! Answers that no provider should give, in each format: each fails its own cell with a reason that names what is wrong, or is
//! read where it can be; the others never notice.

use std::collections::BTreeMap;
use std::time::Duration;

use harness::checker::{Collected, Outputs};
use harness::fleet::metrics_address;
use harness::{Bucket, Checker, Fleet};
use paceline_loadtest::providers::canned::{self, Answers};
use serde_json::Value;

const RUN: &str = "bad";
const PATIENCE: Duration = Duration::from_secs(180);

/// How a cell ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// With so many records.
    Read(u64),
    /// With this in the reason, after so many attempts.
    Fails(&'static str, u64),
}
use End::{Fails, Read};

/// A body that is the same for every call.
fn fixed(bytes: impl Into<Vec<u8>>) -> Answers {
    let bytes = bytes.into();
    Box::new(move |_, _| bytes.clone())
}

/// 한글 in EUC-KR, and what is neither that nor UTF-8.
const KOREAN: &[u8] = b"\xc7\xd1\xb1\xdb";
const BROKEN: &[u8] = b"\xc7\xff\xff";
const MARK: &str = "\u{feff}";

fn around(before: &str, middle: &[u8], after: &str) -> Vec<u8> {
    [before.as_bytes(), middle, after.as_bytes()].concat()
}

/// Provider, case, answer, end.
type Case = (&'static str, &'static str, Answers, End);

fn cases(elsewhere: &str) -> Vec<Case> {
    let xml = "<o><r><a>1</a></r></o>";
    let csv = "a,b\n1,2\n";
    let json = r#"{"data":[{"a":"1"}],"next":null}"#;
    let html = "<html><table><tr><td class=a>1</td></tr></table></html>";
    let elsewhere = format!(r#"{{"data":[{{"a":"1"}}],"next":"{elsewhere}/more"}}"#);
    vec![
        ("xml", "good", fixed(xml), Read(1)),
        ("xml", "mark", fixed(format!("{MARK}{xml}")), Read(1)),
        (
            "xml",
            "cut",
            fixed("<o><r><a>1</a></r><r><a>"),
            Fails("the body is not XML", 2),
        ),
        ("xml", "nothing", fixed(""), Fails("the body is not XML", 2)),
        (
            "xml",
            "page",
            fixed("<html><p>busy<br></html>"),
            Fails("the body is not XML", 2),
        ),
        ("xml", "json", fixed(json), Fails("the body is not XML", 2)),
        (
            "xml",
            "korean",
            fixed(around(
                "<?xml version='1.0' encoding='EUC-KR'?><o><r><a>",
                KOREAN,
                "</a></r></o>",
            )),
            Read(1),
        ),
        (
            "xml",
            "charset",
            fixed(around(
                "<?xml version='1.0' encoding='EUC-KR'?><o><r><a>",
                BROKEN,
                "</a></r></o>",
            )),
            Fails("it is not EUC-KR", 2),
        ),
        ("csv", "good", fixed(csv), Read(1)),
        ("csv", "mark", fixed(format!("{MARK}{csv}")), Read(1)),
        (
            "csv",
            "few",
            fixed("a,b\n1,2\n3\n"),
            Fails("line 3 has 1 columns, the header 2", 2),
        ),
        (
            "csv",
            "double",
            fixed("a,b,a\n1,2,3\n"),
            Fails("two columns are called `a`", 2),
        ),
        (
            "csv",
            "cut",
            fixed("a,b\n1,\"2"),
            Fails("a quote is never closed", 2),
        ),
        (
            "csv",
            "charset",
            fixed(around("a,b\n1,", KOREAN, "\n")),
            Fails("it is not UTF-8", 2),
        ),
        ("csv", "header", fixed("a,b\n"), Read(0)),
        ("csv", "nothing", fixed(""), Fails("no header row", 2)),
        ("csv", "other", fixed("x,b\n1,2\n"), Fails("field a", 1)),
        (
            "ndjson",
            "good",
            fixed("{\"a\":\"1\"}\n{\"a\":\"2\"}\n"),
            Read(2),
        ),
        (
            "ndjson",
            "mark",
            fixed(format!("{MARK}{{\"a\":\"1\"}}")),
            Read(1),
        ),
        (
            "ndjson",
            "cut",
            fixed("{\"a\":\"1\"}\n{\"a\":"),
            Fails("line 2", 2),
        ),
        ("ndjson", "nothing", fixed(""), Read(0)),
        ("html", "good", fixed(html), Read(1)),
        ("html", "mark", fixed(format!("{MARK}{html}")), Read(1)),
        (
            "html",
            "cut",
            fixed("<table><tr><td class=\"a"),
            Fails("it ends inside of a tag", 2),
        ),
        ("html", "json", fixed(json), Fails("it has no element", 2)),
        (
            "html",
            "charset",
            fixed(around("<meta charset=euc-kr><td class=a>", BROKEN, "</td>")),
            Fails("it is not EUC-KR", 2),
        ),
        ("json", "mark", fixed(format!("{MARK}{json}")), Read(1)),
        (
            "json",
            "cut",
            fixed(&json[..20]),
            Fails("the body is not JSON", 2),
        ),
        (
            "json",
            "charset",
            fixed(around("{\"data\":[{\"a\":\"", KOREAN, "\"}]}")),
            Fails("it is not UTF-8", 2),
        ),
        (
            "json",
            "deep",
            fixed("[".repeat(100_000)),
            Fails("deeper than 64", 2),
        ),
        // A cursor that never ends, and one that goes in circles.
        (
            "json",
            "endless",
            Box::new(|call, _| {
                format!(r#"{{"data":[{{"a":"{call}"}}],"next":"c{call}"}}"#).into_bytes()
            }),
            Fails("more than max_pages (4) pages", 1),
        ),
        (
            "json",
            "circle",
            Box::new(|call, _| {
                let next = if call % 2 == 0 { "even" } else { "odd" };
                format!(r#"{{"data":[{{"a":"{call}"}}],"next":"{next}"}}"#).into_bytes()
            }),
            Fails("the same page or cursor twice", 1),
        ),
        (
            "links",
            "host",
            fixed(elsewhere),
            Fails("another host, port or scheme", 1),
        ),
        (
            "links",
            "scheme",
            fixed(r#"{"data":[{"a":"1"}],"next":"file:///etc/passwd"}"#),
            Fails("another host, port or scheme", 1),
        ),
        (
            "links",
            "https",
            fixed(r#"{"data":[{"a":"1"}],"next":"https://127.0.0.1/more"}"#),
            Fails("another host, port or scheme", 1),
        ),
        (
            "links",
            "none",
            fixed(r#"{"data":[{"a":"1"}],"next":"http://["}"#),
            Fails("no URL", 1),
        ),
        ("links", "good", fixed(json), Read(1)),
    ]
}

/// The end of each format's provider file.
const FORMATS: [(&str, &str, &str); 6] = [
    (
        "xml",
        "{type: xml, force_array: [r]}",
        "records: $.o.r[*]\n    fields: {a: $.a}",
    ),
    ("csv", "{type: csv}", "records: $[*]\n    fields: {a: $.a}"),
    (
        "ndjson",
        "{type: ndjson}",
        "records: $[*]\n    fields: {a: $.a}",
    ),
    (
        "html",
        "{type: html}",
        "records: {css: tr}\n    fields: {a: {css: \"td.a\"}}",
    ),
    (
        "json",
        "{type: json}",
        "page: {style: cursor, next: $.next, query: after, max_pages: 4}\n    records: $.data[*]\n    fields: {a: $.a}",
    ),
    (
        "links",
        "{type: json}",
        "page: {style: next_url, next: $.next, max_pages: 4}\n    records: $.data[*]\n    fields: {a: $.a}",
    ),
];

const JOB: &str = "
job: bad
provider: \"{{ format }}\"
endpoint: rows
split: {case: {rows: {file: cases.csv}}}
shard: {cells: 10, checkpoint: 4}
gate: 0.1
outputs: {s3: {format: ndjson}}
";

fn write_files(fleet: &Fleet, url: &str, cases: &[Case]) {
    let rows: String = cases
        .iter()
        .map(|(format, name, ..)| format!("{format},{name}\n"))
        .collect();
    let write = |path: &str, text: &str| drop(fleet.spec.write(path, text).expect("written"));
    write("jobs/cases.csv", &format!("format,name\n{rows}"));
    write("jobs/bad.yaml", JOB);
    for (name, format, rest) in FORMATS {
        let file = format!(
            "provider: {name}\nversion: 1\nbase_url: {url}\nformat: {format}\n\
             limits: [{{name: second, rate: 100/s}}]\n\
             retry: {{attempts: 2, backoff: {{from: 20ms, to: 50ms}}}}\n\
             endpoints:\n  rows:\n    get: \"/{name}/{{{{ name }}}}\"\n    {rest}\n"
        );
        write(&format!("providers/{name}.yaml"), &file);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_answers_of_every_format_fail_their_cells_and_nothing_else() {
    let other = canned::start(BTreeMap::new()).expect("it listens");
    let mut cases = cases(&other.url());
    let answers: BTreeMap<String, Answers> = cases
        .iter_mut()
        .map(|(format, name, answer, _)| {
            let answer = std::mem::replace(answer, fixed(""));
            (format!("/{format}/{name}"), answer)
        })
        .collect();
    let server = canned::start(answers).expect("it listens");
    let fleet = Fleet::new("badinput").expect("a fleet");
    write_files(&fleet, &server.url(), &cases);
    let _loader = fleet.load(&[]).expect("started");
    let collector = fleet.collect(&[]).expect("started");
    let enqueue = ["enqueue", "bad", "--run-id", RUN, "--wait"];
    let ended = fleet.producer(&enqueue, PATIENCE).expect("it ends");
    ended.expect_code(0);

    let outputs = Outputs {
        index: None,
        ranking: None,
    };
    let checker = Checker::new(&fleet, "bad", RUN, outputs).expect("a run id");
    checker.check().await.expect("checked").assert_kept();
    let layout = fleet.layout("bad", RUN);
    let bucket = Bucket::of(&fleet);
    let named = |row: &Value| {
        let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        (text("format"), text("name"))
    };
    let mut failures: BTreeMap<(String, String), Value> = BTreeMap::new();
    for key in bucket.keys(&layout.all_failures()).await.expect("a list") {
        let object = bucket.get(&key).await.expect("failures");
        for row in object.rows().expect("NDJSON") {
            failures.insert(named(&row), row);
        }
    }
    let mut records: BTreeMap<(String, String), u64> = BTreeMap::new();
    let collected = Collected::read(&bucket, &layout).await.expect("parts");
    for (row, _) in collected.rows() {
        *records
            .entry(named(&Value::Object(row.clone())))
            .or_default() += 1;
    }
    for (format, name, _, end) in &cases {
        let cell = ((*format).to_owned(), (*name).to_owned());
        let (failure, found) = (failures.get(&cell), records.get(&cell).copied());
        match end {
            Read(wanted) => assert_eq!(
                (failure, found.unwrap_or(0)),
                (None, *wanted),
                "{format} {name}"
            ),
            Fails(reason, attempts) => {
                let row = failure.unwrap_or_else(|| panic!("{format} {name} did not fail"));
                let told = row["reason"].as_str().unwrap_or_default();
                assert!(told.contains(reason), "{format} {name}: {row}");
                assert_eq!(
                    row["attempts"].as_u64(),
                    Some(*attempts),
                    "{format} {name}: {row}"
                );
                assert_eq!(found, None, "{format} {name} failed and has records");
            }
        }
    }
    assert!(other.seen().is_empty(), "a foreign URL was followed");

    let address = metrics_address(&collector, PATIENCE).expect("it listens");
    let scraped = reqwest::get(format!("http://{address}/metrics")).await;
    let metrics = scraped.expect("an answer").text().await.expect("text");
    for line in [
        "paceline_steps_failed_total{provider=\"links\",reason=\"foreign_url\"} 3",
        "paceline_steps_failed_total{provider=\"links\",reason=\"bad_cursor\"} 1",
        "paceline_steps_failed_total{provider=\"json\",reason=\"max_pages\"} 1",
        "paceline_steps_failed_total{provider=\"json\",reason=\"repeated\"} 1",
    ] {
        assert!(metrics.contains(line), "no {line} in {metrics}");
    }
}

/// A list without rows: the run is complete, and says that it has nothing to do.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_an_empty_list_is_complete() {
    let server = canned::start(BTreeMap::new()).expect("it listens");
    let fleet = Fleet::new("emptylist").expect("a fleet");
    write_files(&fleet, &server.url(), &[]);
    let job = JOB.replace("\"{{ format }}\"", "csv");
    fleet.spec.write("jobs/bad.yaml", &job).expect("written");
    let checked = fleet.producer(&["check"], PATIENCE).expect("it ends");
    let checked = checked.expect_code(0);
    assert!(checked.stdout.contains("has no rows"), "{}", checked.stdout);
    let _loader = fleet.load(&[]).expect("started");
    let enqueue = ["enqueue", "bad", "--run-id", RUN, "--wait"];
    let ended = fleet.producer(&enqueue, PATIENCE).expect("it ends");
    let ended = ended.expect_code(0);
    assert!(ended.stderr.contains("0 of 0 cells"), "{}", ended.stderr);
    assert!(server.seen().is_empty());
}
