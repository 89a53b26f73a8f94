//! JOIN: stands for `paceline_protocol::spec::{SpecFolder, LoadedJob, JobError, Diagnostic, Severity}`.
#![allow(clippy::todo, missing_docs)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use paceline_protocol::spec::{Job, Provider};
use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Severity {
    Error,
    Warning,
}

#[derive(Clone, Debug, Serialize)]
pub struct Diagnostic {
    pub file: String,
    pub line: u32,
    pub column: u32,
    pub message: String,
    pub hint: Option<String>,
    #[serde(skip)]
    pub severity: Severity,
}

impl std::fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}:{}:{}: {}",
            self.file, self.line, self.column, self.message
        )
    }
}

#[derive(Debug)]
pub enum JobError {
    Unknown {
        name: String,
        nearest: Option<String>,
        known: Vec<String>,
    },
    Wrong(Vec<Diagnostic>),
}

#[derive(Debug)]
pub struct LoadedJob {
    pub job: Job,
    pub providers: BTreeMap<String, Provider>,
    pub path: PathBuf,
    pub warnings: Vec<Diagnostic>,
}

pub struct SpecFolder;

impl SpecFolder {
    pub fn open(_folder: &Path) -> Result<Self, std::io::Error> {
        todo!()
    }

    pub fn job(&self, _name: &str) -> Result<LoadedJob, JobError> {
        todo!()
    }

    pub fn provider(&self, _name: &str) -> Result<Provider, JobError> {
        todo!()
    }
}
