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
    /// Query parameters that sign in.
    pub auth_query: Vec<String>,
}

/// The body of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Send {
    /// A JSON document.
    Json(serde_json::Value),
    /// A form.
    Form(Vec<(String, String)>),
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
    text += LIMITS;
    text += &endpoint(call, draft.reading.as_ref());
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
    if call.auth_headers.is_empty() && call.auth_query.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "credentials: {{from_env: {}, use: exhaust}}   # comma-separated keys; each is credential.key\nauth:\n",
        variable(name, "KEYS")
    );
    for (header, value) in &call.auth_headers {
        text += &format!(
            "  - {{header: {}, value: {}}}\n",
            scalar(header),
            scalar(value)
        );
    }
    for query in &call.auth_query {
        text += &format!(
            "  - {{query: {}, value: \"{{{{ credential.key }}}}\"}}\n",
            scalar(query)
        );
    }
    text
}

const LIMITS: &str = "\
timeout: {connect: 3s, total: 10s}
limits:                                         # what the manual allows; one call a second until you know
  - {name: second, rate: 1/s}
  # - {name: day, quota: 10000/day, resets: \"00:00 UTC\", per: \"{{ credential }}\"}
  # - {name: in-flight, concurrency: 8}
outcomes:                                       # the first match wins; a built-in list follows
  - {when: {status: 429}, then: throttled, wait: {header: retry-after, fallback: 30s}}
  - {when: {status: 404}, then: empty}
retry: {attempts: 5, backoff: {from: 500ms, to: 30s}}
";

fn endpoint(call: &Call, reading: Option<&Reading>) -> String {
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
        None => {}
    }
    text += "    # page: {style: page, query: page, first: 1, stop: empty, max_pages: 100}\n";
    match reading.filter(|reading| !reading.records.is_empty()) {
        Some(reading) => text += &promised(reading),
        None => text += GUESSED,
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

const GUESSED: &str = "    records: $.items[*]                         # where the records lie in an answer
    fields:                                     # what a record has; try: as: string, integer, decimal, datetime
      id: {path: $.id, as: string}
      name: {path: $.name, optional: true}
";

fn mapping(key: &str, entries: &[(String, String)]) -> String {
    if entries.is_empty() {
        return String::new();
    }
    let line =
        |(name, value): &(String, String)| format!("      {}: {}\n", scalar(name), scalar(value));
    let lines: String = entries.iter().map(line).collect();
    format!("    {key}:\n{lines}")
}
