//! The first draft of a provider file.

use super::{scalar, variable};

/// What is known of a provider before anybody wrote about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Its name.
    pub name: String,
    /// What is called; without one an example stands there.
    pub call: Option<Call>,
    /// What its answers promise; without it an example stands there.
    pub reading: Option<Reading>,
    /// The rate that its manual allows, where somebody said it.
    pub rate: Option<String>,
    /// Path of its records, where somebody said it and nothing is promised.
    pub records: Option<String>,
}

/// What is read from an answer, as a schema promises it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The endpoint's name.
    pub endpoint: String,
    /// Path of the records; empty where nobody knows.
    pub records: String,
    /// Their fields.
    pub fields: Vec<FieldDraft>,
    /// Query parameters that may be left out, and are.
    pub optional: Vec<String>,
    /// What else somebody should know.
    pub notes: Vec<String>,
}

/// One field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldDraft {
    /// Its name.
    pub name: String,
    /// Where it is in a record.
    pub path: String,
    /// `as:`
    pub kind: &'static str,
    /// The schema does not promise it.
    pub optional: bool,
}

/// One call, with its secrets taken out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// `https://host:port`
    pub base_url: String,
    /// Path below it.
    pub path: String,
    /// Whether it is a POST.
    pub post: bool,
    /// Query parameters in order.
    pub query: Vec<(String, String)>,
    /// Headers in order.
    pub headers: Vec<(String, String)>,
    /// What is sent.
    pub body: Option<Send>,
    /// Headers that sign in: name, and the value with the secret replaced by `{{ credential.key }}`.
    pub auth_headers: Vec<(String, String)>,
    /// Query parameters that sign in, in the same form.
    pub auth_query: Vec<(String, String)>,
    /// What a credential consists of; empty: `key` alone.
    pub fields: Vec<String>,
}

impl Call {
    /// Takes over the names of the secrets that its templates use. One alone is called `key`, as everywhere.
    pub(super) fn credential_fields(&mut self, names: Vec<String>) {
        let [only] = names.as_slice() else {
            self.fields = names;
            return;
        };
        let (long, short) = (format!("credential.{only} "), "credential.key ");
        let rename = |text: &mut String| *text = text.replace(&long, short);
        rename(&mut self.path);
        let signs = self.auth_headers.iter_mut().chain(&mut self.auth_query);
        signs.for_each(|(_, value)| rename(value));
        match &mut self.body {
            Some(Send::Json(json)) => texts(json, &rename),
            Some(Send::Form(form)) => form.iter_mut().for_each(|(_, value)| rename(value)),
            Some(Send::Xml(_)) | None => {}
        }
    }

    /// Whether anything in it is a secret.
    fn has_secrets(&self) -> bool {
        !(self.auth_headers.is_empty() && self.auth_query.is_empty() && self.fields.is_empty())
            || self.path.contains("{{ credential.")
            || self.body.as_ref().is_some_and(Send::has_secrets)
    }
}

/// Changes every text of a JSON document.
fn texts(json: &mut serde_json::Value, change: &impl Fn(&mut String)) {
    match json {
        serde_json::Value::String(text) => change(text),
        serde_json::Value::Array(list) => list.iter_mut().for_each(|below| texts(below, change)),
        serde_json::Value::Object(fields) => {
            fields.values_mut().for_each(|below| texts(below, change));
        }
        _ => {}
    }
}

/// The body of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Send {
    /// A JSON document.
    Json(serde_json::Value),
    /// A form.
    Form(Vec<(String, String)>),
    /// An XML document.
    Xml(String),
}

impl Send {
    fn has_secrets(&self) -> bool {
        let secret = |text: &str| text.contains("{{ credential.");
        match self {
            Send::Json(json) => secret(&json.to_string()),
            Send::Form(form) => form.iter().any(|(_, value)| secret(value)),
            Send::Xml(text) => secret(text),
        }
    }
}

/// The file's text.
pub fn provider_text(draft: &Draft) -> String {
    let example = Call {
        path: "/v1/items".into(),
        query: vec![("q".into(), "{{ keyword }}".into())],
        auth_headers: vec![("authorization".into(), "Bearer {{ credential.key }}".into())],
        ..Call::default()
    };
    let call = draft.call.as_ref().unwrap_or(&example);
    let mut text = head(draft, call);
    text += &auth(&draft.name, call);
    text += &limits(draft.rate.as_deref());
    text += &endpoint(call, draft);
    text
}

fn head(draft: &Draft, call: &Call) -> String {
    let url = variable(&draft.name, "URL");
    let mut text = format!(
        "# {}: say here what it is, where its manual lies, and what its manual says about limits.\nprovider: {}\nversion: 1\n",
        draft.name, draft.name
    );
    match call.base_url.as_str() {
        "" => text += &format!("base_url: ${{{url}}}\n"),
        known => {
            text += &format!(
                "base_url: {}                # or ${{{url}}}, so that a test can point elsewhere\n",
                scalar(known)
            )
        }
    }
    text
}

fn auth(name: &str, call: &Call) -> String {
    if !call.has_secrets() {
        return String::new();
    }
    let keys = variable(name, "KEYS");
    let mut text = match call.fields.as_slice() {
        [] => {
            let each = match uses_basic(call) {
                true => "each is user:password",
                false => "each is credential.key",
            };
            format!(
                "credentials: {{from_env: {keys}, use: exhaust}}   # comma-separated keys; {each}\n"
            )
        }
        fields => format!(
            "credentials: {{from_env: {keys}, fields: [{}], use: exhaust}}   # comma-separated, each {}\n",
            fields.join(", "),
            fields.join(":")
        ),
    };
    if !(call.auth_headers.is_empty() && call.auth_query.is_empty()) {
        text += "auth:\n";
    }
    for (header, value) in &call.auth_headers {
        text += &format!(
            "  - {{header: {}, value: {}}}\n",
            scalar(header),
            scalar(value)
        );
    }
    for (query, value) in &call.auth_query {
        text += &format!(
            "  - {{query: {}, value: {}}}\n",
            scalar(query),
            scalar(value)
        );
    }
    text
}

/// Whether what signs in is a user and a password.
fn uses_basic(call: &Call) -> bool {
    let headers = &call.auth_headers;
    headers
        .iter()
        .any(|(_, value)| value.starts_with("Basic ") && value.contains("| base64"))
}

fn limits(rate: Option<&str>) -> String {
    let (rate, known) = match rate {
        Some(rate) => (rate, ""),
        None => ("1/s", "; one call a second until you know"),
    };
    format!(
        "timeout: {{connect: 3s, total: 10s}}
limits:                                         # what the manual allows{known}
  - {{name: second, rate: {rate}}}
"
    ) + FURTHER
}

const FURTHER: &str =
    "  # - {name: day, quota: 10000/day, resets: \"00:00 UTC\", per: \"{{ credential }}\"}
  # - {name: in-flight, concurrency: 8}
outcomes:                                       # the first match wins; a built-in list follows
  - {when: {status: 429}, then: throttled, wait: {header: retry-after, fallback: 30s}}
  - {when: {status: 404}, then: empty}
retry: {attempts: 5, backoff: {from: 500ms, to: 30s}}
";

fn endpoint(call: &Call, draft: &Draft) -> String {
    let reading = draft.reading.as_ref();
    let method = if call.post { "post" } else { "get" };
    let name = reading.map_or("items", |reading| reading.endpoint.as_str());
    let mut text = format!(
        "endpoints:\n  {name}:\n    {method}: {}\n",
        scalar(&call.path)
    );
    for note in reading.iter().flat_map(|reading| &reading.notes) {
        text += &format!("    # {}\n", one_line(note));
    }
    if let Some(reading) = reading.filter(|reading| !reading.optional.is_empty()) {
        let names = one_line(&reading.optional.join(", "));
        text += &format!("    # left out of the query, since they may be: {names}\n");
    }
    text += &mapping("query", &call.query);
    text += &mapping("headers", &call.headers);
    match &call.body {
        Some(Send::Json(json)) => text += &format!("    json: {json}\n"),
        Some(Send::Form(form)) => text += &mapping("form", form),
        Some(Send::Xml(xml)) => {
            text += &format!("    xml: {}\n", serde_json::Value::from(xml.as_str()))
        }
        None => {}
    }
    text += "    # page: {style: page, query: page, first: 1, stop: empty, max_pages: 100}\n";
    match reading.filter(|reading| !reading.records.is_empty()) {
        Some(reading) => text += &promised(reading),
        None => text += &guessed(draft.records.as_deref()),
    }
    text
}

/// A comment ends with its line.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn promised(reading: &Reading) -> String {
    let records = scalar(&reading.records);
    let mut text = format!("    records: {records}\n    fields:\n");
    for field in &reading.fields {
        let optional = if field.optional {
            ", optional: true"
        } else {
            ""
        };
        text += &format!(
            "      {}: {{path: {}, as: {}{optional}}}\n",
            field.name,
            scalar(&field.path),
            field.kind
        );
    }
    if reading.fields.is_empty() {
        text += "      all: {value: \"\"}                          # the schema names no field: name them here\n";
    }
    text
}

fn guessed(records: Option<&str>) -> String {
    let records = scalar(records.unwrap_or("$.items[*]"));
    format!("    records: {records:<34} # where the records lie in an answer\n{GUESSED}")
}

const GUESSED: &str = "    fields:                                     # what a record has; try: as: string, integer, decimal, datetime
      id: {path: $.id, as: string}
      name: {path: $.name, optional: true}
";

/// The entries of a mapping; a name that comes several times has a list.
fn mapping(key: &str, entries: &[(String, String)]) -> String {
    let mut text = String::new();
    for (place, (name, value)) in entries.iter().enumerate() {
        let same = |(known, _): &&(String, String)| known == name;
        if entries[..place].iter().any(|entry| same(&entry)) {
            continue;
        }
        let values: Vec<String> = entries
            .iter()
            .filter(same)
            .map(|(_, value)| scalar(value))
            .collect();
        let value = match values.as_slice() {
            [_] => scalar(value),
            several => format!("[{}]", several.join(", ")),
        };
        text += &format!("      {}: {value}\n", scalar(name));
    }
    match text.is_empty() {
        true => text,
        false => format!("    {key}:\n{text}"),
    }
}
