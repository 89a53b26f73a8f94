//! Any value lands as that value and nothing else: in a path, a query, a header, a form, JSON, XML, and what is signed.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use paceline_fuzz::{NOW_US, connector, credential, reader};
use paceline_protocol::connector::{Answer, Connector, HttpRequest};
use serde_json::{Value, json};

const JOB: &str = "
job: j
provider: p
endpoint: e
split: {d: [x]}
outputs: {s3: {format: ndjson}}
";

fn lands(request: &str) -> Connector {
    let provider = format!(
        "
provider: p
version: 1
base_url: http://p.test
limits: [{{name: second, rate: 1/s, per: \"{{{{ d }}}}\"}}]
credentials: {{from_env: KEYS, fields: [key]}}
auth:
  - {{sign: hmac_sha256_hex, key: \"{{{{ credential.key }}}}\", message: \"{{{{ request.path }}}}{{{{ request.query }}}}\", header: x-signed, value: \"{{{{ signature }}}}\"}}
endpoints:
  e:
{request}
    records: $.data[*]
    fields: {{a: $.a}}
"
    );
    connector(JOB, &provider, &[("d", json!("x"))])
}

static GET: LazyLock<Connector> = LazyLock::new(|| {
    lands(
        "    get: /a/{{ d }}/b\n    query: {q: '{{ d }}', r: 'x{{ d }}y'}\n    headers: {x-value: '{{ d }}'}",
    )
});
static JSON: LazyLock<Connector> = LazyLock::new(|| {
    lands("    post: /a\n    json: {whole: '{{ d }}', part: 'x{{ d }}y', list: ['{{ d }}']}")
});
static FORM: LazyLock<Connector> =
    LazyLock::new(|| lands("    post: /a\n    form: {q: '{{ d }}', r: 'x{{ d }}y'}"));
static XML: LazyLock<Connector> =
    LazyLock::new(|| lands("    post: /a\n    xml: '<q a=\"x{{ d }}\"><b>x{{ d }}y</b></q>'"));
static ANSWER: LazyLock<Connector> = LazyLock::new(|| {
    reader(
        "xml",
        "endpoints: {e: {get: /e, records: '$.q[*]', fields: {a: {path: $.a, optional: true}}}}",
    )
});

fn ask(connector: &Connector, value: &str) -> Option<HttpRequest> {
    let context = connector
        .cell(vec![json!(value)])
        .with_credential(&credential(&[("key", "k")]))
        .at(NOW_US);
    for place in 0..connector.scopes().len() {
        let _ = connector.scope(place, &context);
    }
    connector.request(context).ok()
}

fuzz_target!(|value: &str| {
    if let Some(request) = ask(&GET, value) {
        in_url(&request.url, value);
        for (name, value) in &request.headers {
            assert!(!value.chars().any(char::is_control), "{name}");
        }
    }
    let sent = |connector: &Connector| {
        let (_, body) = ask(connector, value)?.body?;
        Some(String::from_utf8(body).expect("UTF-8"))
    };
    let json = sent(&JSON).expect("JSON holds any text");
    let read: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(
        read,
        json!({"whole": value, "part": format!("x{value}y"), "list": [value]})
    );
    let form = sent(&FORM).expect("a form holds any text");
    let pairs: Vec<(String, String)> = url::form_urlencoded::parse(form.as_bytes())
        .into_owned()
        .collect();
    let wanted = [
        ("q".into(), value.into()),
        ("r".into(), format!("x{value}y")),
    ];
    assert_eq!(pairs, wanted);
    if let Some(xml) = sent(&XML) {
        in_xml(&xml, value);
    }
});

fn in_url(url: &str, value: &str) {
    let read = url::Url::parse(url).expect("a URL");
    assert_eq!((read.host_str(), read.fragment()), (Some("p.test"), None));
    let segments: Vec<&str> = read.path_segments().expect("a path").collect();
    assert_eq!(segments.len(), 3, "{url}");
    let decoded = percent_encoding::percent_decode_str(segments[1]).decode_utf8();
    assert_eq!(decoded.expect("UTF-8"), value);
    let pairs: Vec<(String, String)> = read.query_pairs().into_owned().collect();
    let wanted = [
        ("q".into(), value.into()),
        ("r".into(), format!("x{value}y")),
    ];
    assert_eq!(pairs, wanted);
}

/// XML holds a text without its white space at the ends, and line ends as one.
fn in_xml(xml: &str, value: &str) {
    let none = |_: &str| None;
    let judged = ANSWER.judge(&Answer {
        status: 200,
        header: &none,
        body: xml.as_bytes(),
        now_us: NOW_US,
    });
    let body = judged.body.unwrap_or_else(|| panic!("no XML: {xml}"));
    let fields = body.tree()["q"].as_object().expect("one element");
    assert_eq!(fields.len(), 2, "{xml}");
    let text = fields["b"].as_str().expect("a text");
    assert!(text.starts_with('x') && text.ends_with('y'), "{xml}");
    if !value.contains(['\r', '\n', '\u{85}', '\u{2028}']) {
        assert_eq!(text, format!("x{value}y"));
    }
}
