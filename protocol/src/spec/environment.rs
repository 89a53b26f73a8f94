//! `${NAME}` in the files: the environment of whoever needs the value.

use crate::settings::Environment;

/// Names that the environment lacks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the environment lacks {}", .0.join(", "))]
pub struct MissingNames(pub Vec<String>);

/// A piece of a text.
enum Piece<'t> {
    Text(&'t str),
    Name(&'t str),
    /// `${` that is no name in braces.
    Broken(&'t str),
}

fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        found.push(Piece::Text(&rest[..start]));
        let inside = &rest[start + 2..];
        let end = inside.find('}').unwrap_or(inside.len());
        let name = &inside[..end];
        found.push(if end < inside.len() && is_variable(name) {
            Piece::Name(name)
        } else {
            Piece::Broken(name)
        });
        rest = inside.get(end + 1..).unwrap_or("");
    }
    found.push(Piece::Text(rest));
    found
}

/// Whether `name` can name a variable of the environment here.
pub(crate) fn is_variable(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    !name.is_empty() && name.bytes().all(legal) && !name.as_bytes()[0].is_ascii_digit()
}

/// The names in `text`.
///
/// # Errors
/// The first `${` that is no name in braces: what follows it.
pub fn names_in(text: &str) -> Result<Vec<String>, String> {
    pieces(text)
        .into_iter()
        .filter_map(|piece| match piece {
            Piece::Text(_) => None,
            Piece::Name(name) => Some(Ok(name.to_owned())),
            Piece::Broken(text) => Some(Err(text.to_owned())),
        })
        .collect()
}

/// `text` with every `${NAME}` replaced by its value (or the content of the file that `NAME_FILE` names).
///
/// # Errors
/// All the names that the environment lacks.
pub fn expand_env(text: &str, env: &(impl Environment + ?Sized)) -> Result<String, MissingNames> {
    let mut expanded = String::with_capacity(text.len());
    let mut missing = Vec::new();
    for piece in pieces(text) {
        match piece {
            Piece::Text(text) | Piece::Broken(text) => expanded.push_str(text),
            Piece::Name(name) => match env.secret(name) {
                Ok(Some(value)) => expanded.push_str(&value),
                Ok(None) | Err(_) => missing.push(name.to_owned()),
            },
        }
    }
    if missing.is_empty() {
        Ok(expanded)
    } else {
        Err(MissingNames(missing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn names_become_values_or_are_named() {
        let env = BTreeMap::from([("HOST".to_owned(), "h:1".to_owned())]);
        assert_eq!(
            expand_env("http://${HOST}/x", &env),
            Ok("http://h:1/x".into())
        );
        assert_eq!(
            expand_env("${A}${HOST}${B}", &env),
            Err(MissingNames(vec!["A".into(), "B".into()]))
        );
        assert_eq!(expand_env("$.a[?@.b]", &env), Ok("$.a[?@.b]".into()));
    }

    #[test]
    fn broken_names_are_found() {
        assert_eq!(names_in("${A}-${B_2}"), Ok(vec!["A".into(), "B_2".into()]));
        for bad in ["${", "${A", "${a}", "${A B}", "${2}", "${}"] {
            assert!(names_in(bad).is_err(), "{bad}");
        }
    }
}
