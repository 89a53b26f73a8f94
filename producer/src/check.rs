//! `producer check`: reads jobs and providers and says everything that is wrong. Nothing is sent.

use std::path::{Path, PathBuf};

use paceline_protocol::settings::Environment;
use paceline_protocol::spec::{Diagnostic, SpecFolder, Unreadable, any_error};

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
    let diagnostics = SpecFolder::open(spec_dir)?.check(paths, Some(env))?;
    Ok(CheckReport { diagnostics })
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
    use std::collections::BTreeMap;

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
