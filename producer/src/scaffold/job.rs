//! The first draft of a job file.

use paceline_protocol::spec::{Endpoint, Provider, Wanted};

/// The text of a job called `name` on an endpoint of `provider`: a dimension for every name that its
/// calls want.
pub fn job_text(
    name: &str,
    provider: &Provider,
    endpoint: &str,
    declared: &Endpoint,
    wanted: &Wanted,
) -> String {
    let first = id_of(declared);
    let key: Vec<String> = wanted
        .dimensions
        .iter()
        .map(String::as_str)
        .chain([first])
        .map(braces)
        .collect();
    let mut text = format!(
        "# {name}: say here what it collects, and for whom.\njob: {name}\nprovider: {}\nendpoint: {endpoint}\n",
        provider.name
    );
    if !wanted.params.is_empty() {
        text += "params:                                         # the same for all cells; --param NAME=VALUE replaces one\n";
    }
    for param in &wanted.params {
        text += &format!("  {param}: example\n");
    }
    text += "split:                                          # a cell for every combination\n";
    for dimension in &wanted.dimensions {
        text += &match is_day(dimension) {
            true => format!("  {dimension}: {{dates: {{from: today, days: 1}}}}\n"),
            false => format!(
                "  {dimension}: [example]                        # or {{file: {dimension}.csv, column: {dimension}}}, {{dates: {{from: today, days: 7}}}}, {{range: [1, 10]}}\n"
            ),
        };
    }
    if wanted.dimensions.is_empty() {
        text +=
            "  part: [all]                                   # its calls want no name: one cell\n";
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

/// The field that most likely tells a record from another: of those that every record has one called `id`, then one
/// whose name ends so, then the first.
fn id_of(declared: &Endpoint) -> &str {
    let fields = declared.fields.iter();
    let always = fields.filter(|(_, field)| !field.optional);
    let mut names: Vec<&str> = always.map(|(name, _)| name.as_str()).collect();
    names.sort_by_key(|name| match *name {
        "id" => 0,
        name if name.ends_with("_id") || name.ends_with("Id") => 1,
        _ => 2,
    });
    let any = || declared.fields.keys().next().map(String::as_str);
    names.first().copied().or_else(any).unwrap_or("id")
}

fn braces(name: &str) -> String {
    format!("{{{{ {name} }}}}")
}

/// A name that days are usually given.
fn is_day(name: &str) -> bool {
    ["day", "date", "depart"].contains(&name) || name.ends_with("_day") || name.ends_with("_date")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use paceline_protocol::spec::{Diagnostic, SpecFolder};

    use super::*;

    /// A draft for every endpoint of the providers that come with us is right as it stands.
    #[test]
    fn a_draft_for_every_provider_is_right() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/spec/providers");
        let mut drafted = 0;
        for entry in std::fs::read_dir(folder).expect("the files are there") {
            let path = entry.expect("readable").path();
            let text = std::fs::read_to_string(&path).expect("readable");
            let alone =
                SpecFolder::of_texts(Path::new("spec"), [("providers/p.yaml", text.as_str())]);
            let name = text
                .lines()
                .find_map(|line| line.strip_prefix("provider: "));
            let name = name.expect("it has one").trim();
            let provider = alone.provider(name).expect("it is right");
            for (endpoint, declared) in &provider.endpoints {
                let wanted = alone.wanted(name, endpoint);
                let job = job_text("draft", &provider, endpoint, declared, &wanted);
                let files = [
                    ("providers/p.yaml", text.as_str()),
                    ("jobs/draft.yaml", job.as_str()),
                ];
                let both = SpecFolder::of_texts(Path::new("spec"), files);
                let mut found = both.check(&[], None).expect("nothing is listed");
                found.retain(Diagnostic::is_error);
                let said: String = found.iter().map(|d| format!("{d}\n")).collect();
                assert!(found.is_empty(), "{name}/{endpoint}: {said}{job}");
                drafted += 1;
            }
        }
        assert!(drafted > 20, "{drafted}");
    }
}
