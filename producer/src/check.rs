//! `producer check`: reads jobs and providers and says everything that is wrong. Nothing is sent.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use paceline_protocol::settings::Environment;
use paceline_protocol::spec::{Diagnostic, SpecFolder, Unreadable, any_error};

use crate::trying;

/// What `check` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckReport {
    /// Errors and warnings by file and place.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads `paths` (files or folders), or all of the spec folder when there are none. Names that `env` lacks are
/// warnings: whoever needs the value may have another environment.
///
/// # Errors
/// When the spec folder or one of the paths does not exist.
pub fn check(
    paths: &[PathBuf],
    spec_dir: &Path,
    env: &dyn Environment,
) -> Result<CheckReport, Unreadable> {
    let folder = SpecFolder::open(spec_dir)?;
    let mut diagnostics = folder.check(paths, Some(env))?;
    let asked =
        |file: &str| paths.is_empty() || paths.iter().any(|path| Path::new(file).starts_with(path));
    let found = never_found(&folder).into_iter();
    diagnostics.extend(found.filter(|diagnostic| asked(&diagnostic.file)));
    Ok(CheckReport { diagnostics })
}

/// Places that found nothing in any kept case of the spec folder in which they were looked for.
fn never_found(folder: &SpecFolder) -> Vec<Diagnostic> {
    let cases = trying::find(&folder.dir().join("cases"));
    let mut seen: BTreeMap<(String, String), (usize, usize, String)> = BTreeMap::new();
    for kept in cases.map(|found| found.cases).unwrap_or_default() {
        let Ok(case) = kept.case else { continue };
        let Ok(provider) = folder.provider(&case.provider) else {
            continue;
        };
        let Ok(replayed) = case.replay(&provider) else {
            continue;
        };
        for place in replayed.calls.into_iter().flat_map(|call| call.found) {
            let what = format!("endpoints.{}.{}", case.endpoint, place.what);
            let entry = seen.entry((case.provider.clone(), what)).or_default();
            entry.0 += place.found;
            entry.1 += place.of;
            entry.2 = place.place;
        }
    }
    let never = seen
        .into_iter()
        .filter(|(_, (found, of, _))| *found == 0 && *of > 0);
    never
        .filter_map(|((provider, what), (_, of, place))| {
            let source = folder.provider_source(&provider)?;
            let message = format!("`{place}` found nothing in any kept case (looked for {of} times)");
            let hint = "`producer try JOB` shows what an answer holds; a case of an answer that has it, kept by --record, says that it is right";
            Some(source.fault(&what, message).hint(hint).warning())
        })
        .collect()
}

impl CheckReport {
    /// 3 when a file is wrong, else 0.
    pub fn exit_code(&self) -> u8 {
        if any_error(&self.diagnostics) { 3 } else { 0 }
    }

    /// One finding after the other, then how many there are.
    pub fn to_text(&self) -> String {
        let errors = self.diagnostics.iter().filter(|d| d.is_error()).count();
        let warnings = self.diagnostics.len() - errors;
        let mut text: String = self.diagnostics.iter().map(|d| format!("{d}\n")).collect();
        text += &match (errors, warnings) {
            (0, 0) => "everything is right\n".to_owned(),
            (0, _) => format!("right, with {}\n", counted(warnings, "warning")),
            (_, 0) => format!("{}\n", counted(errors, "error")),
            _ => format!(
                "{}, {}\n",
                counted(errors, "error"),
                counted(warnings, "warning")
            ),
        };
        text
    }

    /// A list of `{file, line, column, message, hint, severity}`.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!(self.diagnostics)
    }
}

fn counted(n: usize, what: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{n} {what}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_are_right_and_lack_their_environment() {
        let spec = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/spec");
        let report = check(&[], &spec, &BTreeMap::new()).expect("readable");
        assert_eq!(report.exit_code(), 0, "{}", report.to_text());
        assert!(report.to_text().ends_with("warnings\n"));
        let first = &report.to_json()[0];
        assert!(
            first["line"].is_number() && first["hint"].is_string() && first["file"].is_string()
        );
    }

    #[test]
    fn a_wrong_file_is_exit_3() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.yaml");
        std::fs::write(&path, "job: x\n").expect("writable");
        let report = check(&[path], folder.path(), &BTreeMap::new()).expect("readable");
        assert_eq!(report.exit_code(), 3);
    }
}
