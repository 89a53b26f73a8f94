//! Answers in XML.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use paceline_fuzz::{read, reader};
use paceline_protocol::connector::Connector;

static READERS: LazyLock<Vec<Connector>> = LazyLock::new(|| {
    let rest = "
outcomes:
  - {when: {body: {path: $.orders.result_code, is: '0'}}, then: empty}
  - {when: {body: {path: $.orders.result_text, matches: 'x'}}, then: permanent}
endpoints:
  e:
    get: /e
    records: $.orders.order[*]
    fields: {no: {path: $.ordNo, as: string}, id: {path: \"$['@id']\", optional: true}, amount: {path: $.amt, as: decimal, optional: true}, at: {path: $.at, as: datetime, zone: Asia/Seoul, format: '%Y-%m-%d %H:%M:%S', optional: true}}
";
    [
        "{type: xml, force_array: [order]}",
        "{type: xml, charset: euc-kr, force_array: [order, a]}",
    ]
    .map(|format| reader(format, rest))
    .into()
});

fuzz_target!(|input: (bool, &[u8])| {
    let (korean, body) = input;
    read(&READERS[usize::from(korean)], 200, body, 1);
});
