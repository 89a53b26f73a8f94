//! JOIN: stands for the real `producer::check`.
#![allow(clippy::todo, missing_docs)]

use std::path::{Path, PathBuf};

use paceline_protocol::settings::Environment;

use crate::spec_files::Diagnostic;

pub fn check(
    _spec: &Path,
    _paths: &[PathBuf],
    _env: &impl Environment,
) -> Result<Vec<Diagnostic>, std::io::Error> {
    todo!()
}
