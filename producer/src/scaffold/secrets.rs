//! What in a call is a secret, and the templates that stand for it in a file.

use paceline_protocol::spec::{is_secret_name, is_signed_token};

/// Secrets that were taken out of a call. Each has a name, once; the values are only compared.
#[derive(Default)]
pub(super) struct Secrets {
    found: Vec<(String, String)>,
}

impl Secrets {
    /// The name of `value`, which stands under `place` in the call.
    fn name(&mut self, place: &str, value: &str) -> String {
        if let Some((name, _)) = self.found.iter().find(|(_, known)| known == value) {
            return name.clone();
        }
        let stem = field(place);
        let taken = |name: &str| self.found.iter().any(|(known, _)| known == name);
        let mut name = stem.clone();
        let mut next = 2;
        while taken(&name) {
            name = format!("{stem}_{next}");
            next += 1;
        }
        self.found.push((name.clone(), value.to_owned()));
        name
    }

    /// The template that stands for `value`.
    pub(super) fn template(&mut self, place: &str, value: &str) -> String {
        let name = self.name(place, value);
        format!("{{{{ credential.{name} }}}}")
    }

    /// The template of a header's value: what stands before the secret in it stays.
    pub(super) fn header(&mut self, place: &str, value: &str) -> String {
        let word = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        match value.split_once(' ') {
            Some((scheme, secret)) if word(scheme) => {
                format!("{scheme} {}", self.template(place, secret.trim()))
            }
            _ => self.template(place, value),
        }
    }

    /// The template of a header that says user and password.
    pub(super) fn basic(&mut self, user_and_password: &str) -> String {
        let name = self.name("user_and_password", user_and_password);
        format!("Basic {{{{ credential.{name} | base64 }}}}")
    }

    /// The fields that a credential has, in the order of a list in the environment. One alone is called `key`.
    ///
    /// The last one may hold a colon, so user and password come there.
    pub(super) fn fields(self) -> Vec<String> {
        let mut names: Vec<String> = self.found.into_iter().map(|(name, _)| name).collect();
        names.sort_by_key(|name| name.starts_with("user_and_password"));
        names
    }
}

/// A name of a credential's field.
fn field(place: &str) -> String {
    let legal = |c: char| match c.is_ascii_alphanumeric() {
        true => c.to_ascii_lowercase(),
        false => '_',
    };
    let text: String = place.chars().map(legal).collect();
    let text = text.trim_matches('_');
    match text.starts_with(|c: char| c.is_ascii_alphabetic()) {
        true => text.to_owned(),
        false => format!("secret_{text}").trim_end_matches('_').to_owned(),
    }
}

/// Whether `value`, which stands under `name`, is a secret.
pub(super) fn is_secret(name: &str, value: &str) -> bool {
    !value.is_empty() && (is_secret_name(name) || is_signed_token(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_has_one_name() {
        let mut secrets = Secrets::default();
        assert_eq!(
            secrets.template("X-Api-Key", "a"),
            "{{ credential.x_api_key }}"
        );
        assert_eq!(
            secrets.header("authorization", "Bearer a"),
            "Bearer {{ credential.x_api_key }}"
        );
        assert_eq!(
            secrets.template("x_api_key", "b"),
            "{{ credential.x_api_key_2 }}"
        );
        assert_eq!(
            secrets.basic("u:p"),
            "Basic {{ credential.user_and_password | base64 }}"
        );
        assert_eq!(secrets.template("0", "c"), "{{ credential.secret_0 }}");
        let fields = secrets.fields();
        assert_eq!(
            fields,
            ["x_api_key", "x_api_key_2", "secret_0", "user_and_password"]
        );
    }
}
