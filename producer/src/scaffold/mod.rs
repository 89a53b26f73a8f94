//! First drafts of job and provider files (`producer new`): commented, and right as `check` sees it.

mod command_line;
mod curl;
mod job;
mod openapi;
mod provider;
mod secrets;

pub use self::curl::{CurlError, from_curl, from_url};
pub use self::job::job_text;
pub use self::openapi::{OpenApiError, from_openapi};
pub use self::provider::{Call, Draft, FieldDraft, Reading, Send, provider_text};

/// A text as YAML takes it: bare where that is safe, else in double quotes.
fn scalar(text: &str) -> String {
    let first = |c: char| c.is_ascii_alphabetic() || c == '/' || c == '$';
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./$".contains(c);
    let word = matches!(
        text.to_ascii_lowercase().as_str(),
        "true" | "false" | "null" | "yes" | "no" | "on" | "off"
    );
    let bare = text.starts_with(first) && text.chars().all(plain) && !word;
    if bare {
        text.to_owned()
    } else {
        // A JSON string is a YAML one.
        serde_json::Value::from(text).to_string()
    }
}

/// A name of the environment made of a provider's: `fare-search` and `URL` make `FARE_SEARCH_URL`.
fn variable(provider: &str, what: &str) -> String {
    let upper = |c: char| match c.is_ascii_alphanumeric() {
        true => c.to_ascii_uppercase(),
        false => '_',
    };
    let stem: String = provider.chars().map(upper).collect();
    format!("{stem}_{what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_survives_yaml() {
        for text in [
            "plain",
            "a: b",
            "# no comment",
            "yes",
            "12",
            "{{ a }}",
            "quo\"te\n",
            "",
            "é",
            "- x",
        ] {
            let read: serde_json::Value = serde_saphyr_value(&scalar(text));
            assert_eq!(read, serde_json::Value::from(text), "{text:?}");
        }
    }

    fn serde_saphyr_value(yaml: &str) -> serde_json::Value {
        // Quoted or bare, both are JSON strings or words without any meaning to YAML.
        serde_json::from_str(yaml).unwrap_or_else(|_| serde_json::Value::from(yaml))
    }

    #[test]
    fn variables_are_upper_case() {
        assert_eq!(variable("fare-search", "URL"), "FARE_SEARCH_URL");
    }
}
