//! Kept cases on disk: a JSON file each, below `cases/` of the spec folder or wherever they were put.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use paceline_protocol::cases::Case;
use paceline_protocol::spec::SpecFolder;

/// A case with its file.
#[derive(Clone, Debug)]
pub struct KeptCase {
    /// Its file.
    pub path: PathBuf,
    /// What it says, or why it cannot be read.
    pub case: Result<Case, String>,
}

/// What was looked for.
pub struct Found {
    /// The cases, by path.
    pub cases: Vec<KeptCase>,
    /// The folder that was looked in.
    pub folder: PathBuf,
}

/// Writes `case` as a new file of `dir`, named after its provider, endpoint and cell.
///
/// # Errors
/// When it cannot be written.
pub fn keep(dir: &Path, case: &Case) -> Result<PathBuf> {
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let values = case.cell.values().map(super::plain);
    let words: Vec<String> = [case.provider.clone(), case.endpoint.clone()]
        .into_iter()
        .chain(values)
        .collect();
    let mut name: String = words
        .join("-")
        .chars()
        .map(|c| match c {
            c if c.is_ascii_alphanumeric() || c == '-' => c.to_ascii_lowercase(),
            _ => '-',
        })
        .collect();
    name.truncate(100);
    let path = dir.join(format!("{name}.json"));
    let text = serde_json::to_string_pretty(case)?;
    std::fs::write(&path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

/// Every case below `dir`.
///
/// # Errors
/// When the folder cannot be read.
pub fn find(dir: &Path) -> Result<Found> {
    let mut files = Vec::new();
    below(dir, &mut files).with_context(|| format!("reading {}", dir.display()))?;
    files.sort();
    let cases = files.into_iter().map(|path| KeptCase {
        case: read(&path),
        path,
    });
    Ok(Found {
        cases: cases.collect(),
        folder: dir.to_owned(),
    })
}

fn read(path: &Path) -> Result<Case, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    serde_json::from_str(&text).map_err(|error| format!("it is no case: {error}"))
}

fn below(dir: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            below(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "json") {
            files.push(path);
        }
    }
    Ok(())
}

impl KeptCase {
    /// What differs between what it keeps and what the files of `spec` make of its answers now; empty when nothing
    /// does.
    pub fn differences(&self, spec: &SpecFolder) -> Vec<String> {
        let case = match &self.case {
            Ok(case) => case,
            Err(why) => return vec![why.clone()],
        };
        let provider = match spec.provider(&case.provider) {
            Ok(provider) => provider,
            Err(error) => return vec![error.to_string()],
        };
        match case.replay(&provider) {
            Ok(now) => paceline_protocol::cases::differences(&case.expected, &now),
            Err(error) => vec![error.to_string()],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn spec() -> SpecFolder {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/spec");
        SpecFolder::open(&dir).expect("the examples")
    }

    #[test]
    fn every_kept_case_of_the_examples_comes_out_as_it_is_kept() {
        let spec = spec();
        let found = find(&spec.dir().join("cases")).expect("cases");
        let mut differing = String::new();
        for kept in &found.cases {
            for difference in kept.differences(&spec) {
                differing += &format!("{}: {difference}\n", kept.path.display());
            }
        }
        assert!(differing.is_empty(), "{differing}");
        let providers: BTreeSet<&str> = found
            .cases
            .iter()
            .filter_map(|kept| Some(kept.case.as_ref().ok()?.provider.as_str()))
            .collect();
        assert!(providers.len() >= 19, "{providers:?}");
    }

    #[test]
    fn a_case_gets_a_plain_name() {
        let dir = tempfile::tempdir().expect("a folder");
        let spec = spec();
        let found = find(&spec.dir().join("cases")).expect("cases");
        let case = found.cases[0].case.clone().expect("a case");
        let path = keep(dir.path(), &case).expect("kept");
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        assert!(name.starts_with(&case.provider), "{name}");
        let again = find(dir.path()).expect("found");
        assert_eq!(again.cases[0].case.as_ref().ok(), Some(&case));
    }
}
