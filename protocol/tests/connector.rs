//! The connector on the fare search's own files: what is sent, what an answer means, what comes out of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use paceline_protocol::connector::{Answer, Connector, Credential, Judged};
use paceline_protocol::outcome::Outcome;
use paceline_protocol::plan::{
    Matrix, PLAN_VERSION, Plan, PlannedDimension, PlannedValues, Segment,
};
use paceline_protocol::record::Scalar;
use paceline_protocol::spec::SpecFolder;
use serde_json::{Value, json};

const NOW_US: i64 = 1_795_000_000_000_000;

/// A plan of the fares job with one cell, its provider changed by `change`.
fn plan(change: impl FnOnce(&mut Plan)) -> Plan {
    let spec = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/spec");
    let loaded = SpecFolder::open(&spec)
        .expect("readable")
        .job("fares")
        .expect("right");
    let dimension = |name: &str| PlannedDimension {
        names: vec![Arc::from(name)],
        values: PlannedValues::Rows(vec![vec![Value::Null]]),
    };
    let mut plan = Plan {
        version: PLAN_VERSION,
        run: "r".parse().expect("a run id"),
        planned_at: "2026-11-20T18:00:00Z".parse().expect("an instant"),
        date: "2026-11-21".parse().expect("a date"),
        only: BTreeMap::new(),
        allow_shrink: false,
        force: false,
        base: None,
        matrix: Matrix {
            dimensions: ["destination", "depart", "nights"].map(dimension).into(),
        },
        segments: vec![Segment {
            lane: "fare-search".into(),
            provider: "fare-search".into(),
            first_cell: 0,
            cells: 1,
        }],
        providers: loaded.providers,
        job: loaded.job,
        inputs: Default::default(),
    };
    let provider = plan.providers.get_mut("fare-search").expect("its provider");
    provider.base_url = Some("http://fares.test/".into());
    change(&mut plan);
    plan
}

fn connector(change: impl FnOnce(&mut Plan)) -> Connector {
    Connector::compile(&plan(change), "fare-search").expect("compiles")
}

fn cell(destination: &str) -> Vec<Value> {
    vec![json!(destination), json!("2026-12-30"), json!(3)]
}

fn key(text: &str) -> Credential {
    Credential::new(
        "0-abcdef",
        BTreeMap::from([("key".to_owned(), text.to_owned())]),
    )
}

fn judged(connector: &Connector, status: u16, retry_after: Option<&str>, body: &str) -> Judged {
    let header = |name: &str| {
        retry_after
            .filter(|_| name == "retry-after")
            .map(str::to_owned)
    };
    connector.judge(&Answer {
        status,
        header: &header,
        body: body.as_bytes(),
        now_us: NOW_US,
    })
}

#[test]
fn a_request_is_what_the_file_says() {
    let connector = connector(|_| {});
    let context = connector
        .cell(cell("NRT"))
        .with_credential(&key("secret"))
        .at(NOW_US);
    let request = connector.request(context).expect("a request");
    assert_eq!(
        request.url,
        "http://fares.test/v1/fares?origin=ICN&destination=NRT&depart=2026-12-30&return=2027-01-02"
    );
    assert_eq!(
        request.headers,
        [("x-api-key".to_owned(), "secret".to_owned())]
    );
}

#[test]
fn hostile_values_stay_where_they_land() {
    let connector = connector(|plan| {
        let endpoint = &mut plan
            .providers
            .get_mut("fare-search")
            .expect("its provider")
            .endpoints["fares"];
        endpoint.request.as_mut().expect("a request").path = "/v1/{{ destination }}/fares".into();
    });
    let url = |destination: &str| {
        connector
            .request(connector.cell(cell(destination)).with_credential(&key("k")))
            .map(|r| r.url)
    };
    let hostile = "../a?b=c&d#e\"\n\u{1f600}";
    let sent = url(hostile).expect("encoded");
    assert!(
        sent.starts_with("http://fares.test/v1/..%2Fa%3Fb%3Dc%26d%23e%22%0A%F0%9F%98%80/fares?"),
        "{sent}"
    );
    assert!(
        sent.contains("&destination=..%2Fa%3Fb%3Dc%26d%23e%22%0A"),
        "{sent}"
    );
    assert!(
        url("..").is_err(),
        "a path that means another one is refused"
    );
}

#[test]
fn a_header_takes_no_second_line() {
    let connector = connector(|_| {});
    let context = connector
        .cell(cell("NRT"))
        .with_credential(&key("k\r\nx-evil: 1"));
    assert!(connector.request(context).is_err());
}

#[test]
fn the_providers_rules_come_before_the_built_in_list() {
    let connector = connector(|_| {});
    let outcome = |status, body| judged(&connector, status, None, body).verdict.outcome;
    assert_eq!(
        outcome(429, r#"{"error":{"code":"DAILY_QUOTA"}}"#),
        Outcome::QuotaExhausted
    );
    assert_eq!(
        outcome(429, r#"{"error":{"code":"RATE"}}"#),
        Outcome::Throttled
    );
    assert_eq!(outcome(404, ""), Outcome::Empty);
    assert_eq!(outcome(200, r#"{"data":[]}"#), Outcome::Ok);
    assert_eq!(outcome(200, r#"{"data":["#), Outcome::Retryable);
    assert_eq!(outcome(200, "<html>"), Outcome::Retryable);
    assert_eq!(outcome(204, ""), Outcome::Empty);
    assert_eq!(outcome(302, ""), Outcome::Permanent);
    assert_eq!(outcome(401, ""), Outcome::AuthExpired);
    assert_eq!(outcome(400, "{}"), Outcome::Permanent);
    assert_eq!(outcome(503, ""), Outcome::Retryable);
}

#[test]
fn a_throttled_scope_waits_as_told() {
    let connector = connector(|_| {});
    let wait = |hint| judged(&connector, 429, hint, "{}").verdict.wait;
    assert_eq!(wait(Some("7")), Some(Duration::from_secs(7)));
    assert_eq!(wait(Some("0.5")), Some(Duration::from_millis(500)));
    assert_eq!(
        wait(Some("0")),
        Some(Duration::from_secs(1)),
        "0 is no hint"
    );
    assert_eq!(
        wait(Some("315360000")),
        Some(Duration::from_secs(86_400)),
        "ten years are capped"
    );
}

#[test]
fn records_hold_the_cell_then_the_fields() {
    let connector = connector(|_| {});
    let body = json!({"data": [{
        "carrier": "KE",
        "price": {"currency": "KRW", "total": 0},
        "outbound": {"departs_at": "2026-12-30T09:35:00+09:00"},
    }]});
    let body = body.to_string().replace(":0}", ":80000.50}");
    let body: Value = serde_json::from_str(&body).expect("json");
    let records = connector
        .records(&connector.cell(cell("NRT")), &body.into())
        .expect("fits");
    let mut line = Vec::new();
    records[0].write_ndjson(&mut line);
    assert_eq!(
        String::from_utf8(line).expect("text"),
        "{\"destination\":\"NRT\",\"depart\":\"2026-12-30\",\"nights\":3,\"carrier\":\"KE\",\"price\":80000.50,\
         \"currency\":\"KRW\",\"departs_at\":\"2026-12-30T00:35:00Z\"}\n"
    );
    assert_eq!(
        records[0].get("price"),
        Some(&Scalar::Number("80000.50".into()))
    );
}

#[test]
fn a_field_that_does_not_fit_is_named() {
    let connector = connector(|_| {});
    let fails = |offer: Value| {
        let body = json!({ "data": [offer] });
        connector
            .records(&connector.cell(cell("NRT")), &body.into())
            .expect_err("does not fit")
            .field
    };
    assert_eq!(fails(json!({})), "carrier");
    assert_eq!(fails(json!({"carrier": null})), "carrier");
    assert_eq!(
        fails(json!({"carrier": "KE", "price": {"total": "cheap"}})),
        "price"
    );
}

/// A connector whose one endpoint is changed by `change`.
fn with_endpoint(change: impl FnOnce(&mut paceline_protocol::spec::Endpoint)) -> Connector {
    connector(|plan| {
        let provider = plan.providers.get_mut("fare-search").expect("its provider");
        change(&mut provider.endpoints["fares"]);
    })
}

/// What no list should hold and some list will.
fn hostile_values() -> Vec<String> {
    let short = [
        "../../etc/passwd",
        "two\nlines\r\nx-evil: 1",
        "\"quoted\" and 'quoted'",
        "</depart><admin>1</admin>&lt;]]><!--",
        "☃🛫 é",
        "a=1&b=2+3%20#f?g;h",
        "{{ credential.key }} {% raw %}",
    ];
    let mut values: Vec<String> = short.map(str::to_owned).into();
    values.push("x".repeat(4_096));
    values
}

#[test]
fn a_body_takes_hostile_values_as_values() {
    use paceline_protocol::spec::{Method, RequestBody};
    let post = |body: RequestBody| {
        with_endpoint(|endpoint| {
            let request = endpoint.request.as_mut().expect("a request");
            (request.method, request.body) = (Method::Post, Some(body));
        })
    };
    let json = post(RequestBody::Json(
        json!({"to": "{{ destination }}", "say": "to {{ destination }}", "nights": "{{ nights }}"}),
    ));
    let form = post(RequestBody::Form(
        [
            ("to".to_owned(), json!("{{ destination }}")),
            ("n".to_owned(), json!(1)),
        ]
        .into(),
    ));
    let xml = post(RequestBody::Xml(
        "<q to=\"{{ destination }}\"><to>{{ destination }}</to></q>".into(),
    ));
    for value in hostile_values() {
        let sent = |connector: &Connector| {
            let context = connector.cell(cell(&value)).with_credential(&key("k"));
            let (content_type, bytes) = connector
                .request(context)
                .expect("a request")
                .body
                .expect("a body");
            (content_type, String::from_utf8(bytes).expect("UTF-8"))
        };
        let (_, body) = sent(&json);
        let read: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(
            read,
            json!({"to": value, "say": format!("to {value}"), "nights": 3})
        );

        let (_, body) = sent(&form);
        let pairs: Vec<&str> = body.split('&').collect();
        assert_eq!(pairs.len(), 2, "{body}");
        let read = percent_encoding::percent_decode_str(&pairs[0]["to=".len()..]);
        assert_eq!(read.decode_utf8().expect("UTF-8"), value);

        let (content_type, body) = sent(&xml);
        assert_eq!(content_type, "application/xml; charset=utf-8");
        let answers = connector(|plan| {
            let provider = plan.providers.get_mut("fare-search").expect("its provider");
            provider.format.kind = paceline_protocol::spec::FormatKind::Xml;
        });
        let read = judged(&answers, 200, None, &body).body.expect("XML");
        assert_eq!(read.tree()["q"]["to"], json!(value), "{body}");
    }
}

#[test]
fn a_value_that_xml_cannot_hold_makes_no_request() {
    use paceline_protocol::spec::{Method, RequestBody};
    let xml = with_endpoint(|endpoint| {
        let request = endpoint.request.as_mut().expect("a request");
        request.method = Method::Post;
        request.body = Some(RequestBody::Xml("{{ destination }}".into()));
    });
    let asked = |value: &str| xml.request(xml.cell(cell(value)).with_credential(&key("k")));
    assert!(asked("a\u{0}b").is_err());
    assert_eq!(
        asked("<a>").expect("text").body.expect("a body").1,
        b"&lt;a&gt;"
    );
}

#[test]
fn two_values_make_no_step_upwards() {
    let twice = with_endpoint(|endpoint| {
        endpoint.request.as_mut().expect("a request").path =
            "/v1/{{ destination }}{{ destination }}/x".into();
    });
    assert!(
        twice
            .request(twice.cell(cell(".")).with_credential(&key("k")))
            .is_err()
    );
    assert!(
        twice
            .request(twice.cell(cell("a")).with_credential(&key("k")))
            .is_ok()
    );
}

#[test]
fn graphql_is_a_post_of_json_with_variables() {
    use paceline_protocol::spec::{Method, RequestBody};
    let graphql = with_endpoint(|endpoint| {
        let request = endpoint.request.as_mut().expect("a request");
        request.method = Method::Post;
        request.body = Some(RequestBody::Json(json!({
            "query": "query($to: String!, $n: Int) { fares(to: $to, nights: $n) { edges { node { carrier } } } }",
            "variables": {"to": "{{ destination }}", "n": "{{ nights }}", "after": null},
        })));
    });
    let hostile = "\"}) { admin { secret } } #";
    let request = graphql.request(graphql.cell(cell(hostile)).with_credential(&key("k")));
    let (content_type, bytes) = request.expect("a request").body.expect("a body");
    let read: Value = serde_json::from_slice(&bytes).expect("JSON");
    assert_eq!(content_type, "application/json");
    assert_eq!(
        read["variables"],
        json!({"to": hostile, "n": 3, "after": null})
    );
    assert!(
        read["query"]
            .as_str()
            .is_some_and(|q| q.starts_with("query($to: String!") && !q.contains("admin"))
    );
}

/// The published way to sign, its string and signature from two other implementations.
#[test]
fn a_request_signed_over_its_final_form() {
    let connector = connector(|plan| {
        let provider = plan.providers.get_mut("fare-search").expect("its provider");
        provider.base_url = Some("https://api-gateway.test".into());
        provider.auth = vec![paceline_protocol::spec::Auth::Sign {
            algorithm: "hmac_sha256_hex".into(),
            key: "{{ credential.key }}".into(),
            message: "{{ now | date('%y%m%dT%H%M%SZ') }}{{ request.method }}{{ request.path }}{{ request.query }}".into(),
            header: "authorization".into(),
            value: "CEA algorithm=HmacSHA256, access-key=K, signed-date={{ now | date('%y%m%dT%H%M%SZ') }}, signature={{ signature }}".into(),
        }];
        let endpoint = provider.endpoints.get_mut("fares").expect("its endpoint");
        let request = endpoint.request.as_mut().expect("a request");
        request.path =
            "/v2/providers/openapi/apis/api/v4/vendors/{{ destination }}/ordersheets".into();
        request.query = [
            ("createdAtFrom", json!("2026-05-20")),
            ("createdAtTo", json!("2026-05-20")),
            ("status", json!("ACCEPT")),
            ("maxPerPage", json!(50)),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    });
    let signed_at: jiff::Timestamp = "2026-05-20T14:30:22Z".parse().expect("an instant");
    let context = connector
        .cell(cell("A00012345"))
        .with_credential(&key("secret"))
        .at(signed_at.as_microsecond());
    let request = connector.request(context).expect("built");
    let header = request
        .headers
        .iter()
        .find(|(name, _)| name == "authorization");
    assert_eq!(
        header.map(|(_, value)| value.as_str()),
        Some(
            "CEA algorithm=HmacSHA256, access-key=K, signed-date=260520T143022Z, signature=6757950d98fe59646226e2a3154b9120efdf033776a0c53100aa69a5a8a6e283"
        )
    );
}

/// The example of RFC 7519's kind: checked by taking the token apart again.
#[test]
fn a_token_that_the_fleet_signs_itself() {
    use base64::Engine;
    let connector = connector(|plan| {
        let provider = plan.providers.get_mut("fare-search").expect("its provider");
        provider.auth = vec![paceline_protocol::spec::Auth::Jwt {
            key: "{{ credential.key }}".into(),
            head: [("kid".to_owned(), "master".to_owned())]
                .into_iter()
                .collect(),
            claims: [
                ("sub".to_owned(), json!("sell")),
                ("iat".to_owned(), json!("{{ now_ms }}")),
            ]
            .into_iter()
            .collect(),
            header: "authorization".into(),
            value: "Bearer {{ token }}".into(),
        }];
    });
    let context = connector
        .cell(cell("HKG"))
        .with_credential(&key("secret"))
        .at(NOW_US);
    let request = connector.request(context).expect("built");
    let (_, value) = request
        .headers
        .iter()
        .find(|(n, _)| n == "authorization")
        .expect("signed");
    let token = value.strip_prefix("Bearer ").expect("a bearer");
    let parts: Vec<Vec<u8>> = token
        .split('.')
        .map(|part| {
            base64::engine::general_purpose::URL_SAFE_NO_PAD
                .decode(part)
                .expect("base64url")
        })
        .collect();
    let read = |place: usize| serde_json::from_slice::<Value>(&parts[place]).expect("JSON");
    assert_eq!(
        read(0),
        json!({"alg": "HS256", "typ": "JWT", "kid": "master"})
    );
    assert_eq!(read(1), json!({"sub": "sell", "iat": NOW_US / 1000}));
    assert_eq!(parts[2].len(), 32);
}
