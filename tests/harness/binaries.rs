//! The binaries under test. `cargo test` does not build another package's binaries, so they must have
//! been built before, and not before the sources were last changed.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, bail, ensure};

/// How to build them, for messages.
const BUILD: &str = "cargo build --workspace --bins";

/// Where the binaries lie.
#[derive(Clone, Debug)]
pub struct Binaries {
    folder: PathBuf,
}

impl Binaries {
    /// The binaries of the profile that this test was built with.
    ///
    /// # Errors
    /// When one is missing, or older than a source file of its package or of `protocol`.
    pub fn find() -> anyhow::Result<Self> {
        // target/<profile>/deps/it-<hash>
        let test = std::env::current_exe().context("where this test lies")?;
        let profile = test.parent().and_then(Path::parent);
        let found = Binaries {
            folder: profile.context("a test outside of target/")?.to_owned(),
        };
        found.check("producer", &["producer", "protocol"])?;
        found.check("worker", &["worker", "protocol"])?;
        found.check("simulator", &["loadtest", "protocol"])?;
        Ok(found)
    }

    /// The path of one of them.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn check(&self, name: &str, packages: &[&str]) -> anyhow::Result<()> {
        let path = self.path(name);
        ensure!(
            path.is_file(),
            "{} is missing: run `{BUILD}` first",
            path.display()
        );
        let built = modified(&path)?;
        for package in packages {
            let sources = repository().join(package).join("src");
            if let Some(newer) = newer_file(&sources, built)? {
                bail!(
                    "{name} is older than {}: run `{BUILD}` first",
                    newer.display()
                );
            }
        }
        Ok(())
    }
}

/// The repository's folder.
pub fn repository() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_owned()
}

fn modified(path: &Path) -> anyhow::Result<SystemTime> {
    let metadata = std::fs::metadata(path).with_context(|| path.display().to_string())?;
    metadata.modified().context("the time of a file")
}

/// Any Rust or Lua file below `folder` that was changed after `built`.
fn newer_file(folder: &Path, built: SystemTime) -> anyhow::Result<Option<PathBuf>> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            if let Some(newer) = newer_file(&path, built)? {
                return Ok(Some(newer));
            }
            continue;
        }
        let is_source = path.extension().is_some_and(|e| e == "rs" || e == "lua");
        if is_source && modified(&path)? > built {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_newer_than_the_binary_is_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        let inner = folder.path().join("a/b");
        std::fs::create_dir_all(&inner).expect("folders");
        std::fs::write(inner.join("x.rs"), "").expect("a file");
        std::fs::write(inner.join("notes.txt"), "").expect("a file");
        let now = SystemTime::now();
        let hour = std::time::Duration::from_secs(3600);
        let newer = |built| newer_file(folder.path(), built).expect("readable");
        assert_eq!(newer(now - hour), Some(inner.join("x.rs")));
        assert_eq!(newer(now + hour), None);
    }
}
