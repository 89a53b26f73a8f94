//! A spec folder of a test's own, made from the example files.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use tempfile::TempDir;

use crate::binaries::repository;

/// A temporary copy of `deploy/spec` that a test may change.
pub struct SpecFolder {
    folder: TempDir,
}

impl SpecFolder {
    /// An unchanged copy.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn example() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        for part in ["jobs", "providers"] {
            let from = repository().join("deploy/spec").join(part);
            let to = folder.path().join(part);
            std::fs::create_dir(&to)?;
            for entry in std::fs::read_dir(&from).with_context(|| from.display().to_string())? {
                let entry = entry?;
                std::fs::copy(entry.path(), to.join(entry.file_name()))?;
            }
        }
        Ok(SpecFolder { folder })
    }

    /// For `PACELINE_SPEC`.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Replaces `from` by `to` wherever it stands in `file` (`jobs/fares.yaml`).
    ///
    /// # Errors
    /// When `from` is not there: a test must not silently test the unchanged file.
    pub fn replace(&self, file: &str, from: &str, to: &str) -> anyhow::Result<()> {
        let path = self.folder.path().join(file);
        let text = std::fs::read_to_string(&path).with_context(|| file.to_owned())?;
        ensure!(text.contains(from), "{file} holds no {from:?}");
        Ok(std::fs::write(path, text.replace(from, to))?)
    }

    /// Writes `file` anew.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, file: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.folder.path().join(file);
        std::fs::write(&path, text).with_context(|| file.to_owned())?;
        Ok(path)
    }

    /// Shortens `jobs/destinations.csv` to these airports.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn destinations(&self, airports: &[&str]) -> anyhow::Result<()> {
        let rows: String = airports.iter().map(|a| format!("{a},{a}\n")).collect();
        self.write("jobs/destinations.csv", &format!("iata,name\n{rows}"))
            .map(drop)
    }
}
