//! XML as a tree of JSON values, so that paths read it.
//!
//! An element is an object under its name without the namespace's prefix; elements of one name beside each
//! other are a list, those of `force_array` always. Attributes are `@name`. An element with nothing but text
//! is that text, without the white space around it; text beside attributes or elements is `#text`.
//! `xsi:nil="true"` is null. CDATA is text. Of entities there are the five of XML and those by number: what
//! a document type declares is not read, so nothing external is and nothing multiplies.

use quick_xml::Reader;
use quick_xml::XmlVersion;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::{BytesRef, BytesStart, Event};
use serde_json::{Map, Value};

use super::{MOST_DEPTH, MOST_NODES};

/// More attributes than any element has; looking for doubles costs their square.
const MOST_ATTRIBUTES: usize = 256;

/// The document as `{root: ...}`.
pub(super) fn tree(text: &str, force_array: &[String]) -> Result<Value, String> {
    let mut reader = Reader::from_str(text);
    let mut build = Build {
        force_array,
        open: vec![Element::default()],
        nodes: 0,
    };
    loop {
        let event = reader
            .read_event()
            .map_err(|e| format!("{e} (byte {})", reader.error_position()))?;
        if matches!(event, Event::Eof) {
            return build.end();
        }
        let at = reader.buffer_position();
        build
            .take(event)
            .map_err(|why| format!("{why} (byte {at})"))?;
    }
}

/// An element that is not closed yet; the lowest one is the document.
#[derive(Default)]
struct Element {
    name: String,
    fields: Map<String, Value>,
    text: String,
    is_nil: bool,
}

struct Build<'f> {
    force_array: &'f [String],
    open: Vec<Element>,
    nodes: usize,
}

impl Build<'_> {
    fn take(&mut self, event: Event<'_>) -> Result<(), String> {
        match event {
            Event::Start(start) => self.start(&start),
            Event::Empty(start) => {
                self.start(&start)?;
                self.close();
                Ok(())
            }
            Event::End(_) => {
                self.close();
                Ok(())
            }
            Event::Text(text) => self.text(&text.xml10_content()),
            Event::CData(text) => self.text(&text.xml10_content()),
            Event::GeneralRef(entity) => {
                let text = resolved(&entity)?;
                self.text(&text)
            }
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) | Event::Eof => {
                Ok(())
            }
        }
    }

    fn start(&mut self, start: &BytesStart<'_>) -> Result<(), String> {
        let is_root = self.open.len() == 1;
        if is_root && !self.open[0].fields.is_empty() {
            return Err("a second root element".into());
        }
        if self.open.len() > MOST_DEPTH {
            return Err(format!("deeper than {MOST_DEPTH}"));
        }
        self.nodes += 1;
        if self.nodes > MOST_NODES {
            return Err(format!("more than {MOST_NODES} elements"));
        }
        let mut element = Element {
            name: start.local_name().as_ref().to_owned(),
            ..Element::default()
        };
        attributes(start, &mut element)?;
        self.open.push(element);
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), String> {
        let outside = self.open.len() == 1;
        if outside && !text.trim().is_empty() {
            return Err("text outside of the root element".into());
        }
        if !outside && let Some(element) = self.open.last_mut() {
            element.text.push_str(text);
        }
        Ok(())
    }

    /// The reader has checked that an end tag closes what was opened.
    fn close(&mut self) {
        if self.open.len() < 2 {
            return;
        }
        let Some(element) = self.open.pop() else {
            return;
        };
        let name = element.name.clone();
        let forced = self.force_array.contains(&name);
        let value = element.value();
        if let Some(parent) = self.open.last_mut() {
            add(&mut parent.fields, name, value, forced);
        }
    }

    fn end(mut self) -> Result<Value, String> {
        if let [_, .., inner] = self.open.as_slice() {
            return Err(format!("it ends inside of <{}>", inner.name));
        }
        match self.open.pop() {
            Some(document) if !document.fields.is_empty() => Ok(Value::Object(document.fields)),
            _ => Err("it has no element".into()),
        }
    }
}

impl Element {
    fn value(mut self) -> Value {
        let text = self.text.trim();
        if self.is_nil {
            return Value::Null;
        }
        if self.fields.is_empty() {
            return Value::String(text.to_owned());
        }
        if !text.is_empty() {
            let text = Value::String(text.to_owned());
            self.fields.insert("#text".to_owned(), text);
        }
        Value::Object(self.fields)
    }
}

/// The second of a name makes a list.
fn add(fields: &mut Map<String, Value>, name: String, value: Value, forced: bool) {
    match fields.get_mut(&name) {
        None if forced => {
            fields.insert(name, Value::Array(vec![value]));
        }
        None => {
            fields.insert(name, value);
        }
        // No element's own value is a list, so a list here holds elements.
        Some(Value::Array(items)) => items.push(value),
        Some(one) => {
            let first = one.take();
            *one = Value::Array(vec![first, value]);
        }
    }
}

fn attributes(start: &BytesStart<'_>, element: &mut Element) -> Result<(), String> {
    for (i, attribute) in start.attributes().enumerate() {
        if i == MOST_ATTRIBUTES {
            return Err(format!("more than {MOST_ATTRIBUTES} attributes"));
        }
        let attribute = attribute.map_err(|e| e.to_string())?;
        if attribute.key.as_namespace_binding().is_some() {
            continue;
        }
        let value = attribute
            .normalized_value(XmlVersion::Explicit1_0)
            .map_err(|e| e.to_string())?;
        let name: &str = attribute.key.local_name().into_inner();
        if name == "nil" && matches!(value.as_ref(), "true" | "1") {
            element.is_nil = true;
            continue;
        }
        element
            .fields
            .insert(format!("@{name}"), Value::String(value.into_owned()));
    }
    Ok(())
}

fn resolved(entity: &BytesRef<'_>) -> Result<String, String> {
    if let Some(letter) = entity.resolve_char_ref().map_err(|e| e.to_string())? {
        return Ok(letter.to_string());
    }
    let name = entity.xml10_content();
    match resolve_xml_entity(&name) {
        Some(text) => Ok(text.to_owned()),
        None => Err(format!("an entity that XML does not have: &{name};")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, String> {
        tree(text, &["order".to_owned()]).map(|tree| tree.to_string())
    }

    #[track_caller]
    fn reads(text: &str, json: &str) {
        assert_eq!(read(text).as_deref(), Ok(json), "{text}");
    }

    #[test]
    fn elements_are_objects_and_lists() {
        reads(
            "<?xml version=\"1.0\"?>\n<ns2:orders xmlns:ns2='urn:x'><ns2:order><ordNo> 1 </ordNo></ns2:order></ns2:orders>\n",
            r#"{"orders":{"order":[{"ordNo":"1"}]}}"#,
        );
        reads(
            "<a><b>1</b><c/><b>2</b></a>",
            r#"{"a":{"b":["1","2"],"c":""}}"#,
        );
        reads(
            "<orders><result_code>0</result_code></orders>",
            r#"{"orders":{"result_code":"0"}}"#,
        );
    }

    #[test]
    fn attributes_text_and_entities() {
        reads(
            r#"<a x="1 &amp; 2" n:y='z'>t<!-- no -->u</a>"#,
            r##"{"a":{"#text":"tu","@x":"1 & 2","@y":"z"}}"##,
        );
        reads(
            "<a>&lt;b&gt; &#48;&#x31; <![CDATA[<c> &amp;]]></a>",
            r#"{"a":"<b> 01 <c> &amp;"}"#,
        );
        reads(r#"<a xmlns:i="u" i:nil="true"/>"#, r#"{"a":null}"#);
    }

    #[test]
    fn what_is_no_xml() {
        for bad in [
            "",
            "  ",
            "x",
            "<a>",
            "<a><b></a>",
            "<a></b>",
            "<a/><b/>",
            "<a/>x",
            "<a x=1/>",
            "<a x='1' x='2'/>",
            "<a>&nbsp;</a>",
            "<a>&#0;</a>",
            "<a><![CDATA[x</a>",
            "</a>",
            "<a",
            "{\"a\": 1}",
        ] {
            assert!(read(bad).is_err(), "{bad}: {:?}", read(bad));
        }
    }

    #[test]
    fn nothing_is_declared_fetched_or_multiplied() {
        let laughs = "<!DOCTYPE a [<!ENTITY b \"bbb\"><!ENTITY c SYSTEM \"file:///etc/passwd\">]>";
        assert!(read(&format!("{laughs}<a>&b;</a>")).is_err());
        assert!(read(&format!("{laughs}<a>&c;</a>")).is_err());
        assert!(read(&format!("{laughs}<a x='&b;'/>")).is_err());
        reads(&format!("{laughs}<a>b</a>"), r#"{"a":"b"}"#);
    }

    #[test]
    fn depth_and_width_are_capped() {
        let nested = |n: usize| format!("{}{}", "<a>".repeat(n), "</a>".repeat(n));
        assert!(read(&nested(MOST_DEPTH)).is_ok());
        assert!(read(&nested(MOST_DEPTH + 1)).is_err_and(|why| why.contains("deeper")));
        let wide: String = (0..2000).map(|i| format!(" a{i}='1'")).collect();
        assert!(read(&format!("<a{wide}/>")).is_err());
        let many = format!("<a>{}</a>", "<b/>".repeat(MOST_NODES));
        assert!(read(&many).is_err_and(|why| why.contains("more than")));
    }
}
