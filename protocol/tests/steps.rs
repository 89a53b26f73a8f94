//! Cells that need more than one call, on the providers of the examples: which calls are made, in which
//! order, and what comes out, however often the shard is handed on in between.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use paceline_protocol::connector::{
    Body, Connector, Credential, HttpRequest, Position, Progress, StepAnswer, StepError, digest,
};
use paceline_protocol::plan::{
    Matrix, PLAN_VERSION, Plan, PlannedDimension, PlannedValues, Segment,
};
use paceline_protocol::spec::{BodyPlace, Endpoint, Method, RequestBody, SpecFolder};
use proptest::prelude::*;
use serde_json::{Value, json};

const NOW_US: i64 = 1_795_000_000_000_000;

/// One endpoint of a job's provider with one cell.
fn connector(job: &str, provider: &str, change: impl FnOnce(&mut Endpoint)) -> Connector {
    let spec = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/spec");
    let loaded = SpecFolder::open(&spec)
        .expect("readable")
        .job(job)
        .expect("right");
    let names: Vec<&str> = match job {
        "search" => vec!["engine", "keyword"],
        "events" => vec!["country", "category"],
        _ => vec!["market", "seller", "day"],
    };
    let dimension = |name: &&str| PlannedDimension {
        names: vec![Arc::from(*name)],
        values: PlannedValues::Rows(vec![vec![Value::Null]]),
    };
    let mut plan = Plan {
        inputs: Default::default(),
        version: PLAN_VERSION,
        run: "r".parse().expect("a run id"),
        planned_at: "2026-11-20T18:00:00Z".parse().expect("an instant"),
        date: "2026-11-21".parse().expect("a date"),
        only: BTreeMap::new(),
        allow_shrink: false,
        force: false,
        base: None,
        matrix: Matrix {
            dimensions: names.iter().map(dimension).collect(),
        },
        segments: vec![Segment {
            lane: provider.into(),
            provider: provider.into(),
            first_cell: 0,
            cells: 1,
        }],
        providers: loaded.providers,
        job: loaded.job,
    };
    let endpoint = plan.job.endpoint.clone().expect("an endpoint");
    let spec = plan.providers.get_mut(provider).expect("its provider");
    spec.base_url = Some("http://api.test".into());
    // How it authorises is not what this is about.
    spec.auth.clear();
    change(&mut spec.endpoints[&endpoint]);
    Connector::compile(&plan, provider).expect("compiles")
}

/// What a provider answers: a body, or a body and headers.
type Answers<'a> = dyn FnMut(&HttpRequest) -> Value + 'a;

/// One call as whoever has the cell makes it. `None` when it is done.
fn call(
    connector: &Connector,
    progress: &mut Progress,
    values: &[Value],
    answers: &mut Answers<'_>,
) -> Result<bool, StepError> {
    let position: Position = progress.position.clone();
    let fields = BTreeMap::from([("vendor_id".to_owned(), "A1".to_owned())]);
    let cell = connector
        .cell(values.to_vec())
        .with_credential(&Credential::new("0-aaaaaa", fields))
        .at(NOW_US);
    let context = connector.step(cell, &position);
    let request = connector.request(context.clone()).expect("a request");
    let body = answers(&request);
    let headers: HashMap<String, String> = match body.get("headers") {
        Some(headers) => serde_json::from_value(headers.clone()).expect("headers"),
        None => HashMap::new(),
    };
    let header = |name: &str| headers.get(name).cloned();
    let read = Body::from(body.clone());
    let answer = StepAnswer {
        body: (!body.is_null()).then_some(&read),
        header: &header,
        digest: digest(body.to_string().as_bytes()),
    };
    let advance = connector.advance(&position, &context, &answer)?;
    Ok(progress.apply(advance))
}

/// All calls of a cell; handed on after every call that `hand_on` says.
fn collect(
    connector: &Connector,
    values: &[Value],
    mut hand_on: impl FnMut() -> bool,
    answers: &mut Answers<'_>,
) -> Result<Progress, StepError> {
    let mut progress = Progress::default();
    for _ in 0..100_000 {
        if call(connector, &mut progress, values, answers)? {
            return Ok(progress);
        }
        if hand_on() {
            progress.hand_back(connector.resumes());
            let kept = serde_json::to_vec(&progress).expect("serialises");
            progress = serde_json::from_slice(&kept).expect("reads back");
        }
    }
    panic!("it never ends");
}

fn parameter(request: &HttpRequest, name: &str) -> Option<String> {
    let url = url::Url::parse(&request.url).expect("a URL");
    url.query_pairs()
        .find(|(known, _)| known == name)
        .map(|(_, value)| value.into_owned())
}

fn number(request: &HttpRequest, name: &str) -> Option<usize> {
    parameter(request, name)?.parse().ok()
}

fn lines(progress: &Progress, field: &str) -> Vec<String> {
    let rows = progress.gathered.lines.lines();
    rows.map(|line| {
        let row: Value = serde_json::from_str(line).expect("JSON");
        match &row[field] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    })
    .collect()
}

fn never() -> bool {
    false
}

fn post(n: usize) -> Value {
    json!({ "title": format!("t{n}"), "link": format!("l{n}"), "postdate": "20261121",
        "url": format!("l{n}"), "datetime": "2026-11-21T01:00:00+09:00" })
}

fn engine(name: &str) -> Vec<Value> {
    vec![name.into(), "제주".into()]
}

#[test]
fn an_offset_ends_by_its_total_or_at_the_engines_end() {
    let naver = connector("search", "naver", |_| {});
    for (total, calls, records, truncated) in [
        (0, 1, 0, false),
        (1, 1, 1, false),
        (100, 1, 100, false),
        (101, 2, 101, false),
        (1000, 10, 1000, false),
        (1001, 10, 1000, true),
    ] {
        let mut asked = Vec::new();
        let progress = collect(&naver, &engine("naver"), never, &mut |request| {
            let start = number(request, "start").expect("an offset");
            asked.push(start);
            let end = (start + 100).min(total + 1);
            json!({ "total": total, "items": (start..end).map(post).collect::<Vec<_>>() })
        })
        .expect("ends");
        assert_eq!(asked.len(), calls, "{total}: {asked:?}");
        assert_eq!(progress.gathered.records, records, "{total}");
        assert_eq!(progress.gathered.truncated, truncated, "{total}");
    }
}

#[test]
fn pages_that_hold_less_than_the_answer_announces_are_told() {
    let naver = connector("search", "naver", |_| {});
    // The engine gives half of what is asked for; or an empty page in the middle.
    for (from, to, records) in [(1, 50, 100), (101, 0, 100)] {
        let progress = collect(&naver, &engine("naver"), never, &mut |request| {
            let start = number(request, "start").expect("an offset");
            let count = if start >= from { to } else { 100 };
            let items: Vec<Value> = (start..start + count).map(post).collect();
            json!({ "total": 150, "items": items })
        })
        .expect("ends");
        assert_eq!(progress.gathered.records, records);
        assert!(progress.gathered.truncated);
    }
    let chosen = connector("search", "naver", |endpoint| {
        endpoint.records = Some(BodyPlace::Path("$.items[?@.title != 't2']".into()));
    });
    let progress = collect(
        &chosen,
        &engine("naver"),
        never,
        &mut |_| json!({ "total": 3, "items": [post(1), post(2), post(3)] }),
    )
    .expect("ends");
    assert!(
        !progress.gathered.truncated,
        "the file itself leaves some out"
    );
}

#[test]
fn a_flag_ends_pages_and_the_last_page_is_no_failure() {
    let kakao = connector("search", "kakao", |_| {});
    for (pages, calls, truncated) in [
        (1, 1, false),
        (3, 3, false),
        (50, 50, false),
        (51, 50, true),
    ] {
        let progress = collect(&kakao, &engine("kakao"), never, &mut |request| {
            let page = number(request, "page").expect("a page");
            json!({ "meta": { "is_end": page >= pages }, "documents": [post(page)] })
        })
        .expect("ends");
        assert_eq!(progress.gathered.records, calls);
        assert_eq!(progress.gathered.truncated, truncated);
    }
}

#[test]
fn pages_that_repeat_or_never_end_are_a_failure() {
    let kakao = connector("search", "kakao", |_| {});
    let same = json!({ "meta": { "is_end": false }, "documents": [post(1)] });
    let end = collect(&kakao, &engine("kakao"), never, &mut |_| same.clone());
    assert_eq!(end.err(), Some(StepError::Repeated));

    let capped = connector("search", "kakao", |e| {
        let page = e.page.as_mut().expect("paged");
        (page.last, page.max_pages) = (None, 3);
    });
    let mut n = 0;
    let end = collect(&capped, &engine("kakao"), never, &mut |_| {
        n += 1;
        json!({ "meta": { "is_end": false }, "documents": [post(n)] })
    });
    assert_eq!(end.err(), Some(StepError::MaxPages(3)));
    assert_eq!(n, 3);
}

fn order(id: &str) -> Value {
    json!({ "orderId": id, "orderedAt": "2026-11-21T10:00:00", "status": "ACCEPT",
        "orderItems": [{ "orderPrice": "1000.50" }] })
}

fn coupang_cell() -> Vec<Value> {
    vec!["coupang".into(), "s1".into(), "2026-11-21".into()]
}

/// Five statuses with `pages[status]` pages of one order each.
fn coupang<'a>(pages: &'a [usize], log: &'a mut Vec<(String, usize)>) -> Box<Answers<'a>> {
    Box::new(move |request| {
        let status = parameter(request, "status").expect("an item");
        let token = parameter(request, "nextToken");
        let page = token.map_or(0, |t| t.trim_start_matches('t').parse().expect("a token"));
        log.push((status.clone(), page));
        let place = [
            "ACCEPT",
            "INSTRUCT",
            "DEPARTURE",
            "DELIVERING",
            "FINAL_DELIVERY",
        ]
        .iter()
        .position(|s| *s == status)
        .expect("a status");
        let data: Vec<Value> = match pages[place] {
            0 => Vec::new(),
            _ => vec![order(&format!("{status}-{page}"))],
        };
        let next = match page + 1 < pages[place] {
            true => format!("t{}", page + 1),
            false => String::new(),
        };
        json!({ "data": data, "nextToken": next })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Every page of every item is asked for once, wherever the shard is handed on.
    #[test]
    fn every_page_once_whatever_hand_backs(pages in proptest::collection::vec(0usize..6, 5), hands in any::<u64>()) {
        let connector = connector("orders", "coupang", |_| {});
        let mut log = Vec::new();
        let mut turn = 0;
        let hand_on = || { turn += 1; hands >> (turn % 64) & 1 == 1 };
        let progress = collect(&connector, &coupang_cell(), hand_on, &mut *coupang(&pages, &mut log));
        let progress = progress.expect("ends");
        let calls: usize = pages.iter().map(|n| (*n).max(1)).sum();
        prop_assert_eq!(log.len(), calls);
        log.sort();
        log.dedup();
        prop_assert_eq!(log.len(), calls);
        prop_assert_eq!(progress.gathered.records as usize, pages.iter().sum::<usize>());
    }

    /// A cursor that does not outlive its session: pages repeat, records do not.
    #[test]
    fn a_session_begins_its_item_again(pages in proptest::collection::vec(0usize..5, 5), hand_at in 0usize..12) {
        let connector = connector("orders", "coupang", |e| e.page.as_mut().expect("paged").resume = false);
        let mut log = Vec::new();
        let mut turn = 0;
        let hand_on = || { turn += 1; turn == hand_at };
        let progress = collect(&connector, &coupang_cell(), hand_on, &mut *coupang(&pages, &mut log)).expect("ends");
        let mut ids = lines(&progress, "order_id");
        prop_assert_eq!(ids.len(), pages.iter().sum::<usize>());
        prop_assert_eq!(ids.len() as u64, progress.gathered.records);
        ids.sort();
        ids.dedup();
        prop_assert_eq!(ids.len(), pages.iter().sum::<usize>());
    }

    /// Whatever a provider answers, a cell ends.
    #[test]
    fn nothing_goes_on_for_ever(answers in proptest::collection::vec(0u8..8, 1..40)) {
        for (job, provider) in [("orders", "coupang"), ("orders", "naver-commerce"), ("events", "world-events"), ("search", "naver")] {
            let connector = connector(job, provider, |e| {
                e.each.truncate(2);
                if let Some(page) = &mut e.page { page.max_pages = 20; }
            });
            let mut n = 0usize;
            let mut hostile = |_: &HttpRequest| {
                n += 1;
                let next = match answers[n % answers.len()] {
                    0 => json!("same"),
                    1 => json!(format!("t{n}")),
                    2 => json!("http://evil.test/x"),
                    3 => json!(["list"]),
                    4 => json!(true),
                    5 => Value::Null,
                    6 => json!(format!("/v1/events/?p={n}")),
                    _ => return Value::Null,
                };
                json!({ "nextToken": next, "next": next, "overflow": n.is_multiple_of(3), "total": 1u64 << 60,
                    "data": { "more": { "moreFrom": next, "moreSequence": n }, "lastChangeStatuses": [{ "productOrderId": format!("{n}") }] },
                    "results": [], "items": [post(n)] })
            };
            let values = if job == "orders" { coupang_cell() } else { engine(provider) };
            // An error or an end, but an end.
            drop(collect(&connector, &values, never, &mut hostile));
        }
    }
}

#[test]
fn a_compound_cursor_and_details_in_batches() {
    let naver = connector("orders", "naver-commerce", |e| {
        e.detail.as_mut().expect("details").batch = Some(2);
    });
    let values = vec!["naver-commerce".into(), "s1".into(), "2026-11-21".into()];
    let mut log = Vec::new();
    let mut late = false;
    let progress = collect(&naver, &values, || true, &mut |request| {
        let Some((_, body)) = &request.body else {
            let (from, sequence) = (
                parameter(request, "lastChangedFrom").expect("a start"),
                parameter(request, "moreSequence"),
            );
            log.push(format!("{from} {sequence:?}"));
            let ids: Vec<Value> = match sequence {
                None => ["1", "2", "3"].map(|id| json!({ "productOrderId": id })).into(),
                Some(_) => vec![json!({ "productOrderId": "4" })],
            };
            let more = json!({ "moreFrom": "2026-11-21T09:00:00.000+09:00", "moreSequence": "7" });
            let more = if ids.len() == 3 { more } else { Value::Null };
            return json!({ "data": { "lastChangeStatuses": ids, "more": more } });
        };
        let asked: Value = serde_json::from_slice(body).expect("JSON");
        let ids: Vec<String> =
            serde_json::from_value(asked["productOrderIds"].clone()).expect("a list of texts");
        log.push(ids.join(","));
        // One id is answered only when it is asked for once more.
        let there = ids.iter().filter(|id| *id != "2" || std::mem::replace(&mut late, true));
        let details: Vec<Value> = there
            .map(|id| {
                json!({ "productOrder": { "productOrderId": id, "productOrderStatus": "PAYED",
                    "totalPaymentAmount": 100 }, "order": { "orderDate": "2026-11-21T10:00:00+09:00" } })
            })
            .collect();
        json!({ "data": details })
    })
    .expect("ends");
    assert_eq!(
        log,
        [
            "2026-11-21T00:00:00.000+09:00 None",
            "1,2",
            "3",
            "2",
            "2026-11-21T09:00:00.000+09:00 Some(\"7\")",
            "4",
        ]
    );
    assert_eq!(lines(&progress, "order_id"), ["1", "2", "3", "4"]);
}

#[test]
fn an_id_without_a_detail_fails_the_cell_or_is_counted() {
    let values = vec!["naver-commerce".into(), "s1".into(), "2026-11-21".into()];
    let mut answer = |request: &HttpRequest| match request.body {
        None => json!({ "data": { "lastChangeStatuses": [{ "productOrderId": "9" }] } }),
        Some(_) => json!({ "data": [] }),
    };
    let strict = connector("orders", "naver-commerce", |_| {});
    let end = collect(&strict, &values, never, &mut answer);
    assert!(matches!(end, Err(StepError::MissingIds { count: 1, .. })));
    let lenient = connector("orders", "naver-commerce", |e| {
        e.detail.as_mut().expect("details").report_missing = true;
    });
    let progress = collect(&lenient, &values, never, &mut answer).expect("ends");
    assert_eq!(
        (progress.gathered.records, progress.gathered.missing),
        (0, 1)
    );
}

fn event(day: i64) -> Value {
    use jiff::ToSpan;
    let first: jiff::civil::Date = "2026-11-21".parse().expect("a date");
    json!({ "id": format!("e{day}"), "title": "t", "start": format!("{}T10:00:00Z", first + day.days()),
        "rank": 1, "location": [127.0, 37.5], "updated": "2026-11-20T00:00:00Z" })
}

/// Events on each of `days`; no more than `most` may be paged, two on a page.
fn world(days: Vec<i64>, most: usize) -> impl FnMut(&HttpRequest) -> Value {
    move |request| {
        let day = |name: &str| parameter(request, name);
        let from = day("active.gte").expect("a first day");
        let to = day("active.lte").unwrap_or_else(|| "9999-12-31".into());
        let all = days.iter().map(|day| event(*day));
        let found: Vec<Value> = all
            .filter(|e| {
                let start = &e["start"].as_str().expect("text")[..10];
                (from.as_str()..=to.as_str()).contains(&start)
            })
            .collect();
        let at = number(request, "offset").unwrap_or(0);
        let page: Vec<Value> = found.iter().skip(at).take(2).cloned().collect();
        let mut next = url::Url::parse(&request.url).expect("a URL");
        let kept: Vec<(String, String)> = next
            .query_pairs()
            .filter(|(name, _)| name != "offset")
            .map(|(n, v)| (n.into_owned(), v.into_owned()))
            .collect();
        next.query_pairs_mut()
            .clear()
            .extend_pairs(kept)
            .append_pair("offset", &(at + 2).to_string());
        let more = at + 2 < found.len();
        json!({ "results": page, "overflow": found.len() > most,
            "next": if more { json!(next.to_string()) } else { Value::Null } })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// An overflow is bisected until everything was seen, once, wherever the shard is handed on.
    #[test]
    fn everything_is_seen_behind_an_overflow(days in proptest::collection::btree_set(0i64..366, 0..60), hands in any::<u64>()) {
        let connector = connector("events", "world-events", |_| {});
        let values = vec!["KR".into(), "expos".into()];
        let mut turn = 0;
        let hand_on = || { turn += 1; hands >> (turn % 64) & 1 == 1 };
        let days: Vec<i64> = days.into_iter().collect();
        let mut provider = world(days.clone(), 5);
        let progress = collect(&connector, &values, hand_on, &mut provider).expect("ends");
        let wanted: Vec<String> = days.iter().map(|day| format!("e{day}")).collect();
        prop_assert_eq!(lines(&progress, "id"), wanted);
        prop_assert_eq!(progress.gathered.records as usize, days.len());
    }
}

/// The stretch may begin in the body, also below another name.
#[test]
fn what_overflows_is_bisected_in_a_body_too() {
    let from_body = |request: &HttpRequest, name: &str| {
        let (_, body) = request.body.as_ref().expect("a body");
        let json: Value = serde_json::from_slice(body).unwrap_or_else(|_| {
            let pairs = url::form_urlencoded::parse(body).into_owned();
            json!({ "active": pairs.map(|(name, value)| {
                (name.trim_start_matches("active.").to_owned(), value.into())
            }).collect::<serde_json::Map<String, Value>>() })
        });
        json["active"][name].as_str().map(str::to_owned)
    };
    let date = || json!("{{ run.date }}");
    let json = RequestBody::Json(json!({ "active": { "gte": date() } }));
    let form = RequestBody::Form([("active.gte".to_owned(), date())].into_iter().collect());
    for body in [json, form] {
        let connector = connector("events", "world-events", |endpoint| {
            let request = endpoint.request.as_mut().expect("a request");
            request.method = Method::Post;
            request.query.shift_remove("active.gte");
            request.body = Some(body);
            endpoint.page = None;
        });
        let values = vec!["KR".into(), "expos".into()];
        let days: Vec<i64> = (0..40).map(|n| n * 3).collect();
        let mut answers = |request: &HttpRequest| {
            let from = from_body(request, "gte").expect("a first day");
            let to = from_body(request, "lte").unwrap_or_else(|| "9999-12-31".into());
            let found = days.iter().map(|day| event(*day)).filter(|event| {
                let start = &event["start"].as_str().expect("text")[..10];
                (from.as_str()..=to.as_str()).contains(&start)
            });
            let found: Vec<Value> = found.collect();
            json!({ "overflow": found.len() > 5, "results": found })
        };
        let progress = collect(&connector, &values, never, &mut answers).expect("ends");
        let wanted: Vec<String> = days.iter().map(|day| format!("e{day}")).collect();
        assert_eq!(lines(&progress, "id"), wanted);
    }
}

#[test]
fn a_day_that_overflows_alone_is_a_failure() {
    let connector = connector("events", "world-events", |_| {});
    let values = vec!["KR".into(), "expos".into()];
    let end = collect(&connector, &values, never, &mut world(vec![3; 9], 5));
    assert_eq!(
        end.err(),
        Some(StepError::Overflow("2026-11-24".parse().expect("a date")))
    );
}

#[test]
fn a_next_url_stays_at_its_provider() {
    let connector = connector("events", "world-events", |_| {});
    let values = vec!["KR".into(), "expos".into()];
    for (next, fault) in [
        ("https://api.test/v1/events/?p=2", StepError::ForeignUrl),
        ("http://api.test:81/v1/events/?p=2", StepError::ForeignUrl),
        ("http://api.test.evil/", StepError::ForeignUrl),
        ("//evil.test/", StepError::ForeignUrl),
        ("http://user@api.test/", StepError::ForeignUrl),
        ("file:///etc/passwd", StepError::ForeignUrl),
        ("http://[", StepError::BadCursor("URL")),
    ] {
        let end = collect(
            &connector,
            &values,
            never,
            &mut |_| json!({ "results": [], "next": next }),
        );
        assert_eq!(end.err(), Some(fault), "{next}");
    }
    for (next, followed) in [
        ("?p=2", "http://api.test/v1/events/?p=2"),
        ("/other?p=2#x", "http://api.test/other?p=2"),
        ("http://API.test:80/v1?p=2", "http://api.test/v1?p=2"),
    ] {
        let mut asked = Vec::new();
        let end = collect(&connector, &values, never, &mut |request| {
            asked.push(request.url.clone());
            let next = if asked.len() == 1 { next } else { "" };
            json!({ "results": [], "next": next })
        });
        assert!(end.is_ok(), "{next}");
        assert_eq!(asked[1], followed);
    }
}
