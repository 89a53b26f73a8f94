//! Answers in HTML.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use paceline_fuzz::{read, reader};
use paceline_protocol::connector::Connector;

static READER: LazyLock<Connector> = LazyLock::new(|| {
    reader(
        "html",
        "
outcomes: [{when: {body: {css: 'p.notice', matches: 'x'}}, then: maintenance, wait: 10m}]
endpoints:
  e:
    get: /e
    page: {style: page, query: p, stop: empty, max_pages: 3}
    records: {css: 'table tbody tr'}
    fields: {id: {css: 'td.id', as: string}, link: {css: 'td a', attribute: href, optional: true}, n: {css: td.n, as: integer, optional: true}, text: {css: 'td:nth-child(2)', as: text, optional: true}}
",
    )
});

fuzz_target!(|body: &[u8]| read(&READER, 200, body, 3));
