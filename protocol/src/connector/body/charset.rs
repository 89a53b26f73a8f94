//! From bytes to text: a byte order mark decides, then the provider's file, then the answer's content type,
//! then what an XML or HTML document says of itself, then UTF-8.

use std::borrow::Cow;

use encoding_rs::{EUC_KR, Encoding, UTF_8};

use crate::spec::FormatKind;

pub(super) type Charset = &'static Encoding;

/// A document says its charset within so many bytes, or not at all.
const PROLOGUE: usize = 1024;

/// The charset called `label`. EUC-KR is read as its superset CP949, as everybody does.
pub(super) fn by_label(label: &str) -> Option<Charset> {
    let label = label.trim().trim_matches(['"', '\'']);
    let korean = ["cp949", "ms949", "uhc", "cp-949"];
    if korean.iter().any(|name| name.eq_ignore_ascii_case(label)) {
        return Some(EUC_KR);
    }
    Encoding::for_label_no_replacement(label.as_bytes())
}

/// The whole text, without its byte order mark; one byte that does not decode refuses it.
pub(super) fn text_of<'b>(
    bytes: &'b [u8],
    declared: Option<Charset>,
    content_type: Option<&str>,
    kind: FormatKind,
) -> Result<Cow<'b, str>, String> {
    let (charset, bytes) = match Encoding::for_bom(bytes) {
        Some((charset, mark)) => (charset, &bytes[mark..]),
        None => (named(bytes, declared, content_type, kind), bytes),
    };
    charset
        .decode_without_bom_handling_and_without_replacement(bytes)
        .ok_or_else(|| format!("it is not {}", charset.name()))
}

fn named(
    bytes: &[u8],
    declared: Option<Charset>,
    content_type: Option<&str>,
    kind: FormatKind,
) -> Charset {
    declared
        .or_else(|| of_content_type(content_type?))
        .or_else(|| of_itself(bytes, kind))
        .unwrap_or(UTF_8)
}

/// `text/xml; charset=EUC-KR`
fn of_content_type(content_type: &str) -> Option<Charset> {
    content_type.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let is_charset = name.trim().eq_ignore_ascii_case("charset");
        is_charset.then(|| by_label(value)).flatten()
    })
}

/// `<?xml version="1.0" encoding="EUC-KR"?>`, `<meta charset="euc-kr">`
fn of_itself(bytes: &[u8], kind: FormatKind) -> Option<Charset> {
    let key = match kind {
        FormatKind::Xml => "encoding",
        FormatKind::Html => "charset",
        _ => return None,
    };
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(PROLOGUE)]).to_ascii_lowercase();
    let within = match kind {
        FormatKind::Xml => start
            .trim_start()
            .strip_prefix("<?xml")?
            .split("?>")
            .next()?,
        _ => start.split_once("<meta")?.1,
    };
    let value = within
        .split_once(key)?
        .1
        .trim_start()
        .strip_prefix('=')?
        .trim_start();
    let label: String = value
        .trim_start_matches(['"', '\''])
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || "-_".contains(*c))
        .collect();
    by_label(&label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], file: Option<&str>, header: Option<&str>, kind: FormatKind) -> String {
        let declared = file.map(|label| by_label(label).expect("known"));
        match text_of(bytes, declared, header, kind) {
            Ok(text) => text.into_owned(),
            Err(why) => why,
        }
    }

    #[test]
    fn who_says_the_charset() {
        let (korean, _, _) = EUC_KR.encode("주문");
        let xml = [
            b"<?xml version='1.0' encoding='EUC-KR'?>".as_slice(),
            &korean,
        ]
        .concat();
        let html = [b"<html><meta charset=euc-kr>".as_slice(), &korean].concat();
        let (csv, utf8) = (FormatKind::Csv, "text/csv; charset=utf-8");
        assert_eq!(read(&korean, Some("euc-kr"), None, csv), "주문");
        assert_eq!(read(&korean, Some("CP949"), Some(utf8), csv), "주문");
        assert_eq!(
            read(&korean, None, Some("text/csv; Charset=\"EUC-KR\""), csv),
            "주문"
        );
        assert!(read(&xml, None, None, FormatKind::Xml).ends_with("주문"));
        assert!(read(&html, None, None, FormatKind::Html).ends_with("주문"));
        assert_eq!(read(&korean, None, None, csv), "it is not UTF-8");
        assert_eq!(read("주문".as_bytes(), None, None, csv), "주문");
        assert_eq!(
            read("\u{feff}주문".as_bytes(), Some("euc-kr"), None, csv),
            "주문"
        );
        assert_eq!(read(b"a", None, Some("text/csv; charset=x"), csv), "a");
    }

    #[test]
    fn half_a_character_is_no_text() {
        let (korean, _, _) = EUC_KR.encode("주문");
        assert_eq!(
            read(&korean[..3], Some("euc-kr"), None, FormatKind::Csv),
            "it is not EUC-KR"
        );
        // A character that CP949 has beyond EUC-KR.
        let (wide, _, _) = EUC_KR.encode("똠");
        assert_eq!(read(&wide, Some("euc-kr"), None, FormatKind::Csv), "똠");
    }
}
