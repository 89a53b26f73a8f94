//! Credentials by name: a YAML or JSON file, name -> fields. No message shows a value of it.

use std::collections::BTreeMap;

use super::Credential;
use super::credential_name::public_name;
use crate::settings::Environment;
use crate::spec::{expand_env, mapping_of_fields};

/// A file's credentials in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    /// Each of them.
    pub credentials: Vec<Credential>,
    /// The names by which `pick` finds them: their place in the list.
    pub places: BTreeMap<String, usize>,
}

/// Why a file of credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AccountsError {
    /// Its path is not known here.
    #[error(
        "provider {provider}: the path of its credentials needs {names}, which the environment lacks"
    )]
    Path {
        /// The provider.
        provider: String,
        /// What is missing.
        names: String,
    },
    /// It cannot be read.
    #[error("provider {provider}: its credentials in {path} cannot be read: {why}")]
    Unreadable {
        /// The provider.
        provider: String,
        /// The file.
        path: String,
        /// Why.
        why: std::io::Error,
    },
    /// It is something else.
    #[error("provider {provider}: {path} is not name -> fields, each a text: {why}")]
    NotAccounts {
        /// The provider.
        provider: String,
        /// The file.
        path: String,
        /// What is wrong, with its place and without a value.
        why: String,
    },
}

impl Accounts {
    /// Reads the file at `path` (with `${NAME}`) for `provider`.
    ///
    /// # Errors
    /// When it is not there or not what it should be; no message holds a secret.
    pub fn read(
        provider: &str,
        path: &str,
        env: &(impl Environment + ?Sized),
    ) -> Result<Self, AccountsError> {
        let path = expand_env(path, env).map_err(|missing| AccountsError::Path {
            provider: provider.to_owned(),
            names: missing.0.join(", "),
        })?;
        let text = std::fs::read_to_string(&path).map_err(|why| AccountsError::Unreadable {
            provider: provider.to_owned(),
            path: path.clone(),
            why,
        })?;
        Self::parse(provider, &text).map_err(|why| AccountsError::NotAccounts {
            provider: provider.to_owned(),
            path,
            why,
        })
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// Says what is wrong without showing a value.
    pub fn parse(provider: &str, text: &str) -> Result<Self, String> {
        let mut accounts = Accounts::default();
        for (place, (name, fields)) in mapping_of_fields(text)?.into_iter().enumerate() {
            let credential = Credential::new(
                &public_name(provider, place, &canonical(&name, &fields)),
                fields,
            );
            if accounts.places.insert(name.clone(), place).is_some() {
                return Err(format!("{name} is there twice"));
            }
            accounts.credentials.push(credential);
        }
        if accounts.credentials.is_empty() {
            return Err("it is empty".into());
        }
        Ok(accounts)
    }
}

/// A credential as one text, the same however its file is written.
fn canonical(name: &str, fields: &BTreeMap<String, String>) -> String {
    let mut text = format!("{}:{name}", name.len());
    for (field, value) in fields {
        text.push_str(&format!(
            "\0{}:{field}\0{}:{value}",
            field.len(),
            value.len()
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_and_json_say_the_same() {
        let yaml = "seller-001: {vendor_id: A1, access_key: k, secret_key: s}\nseller-002: {vendor_id: 12, access_key: k2, secret_key: s2}\n";
        let json = r#"{"seller-001": {"secret_key": "s", "vendor_id": "A1", "access_key": "k"},
                       "seller-002": {"vendor_id": "12", "access_key": "k2", "secret_key": "s2"}}"#;
        let (a, b) = (
            Accounts::parse("coupang", yaml).expect("yaml"),
            Accounts::parse("coupang", json).expect("json"),
        );
        let names = |accounts: &Accounts| {
            let each = accounts.credentials.iter().map(|c| c.name().to_owned());
            each.collect::<Vec<_>>()
        };
        assert_eq!(names(&a), names(&b));
        assert_eq!(a.places.get("seller-002"), Some(&1));
        assert!(names(&a)[1].starts_with("1-"));
    }

    #[test]
    fn a_wrong_file_is_told_without_its_values() {
        for text in [
            "",
            "- hunter2",
            "hunter2",
            "a: hunter2",
            "a: {b: [hunter2]}",
            "a: {b: hunter2}\na: {b: hunter2}",
            "{\"a\": {\"b\": \"hunter2\"",
            "a: {b: hunter2, b: hunter2}",
        ] {
            let why = Accounts::parse("p", text).expect_err(text);
            assert!(!why.contains("hunter2"), "{why}");
        }
    }
}
