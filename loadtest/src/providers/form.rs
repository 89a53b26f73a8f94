//! Fields of a form or query, as they come over the wire.

use std::collections::BTreeMap;

/// Names and values, decoded; the last of a name counts.
pub(super) fn fields(encoded: &[u8]) -> BTreeMap<String, String> {
    let text = String::from_utf8_lossy(encoded);
    let decode = |part: &str| {
        let spaced = part.replace('+', " ");
        let decoded = percent_encoding::percent_decode_str(&spaced);
        decoded.decode_utf8_lossy().into_owned()
    };
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}
