//! What a template or expression uses: its names, and whether its syntax and filters are right.

use std::sync::OnceLock;

use minijinja::Environment;

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
    for name in filter_names(code) {
        if !FILTERS.contains(&name.as_str()) && !BUILT_IN.contains(&name.as_str()) {
            let known: Vec<&str> = FILTERS.iter().chain(&BUILT_IN).copied().collect();
            let hint = choose(&name, &known, "filters");
            return Err(Fault {
                message: format!("unknown filter `{name}`"),
                hint,
            });
        }
    }
    Ok(())
}

/// The names behind `|`, outside of texts.
fn filter_names(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut quote = None;
    let mut chars = code.chars().peekable();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(_), '\\') => {
                chars.next();
            }
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '|') => {
                while chars.next_if(|c| c.is_whitespace()).is_some() {}
                names.push(
                    std::iter::from_fn(|| chars.next_if(|c| c.is_alphanumeric() || *c == '_'))
                        .collect(),
                );
            }
            (None, _) => {}
        }
    }
    names
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
}
