//! One file as it was read: its model, where each part of it stands, and what it refers to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::diagnostic::{Diagnostic, Position};
use super::environment::names_in;
use super::job::JOB;
use super::model::{Job, Provider};
use super::provider::PROVIDER;
use super::reader::Reader;
use super::scope::TemplateUse;
use super::tree::{self, Data, Node};

/// A name of the environment that a file uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VariableUse {
    /// The name.
    pub name: String,
    /// Where.
    pub at: Position,
    /// Its place in the tree.
    pub path: String,
}

/// Where the parts of a file stand.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The file as diagnostics name it.
    pub file: String,
    /// The file.
    pub path: PathBuf,
    /// The names of the environment that it uses.
    pub variables: Vec<VariableUse>,
    pub(super) uses: Vec<TemplateUse>,
    positions: BTreeMap<String, (Position, Position)>,
}

impl Source {
    /// Where the value of `path` (`limits[0].rate`) stands, or the nearest part above it.
    pub fn value(&self, path: &str) -> Position {
        self.position(path).1
    }

    /// Where the key of `path` stands, or that of the nearest part above it.
    pub fn key(&self, path: &str) -> Position {
        self.position(path).0
    }

    fn position(&self, path: &str) -> (Position, Position) {
        let mut path = path;
        loop {
            match (self.positions.get(path), path.rfind(['.', '['])) {
                (Some(found), _) => return *found,
                (None, Some(end)) => path = &path[..end],
                (None, None) => return (Position::START, Position::START),
            }
        }
    }

    /// An error at the value of `path`.
    pub fn fault(&self, path: &str, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(&self.file, self.value(path), message)
    }

    /// An error at the key of `path`.
    pub fn key_fault(&self, path: &str, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(&self.file, self.key(path), message)
    }

    /// The folder that lists are relative to.
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    fn of(file: &str, path: &Path, root: &Node) -> Self {
        let mut source = Source {
            file: file.to_owned(),
            path: path.to_owned(),
            ..Source::default()
        };
        root.walk(&mut |node| {
            source
                .positions
                .insert(node.path.clone(), (node.key_at, node.at));
            if let Data::Scalar(Value::String(text)) = &node.data {
                let used = variables_of(&node.path, text).into_iter();
                source.variables.extend(used.map(|name| VariableUse {
                    name,
                    at: node.at,
                    path: node.path.clone(),
                }));
            }
        });
        source
    }
}

/// The names of the environment in one text; a pool's variable is named without `${}`.
fn variables_of(path: &str, text: &str) -> Vec<String> {
    match path {
        "credentials.from_env" => vec![text.to_owned()],
        _ => names_in(text).unwrap_or_default(),
    }
}

/// A file with what it says and what is wrong with it by itself.
#[derive(Clone, Debug)]
pub struct Sourced<T> {
    /// Where its parts stand.
    pub source: Source,
    /// What it says; absent when too much is wrong.
    pub model: Option<T>,
    /// What is wrong.
    pub found: Vec<Diagnostic>,
}

/// What a file turned out to be.
#[derive(Clone, Debug)]
pub enum SpecFile {
    /// A job.
    Job(Box<Sourced<Job>>),
    /// A provider.
    Provider(Box<Sourced<Provider>>),
    /// Neither, and why.
    Neither(Diagnostic),
}

/// Reads the text of a job's or provider's file; `file` is its name in diagnostics, `path` where it lies.
pub fn read(file: &str, path: &Path, text: &str) -> SpecFile {
    let root = match tree::parse(file, text) {
        Ok(root) => root,
        Err(found) => return SpecFile::Neither(found),
    };
    let Data::Map(entries) = &root.data else {
        let found = Diagnostic::error(
            file,
            root.at,
            format!("{} where a mapping belongs", root.kind()),
        );
        return SpecFile::Neither(
            found.hint("a job begins with `job: <name>`, a provider with `provider: <name>`"),
        );
    };
    let keys: Vec<&str> = entries.iter().map(|e| e.key.as_str()).collect();
    if is_job(&keys, path) {
        SpecFile::Job(Box::new(sourced(file, path, &root, super::job::job)))
    } else {
        SpecFile::Provider(Box::new(sourced(
            file,
            path,
            &root,
            super::provider::provider,
        )))
    }
}

/// By its keys; where these do not tell, by its folder.
fn is_job(keys: &[&str], path: &Path) -> bool {
    if keys.contains(&"job") {
        return true;
    }
    let only = |own: &[&str], other: &[&str]| {
        keys.iter()
            .filter(|k| own.contains(k) && !other.contains(k))
            .count()
    };
    let (job, provider) = (only(JOB, PROVIDER), only(PROVIDER, JOB));
    match job.cmp(&provider) {
        std::cmp::Ordering::Equal => path.parent().is_some_and(|p| p.ends_with("jobs")),
        order => order.is_gt(),
    }
}

fn sourced<T>(
    file: &str,
    path: &Path,
    root: &Node,
    read: fn(&Reader, &Node) -> Option<T>,
) -> Sourced<T> {
    let reader = Reader::new(file);
    let model = read(&reader, root);
    let (found, uses) = reader.into_parts();
    let mut source = Source::of(file, path, root);
    source.uses = uses;
    Sourced {
        source,
        model,
        found,
    }
}
