//! What a template or expression uses: its names, and whether its syntax and filters are right.

use std::sync::OnceLock;

use minijinja::{Environment, ErrorKind};

use super::diagnostic::choose;
use crate::template::{FILTERS, environment};

/// minijinja's own filters.
const BUILT_IN: [&str; 46] = [
    "abs",
    "attr",
    "batch",
    "bool",
    "capitalize",
    "chain",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "first",
    "float",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "lines",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "pprint",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "split",
    "string",
    "sum",
    "title",
    "trim",
    "unique",
    "zip",
];

/// Functions that minijinja knows everywhere; no names of ours.
const FUNCTIONS: [&str; 4] = ["range", "dict", "debug", "namespace"];

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub hint: String,
}

fn env() -> &'static Environment<'static> {
    static ENV: OnceLock<Environment<'static>> = OnceLock::new();
    ENV.get_or_init(environment)
}

/// The names that the template `text` uses, sorted; attributes of names with their dots.
pub fn template(text: &str) -> Result<Vec<String>, Fault> {
    let compiled = env()
        .template_from_str(text)
        .map_err(|e| not_jinja(text, &e))?;
    filters_exist(&blocks(text))?;
    Ok(sorted(compiled.undeclared_variables(true)))
}

/// The names that the expression `text` uses, sorted.
pub fn expression(text: &str) -> Result<Vec<String>, Fault> {
    let compiled = env()
        .compile_expression(text)
        .map_err(|e| not_jinja(text, &e))?;
    filters_exist(text)?;
    Ok(sorted(compiled.undeclared_variables(true)))
}

fn sorted(names: std::collections::HashSet<String>) -> Vec<String> {
    let mut names: Vec<String> = names
        .into_iter()
        .filter(|n| !FUNCTIONS.contains(&n.as_str()))
        .collect();
    names.sort();
    names
}

fn not_jinja(text: &str, error: &minijinja::Error) -> Fault {
    let detail = error.detail().unwrap_or("it cannot be read");
    Fault {
        message: format!("`{text}` is no template: {detail}"),
        hint: "a name stands in {{ }}, a filter behind |: \"{{ depart | plus_days(1) }}\"; an expression (`where`) has no braces".to_owned(),
    }
}

/// What stands inside `{{ }}` and `{% %}`.
fn blocks(text: &str) -> String {
    let mut inside = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("{{").into_iter().chain(rest.find("{%")).min() {
        let close = if rest[start..].starts_with("{{") {
            "}}"
        } else {
            "%}"
        };
        let body = &rest[start + 2..];
        let end = body.find(close).unwrap_or(body.len());
        inside.push_str(&body[..end]);
        inside.push(' ');
        rest = body.get(end + 2..).unwrap_or("");
    }
    inside
}

/// minijinja finds an unknown filter only when it renders, so it is looked for here.
fn filters_exist(code: &str) -> Result<(), Fault> {
    for call in filter_calls(code) {
        let name = call.name.as_str();
        if !FILTERS.contains(&name) && !BUILT_IN.contains(&name) {
            let known: Vec<&str> = FILTERS.iter().chain(&BUILT_IN).copied().collect();
            let hint = choose(name, &known, "filters");
            return Err(Fault {
                message: format!("unknown filter `{name}`"),
                hint,
            });
        }
        arguments_fit(&call)?;
    }
    tests_exist(code)
}

/// Neither does it look for a test (`x is odd`) before it renders.
fn tests_exist(code: &str) -> Result<(), Fault> {
    for name in test_names(code) {
        let tried = env().render_str(&format!("{{{{ 1 is {name} }}}}"), ());
        if tried.is_err_and(|error| error.kind() == ErrorKind::UnknownTest) {
            return Err(Fault {
                message: format!("unknown test `is {name}`"),
                hint: "such as defined, none, number, string, odd, even, in".to_owned(),
            });
        }
    }
    Ok(())
}

/// The characters of `code`, each with whether it belongs to a text (its quotes among them).
fn with_texts(code: impl Iterator<Item = char>) -> impl Iterator<Item = (char, bool)> {
    code.scan(None, |quote, c| {
        let is_text = match *quote {
            Some(open) => {
                *quote = (c != open).then_some(open);
                true
            }
            None => {
                *quote = matches!(c, '"' | '\'').then_some(c);
                quote.is_some()
            }
        };
        Some((c, is_text))
    })
}

/// The names behind `is` and `is not`, outside of texts.
fn test_names(code: &str) -> Vec<String> {
    // A text becomes one word that is no name.
    let bare = with_texts(code.chars()).map(|(c, is_text)| if is_text { '.' } else { c });
    let bare: String = bare.collect();
    let of_a_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
    let words = bare
        .split(|c| !of_a_name(c))
        .filter(|word| !word.is_empty());
    let words: Vec<&str> = words.collect();
    let behind = |pair: &[&str]| (pair[0] == "is").then(|| pair[1].to_owned());
    let bare_of_not: Vec<&str> = words
        .iter()
        .copied()
        .filter(|word| *word != "not")
        .collect();
    bare_of_not.windows(2).filter_map(behind).collect()
}

/// A filter with what stands between the brackets behind it.
struct FilterCall {
    name: String,
    arguments: Option<String>,
}

/// What is written in the file is tried here, since a call would fail by it only when it is made.
fn arguments_fit(call: &FilterCall) -> Result<(), Fault> {
    let (sample, hint) = match call.name.as_str() {
        "date" => (
            "2026-11-21T13:14:15Z",
            "as in strftime, with a zone behind it where one is wanted: {{ now | date('%Y%m%d', 'Asia/Seoul') }}",
        ),
        "plus_days" => (
            "2026-11-21",
            "a whole number of days: {{ day | plus_days(-1) }}",
        ),
        "bcrypt" if call.arguments.is_none() => (
            "text",
            "the salt stands in the brackets: {{ text | bcrypt(credential.secret) }}",
        ),
        _ => return Ok(()),
    };
    let arguments = match &call.arguments {
        Some(written) if !is_literal(written) => return Ok(()),
        Some(written) => format!("({written})"),
        None => String::new(),
    };
    let name = &call.name;
    let tried = format!("{{{{ '{sample}' | {name}{arguments} }}}}");
    match env().render_str(&tried, ()) {
        Ok(_) => Ok(()),
        Err(error) => {
            let detail = error
                .detail()
                .unwrap_or("a value is missing in the brackets");
            Err(Fault {
                message: format!("`{name}{arguments}` cannot be used: {detail}"),
                hint: hint.to_owned(),
            })
        }
    }
}

/// Texts and numbers alone, no names.
fn is_literal(arguments: &str) -> bool {
    with_texts(arguments.chars())
        .all(|(c, is_text)| is_text || c.is_ascii_digit() || ", -+".contains(c))
}

/// The filters behind `|`, outside of texts.
fn filter_calls(code: &str) -> Vec<FilterCall> {
    let mut calls = Vec::new();
    for (at, (c, is_text)) in with_texts(code.chars()).enumerate() {
        if c == '|' && !is_text {
            let behind = code.chars().skip(at + 1);
            let mut behind = behind.skip_while(|c| c.is_whitespace()).peekable();
            let of_a_name = |c: &char| c.is_alphanumeric() || *c == '_';
            let name = std::iter::from_fn(|| behind.next_if(of_a_name)).collect();
            let arguments = (behind.peek() == Some(&'(')).then(|| arguments(behind));
            calls.push(FilterCall { name, arguments });
        }
    }
    calls
}

/// What stands between a bracket, where `chars` begins, and the one that closes it.
fn arguments(chars: impl Iterator<Item = char>) -> String {
    let (mut text, mut depth) = (String::new(), 0);
    for (c, is_text) in with_texts(chars) {
        depth += match c {
            '(' if !is_text => 1,
            ')' if !is_text => -1,
            _ => 0,
        };
        if depth == 0 {
            break;
        }
        text.push(c);
    }
    text.split_off(1.min(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found() {
        let names = |t| template(t).expect("a template");
        assert_eq!(
            names("{{ params.origin | lower }}-{{ day | date('%d|x') }}"),
            ["day", "params.origin"]
        );
        assert_eq!(names("{{ [a, b] | join('_') }}"), ["a", "b"]);
        assert_eq!(names("plain"), Vec::<String>::new());
        assert_eq!(
            expression("x > 1 and y | length == z"),
            Ok(vec!["x".into(), "y".into(), "z".into()])
        );
    }

    #[test]
    fn every_listed_filter_exists() {
        for name in BUILT_IN {
            let outcome = env().render_str(&format!("{{{{ 'x' | {name} }}}}"), ());
            let unknown = outcome.is_err_and(|e| e.kind() == minijinja::ErrorKind::UnknownFilter);
            assert!(!unknown, "{name}");
        }
    }

    #[test]
    fn faults_have_hints() {
        assert!(
            template("{{ a | plus_day(1) }}")
                .is_err_and(|f| f.hint.starts_with("did you mean `plus_days`"))
        );
        assert!(template("{{ a }").is_err());
        assert!(expression("{{ a }}").is_err());
    }

    #[test]
    fn arguments_of_filters_are_tried() {
        for good in [
            "{{ day | date('%d|x)') }}",
            "{{ now | date(\"%Y\", 'Asia/Seoul') }}",
            "{{ day | date(form) }}{{ day | plus_days(n * 2) }}",
            "{{ day | plus_days(-1) | date('%Y') }}",
            "{{ (day | plus_days(1)) ~ ')' }}",
            "{{ 'this is text' if day is not none and n is divisibleby 3 }}",
        ] {
            assert!(template(good).is_ok(), "{good}: {:?}", template(good));
        }
        for (bad, says) in [
            ("{{ now | date('%Y', 'Asia/Seul') }}", "Seul"),
            ("{{ now | date }}", "`date`"),
            ("{{ day | plus_days('x') }}", "plus_days"),
            ("{{ day | plus_days }}", "plus_days"),
            ("{{ day | bcrypt }}", "bcrypt"),
            ("{{ 'x' if day is not frobby }}", "frobby"),
        ] {
            let fault = template(bad).expect_err(bad);
            assert!(fault.message.contains(says), "{}", fault.message);
        }
    }
}
