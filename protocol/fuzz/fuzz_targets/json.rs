//! Answers in JSON and NDJSON, with pages, details and fields of every kind.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use paceline_fuzz::{read, reader};
use paceline_protocol::connector::Connector;

const FIELDS: &str = "{
      a: $.a, n: {path: $.n, as: integer, optional: true}, m: {path: $.m, as: decimal, optional: true},
      f: {path: $.f, as: float, optional: true}, b: {path: $.b, as: boolean, optional: true},
      t: {path: $.t, as: text, optional: true}, s: {path: $.s, as: string, optional: true},
      at: {path: $.at, as: datetime, zone: Asia/Seoul, optional: true},
      on: {path: '$.on[0].x', as: date, format: '%Y%m%d', optional: true}}";

static READERS: LazyLock<Vec<Connector>> = LazyLock::new(|| {
    let rules = "outcomes: [{when: {body: {path: $.code, is: -10}}, then: throttled, wait: {path: $.wait}}]";
    let ends = |rest: &str| {
        format!(
            "{rules}\nendpoints:\n  e:\n    get: /e\n{rest}    records: $.data[*]\n    fields: {FIELDS}\n"
        )
    };
    let detail = "    detail: {post: /d, batch: 2, ids: $.a, json: {ids: '{{ ids }}'}, records: '$.data[*]', join: {left: $.a, right: $.a}, missing: report}\n";
    let pages = [
        "",
        "    page: {style: cursor, next: $.next, query: next, max_pages: 4}\n",
        "    page: {style: cursor, next: {a: $.more.a, b: $.more.b}, max_pages: 4}\n",
        "    page: {style: next_url, next: $.next, max_pages: 4}\n",
        "    page: {style: offset, query: o, step: 2, total: $.total, last: 5, max_pages: 4}\n",
        "    page: {style: page, query: p, stop: {path: $.end, is: true}, max_pages: 4}\n",
        detail,
    ];
    let mut all: Vec<Connector> = pages.map(|page| reader("json", &ends(page))).into();
    all.push(reader("ndjson", &ends("").replace("$.data[*]", "$[*]")));
    all.push(reader("{type: json, charset: euc-kr}", &ends("")));
    all
});

fuzz_target!(|input: (u8, &[u8])| {
    let (choice, body) = input;
    let readers = &*READERS;
    let status = if choice & 0x80 == 0 { 200 } else { 400 };
    read(
        &readers[usize::from(choice & 0x7f) % readers.len()],
        status,
        body,
        4,
    );
});
