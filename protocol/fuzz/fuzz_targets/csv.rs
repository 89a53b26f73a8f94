//! Answers in CSV and TSV.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use paceline_fuzz::{read, reader};
use paceline_protocol::connector::Connector;

static READERS: LazyLock<Vec<Connector>> = LazyLock::new(|| {
    let rest = "
endpoints:
  e:
    get: /e
    records: $[*]
    fields: {id: {path: $.id, as: string}, n: {path: $.n, as: integer, optional: true}, text: {path: \"$['a b']\", as: text, optional: true}}
";
    [
        "csv",
        "tsv",
        "{type: csv, charset: utf-16le}",
        "{type: csv, charset: cp949}",
    ]
    .map(|format| reader(format, rest))
    .into()
});

fuzz_target!(|input: (u8, &[u8])| {
    let (choice, body) = input;
    read(&READERS[usize::from(choice) % READERS.len()], 200, body, 1);
});
