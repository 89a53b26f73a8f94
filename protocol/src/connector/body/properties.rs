//! No bytes whatever make a reader panic, and what it reads is within its caps.

use proptest::prelude::*;
use serde_json::Value;

use super::{Body, BodyReader, MOST_DEPTH};
use crate::spec::{Format, FormatKind};

const KINDS: [FormatKind; 6] = [
    FormatKind::Json,
    FormatKind::Ndjson,
    FormatKind::Xml,
    FormatKind::Csv,
    FormatKind::Tsv,
    FormatKind::Html,
];

/// One good body of each kind.
const SAMPLES: [&str; 6] = [
    r#"{"data":[{"a":1.50,"b":"\u00e9","c":null},{"a":-2e3,"b":"x","c":true}]}"#,
    "{\"a\":1}\n{\"a\":[2,\"\\\"\"]}\n",
    "<?xml version=\"1.0\"?><!DOCTYPE o><n:o xmlns:n='u'><order a=\"1&amp;2\"><b>&#65;<![CDATA[<]]></b></order></n:o>",
    "id,name\n1,\"a,\"\"b\"\"\"\n2,c\n",
    "id\tname\n1\ta b\n",
    "<!doctype html><html><body><table><tr><td class=a>1<br>2</td></tr></table><script>a<b</script></body></html>",
];

fn reader(kind: FormatKind, charset: Option<&str>) -> BodyReader {
    BodyReader::compile(&Format {
        kind,
        charset: charset.map(str::to_owned),
        force_array: vec!["order".into()],
        max_body: None,
    })
    .expect("compiles")
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn read_within_caps(kind: FormatKind, charset: Option<&str>, bytes: &[u8]) {
    if let Ok(Body::Tree(tree)) = reader(kind, charset).read(bytes, None) {
        // A list of lines, or of elements of one name, adds to what is nested.
        assert!(depth(&tree) <= 2 * MOST_DEPTH + 2);
    }
}

/// A sample with pieces cut out, doubled or overwritten.
fn mutated() -> impl Strategy<Value = (usize, Vec<u8>)> {
    let change = (any::<prop::sample::Index>(), any::<u8>(), 0..4u8);
    (0..KINDS.len(), prop::collection::vec(change, 0..12)).prop_map(|(kind, changes)| {
        let mut bytes = SAMPLES[kind].as_bytes().to_vec();
        for (place, byte, what) in changes {
            if bytes.is_empty() {
                break;
            }
            let at = place.index(bytes.len());
            match what {
                0 => bytes[at] = byte,
                1 => bytes.truncate(at),
                2 => bytes.insert(at, byte),
                _ => {
                    let tail = bytes[at..].to_vec();
                    bytes.extend(tail);
                }
            }
        }
        (kind, bytes)
    })
}

proptest! {
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400), korean: bool) {
        for kind in KINDS {
            read_within_caps(kind, korean.then_some("euc-kr"), &bytes);
        }
    }

    #[test]
    fn spoilt_samples((kind, bytes) in mutated()) {
        read_within_caps(KINDS[kind], None, &bytes);
    }

    #[test]
    fn a_cut_off_tree_is_never_read(kind in 0..3usize, cut in any::<prop::sample::Index>()) {
        let sample = SAMPLES[kind].trim_end();
        let cut = cut.index(sample.len());
        if cut > 0 && sample.is_char_boundary(cut) {
            let read = reader(KINDS[kind], None).read(&sample.as_bytes()[..cut], None);
            // NDJSON is whole at the end of a line.
            let at_line = KINDS[kind] == FormatKind::Ndjson && sample[..cut].trim_end().ends_with('}');
            prop_assert!(at_line || read.is_err());
        }
    }
}

#[test]
fn the_samples_are_good() {
    for (kind, sample) in KINDS.into_iter().zip(SAMPLES) {
        let read = reader(kind, None).read(sample.as_bytes(), None);
        assert!(read.is_ok(), "{kind:?}: {read:?}");
    }
}
