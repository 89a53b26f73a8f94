//! HTML, read as a browser does: whatever is written there is some document, so what makes it an answer is
//! looked at before.

use scraper::{ElementRef, Html, Node, Selector};

use super::{MOST_DEPTH, MOST_NODES};

/// HTML nests deeper than data, and its tree is flat in memory; but a parser walks the open elements for
/// every tag.
const MOST_HTML_DEPTH: usize = 8 * MOST_DEPTH;

/// A document.
pub struct Page(Box<Html>);

impl std::fmt::Debug for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Page")
    }
}

/// A compiled selector.
pub(super) fn selector(source: &str) -> Result<Selector, String> {
    Selector::parse(source).map_err(|error| error.to_string())
}

impl Page {
    pub(super) fn read(text: &str) -> Result<Self, String> {
        look_over(text)?;
        Ok(Page(Box::new(Html::parse_document(text))))
    }

    /// Every element that `selector` finds.
    pub(super) fn select<'p>(
        &'p self,
        selector: &'p Selector,
    ) -> impl Iterator<Item = ElementRef<'p>> {
        self.0.select(selector)
    }
}

/// The text of an element, without the white space around it; `<br>` is a new line.
pub(super) fn text_of(element: ElementRef<'_>) -> String {
    let mut text = String::new();
    for node in element.descendants() {
        match node.value() {
            Node::Text(piece) => text.push_str(piece),
            Node::Element(inner) if inner.name() == "br" => text.push('\n'),
            _ => {}
        }
    }
    text.trim().to_owned()
}

/// There must be a tag, none may be cut off, and they nest within reason.
fn look_over(text: &str) -> Result<(), String> {
    let (mut depth, mut tags, mut rest) = (0usize, 0usize, text);
    while let Some(open) = rest.find('<') {
        rest = &rest[open..];
        let Some(name) = tag_name(rest) else {
            rest = after(rest, if rest.starts_with("<!--") { "-->" } else { "<" });
            continue;
        };
        tags += 1;
        let Some(close) = rest.find('>') else {
            return Err("it ends inside of a tag".into());
        };
        let tag = &rest[..close];
        rest = &rest[close + 1..];
        if tag.starts_with("</") {
            depth = depth.saturating_sub(usize::from(nests(&name)));
        } else if RAW.contains(&name.as_str()) {
            rest = raw_end(rest, &name);
        } else if nests(&name) && !tag.ends_with('/') {
            depth += 1;
        }
        if depth > MOST_HTML_DEPTH {
            return Err(format!("deeper than {MOST_HTML_DEPTH}"));
        }
        if tags > MOST_NODES {
            return Err(format!("more than {MOST_NODES} tags"));
        }
    }
    match tags {
        0 => Err("it has no element".into()),
        _ => Ok(()),
    }
}

/// Elements whose content is no markup.
const RAW: [&str; 4] = ["script", "style", "textarea", "title"];

/// Elements without an end tag, or whose end tag need not be written: they do not pile up.
const FLAT: [&str; 29] = [
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source",
    "track", "wbr", "p", "li", "dt", "dd", "option", "optgroup", "tr", "td", "th", "tbody",
    "thead", "tfoot", "colgroup", "rp", "rt",
];

fn nests(name: &str) -> bool {
    !FLAT.contains(&name)
}

/// The name of the tag that `text` begins with, in lower case.
fn tag_name(text: &str) -> Option<String> {
    let name = text[1..].strip_prefix('/').unwrap_or(&text[1..]);
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        .then(|| {
            name.chars()
                .take_while(char::is_ascii_alphanumeric)
                .take(16)
                .map(|c| c.to_ascii_lowercase())
                .collect()
        })
}

/// What stands behind `mark`, beyond the first character; nothing when it does not come.
fn after<'t>(text: &'t str, mark: &str) -> &'t str {
    let found = text[1..].find(mark).map(|at| 1 + at);
    match (found, mark) {
        (None, _) => "",
        (Some(at), "<") => &text[at..],
        (Some(at), _) => &text[at + mark.len()..],
    }
}

/// From the end tag of a raw element on.
fn raw_end<'t>(text: &'t str, name: &str) -> &'t str {
    let ends = text.match_indices("</").map(|(at, _)| at);
    let mut ends = ends.filter(|at| tag_name(&text[*at..]).is_some_and(|found| found == name));
    ends.next().map_or("", |at| &text[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(page: &str, css: &str) -> Vec<String> {
        let page = Page::read(page).expect("reads");
        let selector = selector(css).expect("a selector");
        page.select(&selector).map(text_of).collect()
    }

    #[test]
    fn elements_are_found_and_their_text_is_trimmed() {
        let page = "<!doctype html><table class=r><tr><td class=t> a &lt;b&gt;<br>c &amp; <b>d</b>\n</td></table>";
        assert_eq!(texts(page, "table.r tbody tr td.t"), ["a <b>\nc & d"]);
        assert_eq!(texts(page, "p"), Vec::<String>::new());
    }

    #[test]
    fn what_is_no_page() {
        for bad in ["", "{\"a\": \"<\"}", "1 < 2", "<p>x<td class=\"a"] {
            assert!(Page::read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn depth_is_capped_where_it_piles_up() {
        assert!(Page::read(&"<div>".repeat(100_000)).is_err());
        assert!(Page::read(&"<li>x<p>y<br>".repeat(2_000)).is_ok());
        let script = format!("<script>{}</script><p>x", "if(a<b)x='<div>';".repeat(2_000));
        assert_eq!(texts(&script, "p"), ["x"]);
        let comment = format!("<!-- {} --><p>x", "<div>".repeat(2_000));
        assert_eq!(texts(&comment, "p"), ["x"]);
    }
}
