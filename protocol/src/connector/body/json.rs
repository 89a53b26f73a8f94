//! JSON and NDJSON: digits are kept as they are, of a key that comes twice the last one counts.

use serde_json::Value;

use super::{MOST_DEPTH, MOST_NODES};

/// Keys by which the parser marks its own values; no body may speak to it.
const PRIVATE: &str = "$serde_json::private::";

/// The value of the whole text.
pub(super) fn value(text: &str) -> Result<Value, String> {
    let mut nodes = 0;
    one(text, &mut nodes)
}

/// A list of the values, one a line; empty lines are skipped.
pub(super) fn lines(text: &str) -> Result<Value, String> {
    let mut nodes = 0;
    let mut values = Vec::new();
    for (i, line) in text.lines().enumerate() {
        if !line.trim().is_empty() {
            let value = one(line, &mut nodes).map_err(|why| format!("line {}: {why}", i + 1))?;
            values.push(value);
        }
    }
    Ok(Value::Array(values))
}

fn one(text: &str, nodes: &mut usize) -> Result<Value, String> {
    look_over(text.as_bytes(), nodes)?;
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// What must be known before anything is built: depth, number of nodes, keys that are not the body's to use.
fn look_over(bytes: &[u8], nodes: &mut usize) -> Result<(), String> {
    let (mut depth, mut at) = (0usize, 0usize);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = skip_text(bytes, at)?,
            b'{' | b'[' => {
                depth += 1;
                *nodes += 1;
                if depth > MOST_DEPTH {
                    return Err(format!("deeper than {MOST_DEPTH}"));
                }
                if *nodes > MOST_NODES {
                    return Err(format!("more than {MOST_NODES} lists and objects"));
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

/// The place of the quote that closes the text opened at `open`, or the end.
fn skip_text(bytes: &[u8], open: usize) -> Result<usize, String> {
    let mut at = open + 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    let inner = bytes.get(open + 1..at).unwrap_or_default();
    // Also when it is written with escapes.
    let suspect = inner.starts_with(b"$") || inner.starts_with(b"\\u0024");
    if suspect && let Some(whole) = bytes.get(open..=at) {
        let text: Option<String> = serde_json::from_slice(whole).ok();
        if text.is_some_and(|text| text.starts_with(PRIVATE)) {
            return Err("it has a key that means something to the parser".into());
        }
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_kept() {
        let text = r#"{"a":80000.50,"b":123456789012345678901234567890,"c":1E400}"#;
        assert_eq!(
            value(text).expect("parses").to_string(),
            text.replace("1E400", "1e+400")
        );
    }

    #[test]
    fn the_last_of_two_keys_counts() {
        assert_eq!(
            value(r#"{"a":1,"a":2}"#).expect("parses")["a"].to_string(),
            "2"
        );
    }

    #[test]
    fn what_is_no_json() {
        for bad in [
            "",
            " ",
            "{",
            "[1,",
            "nul",
            "{\"a\":NaN}",
            "[1] x",
            "<html>",
            "\"a",
            "\"\\",
            "{\"a\":\"\u{0}\"}",
        ] {
            assert!(value(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn depth_and_number_are_capped() {
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(value(&nested(MOST_DEPTH)).is_ok());
        assert!(value(&nested(MOST_DEPTH + 1)).is_err_and(|why| why.contains("deeper")));
        assert!(value(&"[".repeat(2_000_000)).is_err());
        assert!(value(r#"["[[[[", "\"[["]"#).is_ok());
        let many = format!("[{}1]", "[],".repeat(MOST_NODES));
        assert!(value(&many).is_err_and(|why| why.contains("more than")));
    }

    #[test]
    fn the_parsers_own_keys_are_refused() {
        for key in [
            "$serde_json::private::Number",
            "\\u0024serde_json::private::RawValue",
        ] {
            assert!(value(&format!(r#"{{"{key}": "1"}}"#)).is_err(), "{key}");
        }
        assert!(value(r#"{"$ref": "$"}"#).is_ok());
    }

    #[test]
    fn lines_are_values_of_a_list() {
        assert_eq!(
            lines("{\"a\":1}\r\n\n[2]\n").expect("parses").to_string(),
            r#"[{"a":1},[2]]"#
        );
        assert!(lines("1\n{\n").is_err_and(|why| why.starts_with("line 2:")));
        assert_eq!(lines("").expect("nothing"), Value::Array(vec![]));
    }
}
