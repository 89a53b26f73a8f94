//! The first draft of a job file.

use paceline_protocol::spec::{Endpoint, Provider, RequestBody};
use paceline_protocol::template::environment;

/// Names that no dimension has to give.
const GIVEN: [&str; 12] = [
    "params",
    "credential",
    "run",
    "today",
    "now",
    "now_ms",
    "request",
    "signature",
    "item",
    "ids",
    "endpoint",
    "parent",
];

/// The text of a job called `name` on an endpoint of `provider`: a dimension for every name that its
/// request uses.
pub fn job_text(name: &str, provider: &Provider, endpoint: &str, declared: &Endpoint) -> String {
    let dimensions = dimensions(declared);
    let first = declared.fields.keys().next().map_or("id", String::as_str);
    let key: Vec<String> = dimensions
        .iter()
        .map(String::as_str)
        .chain([first])
        .map(braces)
        .collect();
    let mut text = format!(
        "# {name}: say here what it collects, and for whom.\njob: {name}\nprovider: {}\nendpoint: {endpoint}\nsplit:                                          # a cell for every combination\n",
        provider.name
    );
    for dimension in &dimensions {
        text += &format!(
            "  {dimension}: [example]                        # or {{file: {dimension}.csv, column: {dimension}}}, {{dates: {{from: today, days: 7}}}}, {{range: [1, 10]}}\n"
        );
    }
    if dimensions.is_empty() {
        text += "  part: [all]                                   # the request uses no name: one cell\n";
    }
    text += &format!(
        "shard: {{cells: 100, checkpoint: 20}}             # what a worker takes at once, and how often it saves
# schedule: {{cron: \"0 3 * * *\", timezone: UTC, overlap: skip}}
gate: 0.99                                      # share of cells that must come back before anything is published
outputs:
  s3: {{format: ndjson, compress: zstd}}
  index:
    name: {name}
    mode: snapshot
    id: \"{}\"
    mapping: {{{first}: keyword}}
",
        key.join("-")
    );
    text
}

fn braces(name: &str) -> String {
    format!("{{{{ {name} }}}}")
}

/// The names that the endpoint's request uses and only a job can give, in the order of the alphabet.
fn dimensions(endpoint: &Endpoint) -> Vec<String> {
    let Some(request) = &endpoint.request else {
        return Vec::new();
    };
    let mut texts: Vec<String> = vec![request.path.to_string()];
    texts.extend(request.query.values().map(|v| v.to_string()));
    texts.extend(request.headers.values().map(|v| v.to_string()));
    match &request.body {
        Some(RequestBody::Json(json)) => texts.push(json.to_string()),
        Some(RequestBody::Form(form)) => texts.extend(form.values().map(|v| v.to_string())),
        Some(RequestBody::Xml(xml)) => texts.push(xml.to_string()),
        None => {}
    }
    let environment = environment();
    let mut names: Vec<String> = texts
        .iter()
        .filter_map(|text| environment.template_from_str(text).ok())
        .flat_map(|template| template.undeclared_variables(false))
        .filter(|name| !GIVEN.contains(&name.as_str()))
        .collect();
    names.sort();
    names.dedup();
    names
}
