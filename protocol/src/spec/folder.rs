//! A spec folder: its jobs and providers, and one job with the providers that it uses.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::across;
use super::diagnostic::{Diagnostic, Position, any_error, choose};
use super::model::{CredentialSource, Job, Provider};
use super::shared;
use super::source::{Source, Sourced, SpecFile, read};
use crate::connector::{pool_entries, written_entries};
use crate::settings::Environment;

/// Every job and provider of a folder, read once.
#[derive(Clone, Debug)]
pub struct SpecFolder {
    dir: PathBuf,
    jobs: Vec<Sourced<Job>>,
    providers: Vec<Sourced<Provider>>,
    /// Files that are neither, and files that cannot be read.
    neither: Vec<Diagnostic>,
    /// Providers whose files are too wrong to be one.
    broken: Vec<Broken>,
}

/// A provider whose file is too wrong to be one.
#[derive(Clone, Debug)]
struct Broken {
    name: String,
    file: String,
    found: Vec<Diagnostic>,
}

/// A job that is right, with everything that a plan needs.
#[derive(Clone, Debug)]
pub struct LoadedJob {
    /// The job.
    pub job: Job,
    /// Its file; lists lie beside it.
    pub job_path: PathBuf,
    /// The providers that its cells may name, by name.
    pub providers: BTreeMap<String, Provider>,
    /// Warnings.
    pub diagnostics: Vec<Diagnostic>,
    /// Where the job's parts stand.
    pub source: Source,
    /// The same for the providers.
    pub provider_sources: BTreeMap<String, Source>,
}

/// Why a job cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No job or provider has this name and no file this path (usage, exit 2).
    #[error("nothing called `{name}` in {}: {hint}", dir.display())]
    Unknown {
        /// As given.
        name: String,
        /// The spec folder.
        dir: PathBuf,
        /// The nearest name, and all of them.
        hint: String,
    },
    /// A file is wrong (exit 3).
    #[error("{} of the job's files is wrong", if .0.len() == 1 { "one thing" } else { "something" })]
    Wrong(Vec<Diagnostic>),
}

/// A folder or file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be read: {why}", path.display())]
pub struct Unreadable {
    /// Which.
    pub path: PathBuf,
    /// Why.
    pub why: std::io::Error,
}

/// The providers of a job that were found, and the names for which there is none.
pub(super) struct ProvidersOf<'s> {
    pub found: Vec<&'s Sourced<Provider>>,
    pub missing: Vec<String>,
}

impl SpecFolder {
    /// Reads `dir/jobs/*.yaml` and `dir/providers/*.yaml`.
    ///
    /// # Errors
    /// When the folder cannot be listed. What is wrong inside files is told by [`SpecFolder::check`].
    pub fn open(dir: &Path) -> Result<Self, Unreadable> {
        let mut folder = SpecFolder::empty(dir);
        std::fs::read_dir(dir).map_err(|why| Unreadable {
            path: dir.to_owned(),
            why,
        })?;
        for part in ["jobs", "providers"] {
            for path in yaml_files(&dir.join(part))? {
                folder.add(&path);
            }
        }
        Ok(folder)
    }

    fn empty(dir: &Path) -> Self {
        SpecFolder {
            dir: dir.to_owned(),
            jobs: vec![],
            providers: vec![],
            neither: vec![],
            broken: vec![],
        }
    }

    /// A folder of texts that lie on no disk, each with its path; lists beside jobs are looked for below `dir`.
    pub fn of_texts<'t>(dir: &Path, files: impl IntoIterator<Item = (&'t str, &'t str)>) -> Self {
        let mut folder = SpecFolder::empty(dir);
        for (path, text) in files {
            folder.add_text(&dir.join(path), text);
        }
        folder
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The names of its jobs, sorted.
    pub fn job_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self
            .jobs
            .iter()
            .filter_map(|j| Some(j.model.as_ref()?.name.as_str()))
            .collect();
        names.sort_unstable();
        names
    }

    /// The names of the providers whose files are right or wrong, in order.
    pub fn provider_names(&self) -> Vec<&str> {
        self.providers
            .iter()
            .filter_map(|p| Some(p.model.as_ref()?.name.as_str()))
            .collect()
    }

    /// Reads one more file, unless it was read already.
    fn add(&mut self, path: &Path) {
        let shown = path.display().to_string();
        let known = |source: &Source| same_file(&source.path, path);
        if self.jobs.iter().any(|j| known(&j.source))
            || self.providers.iter().any(|p| known(&p.source))
        {
            return;
        }
        let text = match std::fs::read(path)
            .map_err(|e| e.to_string())
            .and_then(|b| String::from_utf8(b).map_err(|_| "it is not UTF-8".into()))
        {
            Ok(text) => text,
            Err(why) => {
                return self.neither.push(Diagnostic::error(
                    &shown,
                    Position::START,
                    format!("cannot be read: {why}"),
                ));
            }
        };
        self.add_text(path, &text);
    }

    fn add_text(&mut self, path: &Path, text: &str) {
        let file = path.display().to_string();
        match read(&file, path, text) {
            SpecFile::Job(job) => self.jobs.push(*job),
            SpecFile::Provider(provider) => {
                if provider.model.is_none() {
                    self.add_broken(&file, text, &provider.found);
                }
                self.providers.push(*provider);
            }
            SpecFile::Neither(found) => {
                self.add_broken(&file, text, std::slice::from_ref(&found));
                self.neither.push(found);
            }
        }
    }

    /// What is wrong there is said once, there, and not again by each job that needs it.
    fn add_broken(&mut self, file: &str, text: &str, found: &[Diagnostic]) {
        if let Some(name) = provider_named_in(text) {
            self.broken.push(Broken {
                name: name.to_owned(),
                file: file.to_owned(),
                found: found.to_vec(),
            });
        }
    }

    /// The job called `name`.
    pub(super) fn job_file(&self, name: &str) -> Option<&Sourced<Job>> {
        self.jobs
            .iter()
            .find(|j| j.model.as_ref().is_some_and(|m| m.name == name))
    }

    fn provider_file(&self, name: &str) -> Option<&Sourced<Provider>> {
        self.providers
            .iter()
            .find(|p| p.model.as_ref().is_some_and(|m| m.name == name))
    }

    /// Every provider that a cell of `job` may name.
    pub(super) fn providers_of(&self, source: &Source, job: &Job) -> ProvidersOf<'_> {
        let Some(names) = across::provider_names(source, job) else {
            return ProvidersOf {
                found: self.providers.iter().collect(),
                missing: vec![],
            };
        };
        let (mut found, mut missing) = (vec![], vec![]);
        for name in names {
            match self.provider_file(&name) {
                Some(file) => found.push(file),
                None => missing.push(name),
            }
        }
        ProvidersOf { found, missing }
    }

    /// Says that there is no provider `name`, or that its file is wrong.
    pub(super) fn no_provider(&self, source: &Source, name: &str) -> Diagnostic {
        if let Some(broken) = self.broken.iter().find(|broken| broken.name == name) {
            return across::wrong_file(source, name, &broken.file);
        }
        let hint = choose(name, &self.provider_names(), "providers");
        source
            .fault(
                "provider",
                format!(
                    "no provider `{name}` in {}",
                    self.dir.join("providers").display()
                ),
            )
            .hint(hint)
    }

    /// Where the parts of a provider's file stand.
    pub fn provider_source(&self, name: &str) -> Option<&Source> {
        Some(&self.provider_file(name)?.source)
    }

    /// The provider called `name`.
    ///
    /// # Errors
    /// When there is none, or when its file is wrong.
    pub fn provider(&self, name: &str) -> Result<Provider, LoadError> {
        match self.provider_file(name) {
            Some(Sourced { found, .. }) if any_error(found) => Err(LoadError::Wrong(found.clone())),
            Some(Sourced {
                model: Some(provider),
                ..
            }) => Ok(provider.clone()),
            _ => Err(LoadError::Unknown {
                name: name.to_owned(),
                dir: self.dir.clone(),
                hint: choose(name, &self.provider_names(), "providers"),
            }),
        }
    }

    /// Loads a job by its name in the folder, or by the path to its file.
    ///
    /// # Errors
    /// When there is none, or when its file or one of its providers' is wrong.
    pub fn job(&self, name_or_path: &str) -> Result<LoadedJob, LoadError> {
        let mut folder = self.clone();
        let path = Path::new(name_or_path);
        if self.job_file(name_or_path).is_none() && path.is_file() {
            folder.add(path);
        }
        let file = folder
            .job_file(name_or_path)
            .or_else(|| folder.jobs.iter().find(|j| same_file(&j.source.path, path)));
        match file {
            Some(file) => folder.load(file),
            None => Err(folder.not_a_job(name_or_path)),
        }
    }

    /// A file of that name that is wrong says so; else nothing has this name.
    fn not_a_job(&self, name: &str) -> LoadError {
        let wrong = self
            .jobs
            .iter()
            .filter(|j| j.model.is_none())
            .map(|j| (&j.source.file, j.found.clone()));
        let neither = self.neither.iter().map(|d| (&d.file, vec![d.clone()]));
        let named = |file: &str| {
            file == name || Path::new(file).file_stem().is_some_and(|stem| stem == name)
        };
        if let Some((_, found)) = wrong.chain(neither).find(|(file, _)| named(file)) {
            return LoadError::Wrong(found);
        }
        let hint = choose(name, &self.job_names(), "jobs");
        LoadError::Unknown {
            name: name.to_owned(),
            dir: self.dir.clone(),
            hint,
        }
    }

    fn load(&self, file: &Sourced<Job>) -> Result<LoadedJob, LoadError> {
        let mut diagnostics = self.job_diagnostics(file);
        let job = match &file.model {
            Some(job) if !any_error(&diagnostics) => job.clone(),
            _ => {
                diagnostics.extend(self.broken_of(file));
                return Err(LoadError::Wrong(sorted(diagnostics)));
            }
        };
        let used = self.providers_of(&file.source, &job).found;
        diagnostics.extend(used.iter().flat_map(|p| p.found.clone()));
        if any_error(&diagnostics) {
            return Err(LoadError::Wrong(sorted(diagnostics)));
        }
        let (mut providers, mut provider_sources) = (BTreeMap::new(), BTreeMap::new());
        for Sourced { source, model, .. } in used {
            if let Some(provider) = model {
                providers.insert(provider.name.clone(), provider.clone());
                provider_sources.insert(provider.name.clone(), source.clone());
            }
        }
        let diagnostics = sorted(diagnostics);
        let source = file.source.clone();
        Ok(LoadedJob {
            job,
            job_path: source.path.clone(),
            providers,
            diagnostics,
            source,
            provider_sources,
        })
    }

    /// What is wrong with the broken files of the job's providers.
    fn broken_of(&self, file: &Sourced<Job>) -> Vec<Diagnostic> {
        let Some(job) = &file.model else {
            return vec![];
        };
        let ProvidersOf { found, missing } = self.providers_of(&file.source, job);
        let broken = self.broken.iter().filter(|b| missing.contains(&b.name));
        let broken = broken.flat_map(|broken| broken.found.clone());
        let wrong = found.iter().filter(|file| any_error(&file.found));
        broken
            .chain(wrong.flat_map(|file| file.found.clone()))
            .collect()
    }

    fn job_diagnostics(&self, file: &Sourced<Job>) -> Vec<Diagnostic> {
        let mut found = file.found.clone();
        if let Some(job) = &file.model {
            found.extend(across::check_job(self, &file.source, job));
        }
        found
    }

    /// Everything that is wrong with the files of `paths` (files or folders), or of the whole folder when
    /// there are none, sorted by place. With `env`, warns of names that it lacks.
    ///
    /// # Errors
    /// When one of `paths` does not exist.
    pub fn check(
        &self,
        paths: &[PathBuf],
        env: Option<&dyn Environment>,
    ) -> Result<Vec<Diagnostic>, Unreadable> {
        let mut folder = self.clone();
        let chosen = paths
            .iter()
            .map(|p| files_below(p))
            .collect::<Result<Vec<_>, _>>()?
            .concat();
        chosen.iter().for_each(|path| folder.add(path));
        let wanted =
            |source: &Source| paths.is_empty() || chosen.iter().any(|p| same_file(p, &source.path));
        // A job is right when its providers are.
        let jobs = folder.jobs.iter().filter(|f| wanted(&f.source));
        let needed: Vec<&Source> = jobs
            .clone()
            .filter_map(|f| Some(folder.providers_of(&f.source, f.model.as_ref()?).found))
            .flatten()
            .map(|provider| &provider.source)
            .collect();
        let mut found: Vec<Diagnostic> = folder.neither.clone();
        found.retain(|d| {
            paths.is_empty() || chosen.iter().any(|p| same_file(p, Path::new(&d.file)))
        });
        for file in jobs {
            found.extend(folder.job_diagnostics(file));
            if !paths.is_empty() {
                found.extend(folder.broken_of(file));
            }
            found.extend(folder.name_taken(file));
            found.extend(lacking(&file.source, env));
        }
        let is_needed = |source: &Source| needed.iter().any(|n| same_file(&n.path, &source.path));
        let checked = |f: &&Sourced<Provider>| wanted(&f.source) || is_needed(&f.source);
        for file in folder.providers.iter().filter(checked) {
            found.extend(file.found.iter().cloned());
            found.extend(folder.provider_taken(file));
            found.extend(shared::differing(file, &folder.providers));
            found.extend(lacking(&file.source, env));
            found.extend(keyless(file, env));
        }
        Ok(sorted(found))
    }

    fn name_taken(&self, file: &Sourced<Job>) -> Option<Diagnostic> {
        let name = &file.model.as_ref()?.name;
        let first = self.job_file(name)?;
        taken(&file.source, &first.source, "job", name)
    }

    fn provider_taken(&self, file: &Sourced<Provider>) -> Option<Diagnostic> {
        let name = &file.model.as_ref()?.name;
        let first = self.provider_file(name)?;
        taken(&file.source, &first.source, "provider", name)
    }
}

/// The name in the first line `provider: <name>` of a text that is no job.
fn provider_named_in(text: &str) -> Option<&str> {
    if text.lines().any(|line| line.starts_with("job:")) {
        return None;
    }
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("provider:"))?;
    let name = line.split('#').next().unwrap_or_default().trim();
    let name = name.trim_matches(['"', '\'']);
    (!name.is_empty()).then_some(name)
}

fn taken(file: &Source, first: &Source, key: &str, name: &str) -> Option<Diagnostic> {
    let other = !same_file(&file.path, &first.path);
    other.then(|| {
        file.fault(
            key,
            format!("`{name}` is the {key} of {} already", first.file),
        )
        .hint("give one of them another name")
    })
}

fn lacking(source: &Source, env: Option<&dyn Environment>) -> Vec<Diagnostic> {
    let Some(env) = env else { return vec![] };
    let lacks = |name: &str| !matches!(env.secret(name), Ok(Some(_)));
    let warning = |name: &str, at| {
        Diagnostic::error(&source.file, at, format!("the environment lacks {name}"))
            .hint(format!(
                "set {name}, or {name}_FILE, before this is planned or run"
            ))
            .warning()
    };
    source
        .variables
        .iter()
        .filter(|v| lacks(&v.name))
        .map(|v| warning(&v.name, v.at))
        .collect()
}

/// A pool whose variable is set, but holds no key, or one of them twice.
fn keyless(file: &Sourced<Provider>, env: Option<&dyn Environment>) -> Option<Diagnostic> {
    let credentials = file.model.as_ref()?.credentials.as_ref()?;
    let CredentialSource::Env(name) = &credentials.from else {
        return None;
    };
    let list = env?.secret(name).ok().flatten()?;
    let place = file.source.variables.iter().find(|v| v.name == *name)?;
    let warning = |message: String, hint: String| {
        let found = Diagnostic::error(&file.source.file, place.at, message);
        Some(found.hint(hint).warning())
    };
    let keys = pool_entries(&list).len();
    match written_entries(&list).count() - keys {
        _ if keys == 0 => warning(
            format!("{name} is set, but holds no key: a pool without keys never opens"),
            format!("set {name} to the keys, separated by commas"),
        ),
        0 => None,
        again => warning(
            format!("{again} of the keys in {name} stand there before: each counts once"),
            "take the doubles out: the same key has the same budget, however often it is written"
                .into(),
        ),
    }
}

/// By place, each once.
fn sorted(mut found: Vec<Diagnostic>) -> Vec<Diagnostic> {
    found.sort();
    found.dedup();
    found
}

fn same_file(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// The YAML files right in `dir`, sorted; none when it does not exist.
fn yaml_files(dir: &Path) -> Result<Vec<PathBuf>, Unreadable> {
    let unreadable = |why| Unreadable {
        path: dir.to_owned(),
        why,
    };
    if !dir.exists() {
        return Ok(vec![]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|e| e == "yaml" || e == "yml") && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// `path` itself, or what a spec folder or a plain folder of that path holds.
fn files_below(path: &Path) -> Result<Vec<PathBuf>, Unreadable> {
    if path.is_dir() {
        let parts = [path.to_owned(), path.join("jobs"), path.join("providers")];
        return Ok(parts
            .iter()
            .map(|p| yaml_files(p))
            .collect::<Result<Vec<_>, _>>()?
            .concat());
    }
    std::fs::metadata(path).map_err(|why| Unreadable {
        path: path.to_owned(),
        why,
    })?;
    Ok(vec![path.to_owned()])
}
