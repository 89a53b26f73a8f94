//! The spec folder under watch: a job is what its files last said rightly. A file that becomes wrong while
//! serving leaves the old job in place, loudly.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use anyhow::Result;
use paceline_protocol::spec::{LoadError, LoadedJob, SpecFolder};

use super::Server;
use crate::commands::load;
use crate::context::Context;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);

type Jobs = BTreeMap<String, Arc<LoadedJob>>;
type Print = BTreeMap<PathBuf, (Option<SystemTime>, u64)>;

/// The jobs of the spec folder.
pub(super) struct SpecWatch {
    dir: PathBuf,
    jobs: RwLock<(Print, Jobs)>,
    faults: RwLock<Vec<String>>,
}

impl SpecWatch {
    /// Reads the folder; wrong files are told and left out.
    pub(super) fn open(context: &Context) -> Result<Self> {
        load::folder(context)?;
        let watch = SpecWatch {
            dir: context.spec.clone(),
            jobs: RwLock::default(),
            faults: RwLock::default(),
        };
        watch.read_again();
        Ok(watch)
    }

    /// The jobs as they were last right, by name.
    pub(super) fn jobs(&self) -> Jobs {
        self.jobs
            .read()
            .map(|held| held.1.clone())
            .unwrap_or_default()
    }

    /// One job.
    pub(super) fn job(&self, name: &str) -> Option<Arc<LoadedJob>> {
        self.jobs.read().ok()?.1.get(name).cloned()
    }

    /// What is wrong with the files as they are now.
    pub(super) fn faults(&self) -> Vec<String> {
        self.faults
            .read()
            .map(|held| held.clone())
            .unwrap_or_default()
    }

    /// Reads what has changed since the last look.
    fn read_again(&self) {
        let print = fingerprint(&self.dir);
        let (known, old) = match self.jobs.read() {
            Ok(held) => held.clone(),
            Err(_) => return,
        };
        if known == print {
            return;
        }
        let Ok(folder) = SpecFolder::open(&self.dir) else {
            tracing::error!(dir = %self.dir.display(), "the spec folder cannot be read; the jobs stay as they were");
            return;
        };
        let mut faults = Vec::new();
        let jobs = load_all(&folder, &print, &old, &mut faults);
        if let Ok(mut held) = self.faults.write() {
            *held = faults;
        }
        if let Ok(mut held) = self.jobs.write() {
            *held = (print, jobs);
        }
    }
}

/// Looks at the files now and then.
pub(super) async fn keep_reading(server: Arc<Server>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = server.stop.cancelled() => return,
        }
        let reading = server.clone();
        // Reading files blocks.
        let read = tokio::task::spawn_blocking(move || reading.spec.read_again());
        if let Err(error) = read.await {
            tracing::error!(%error, "the spec folder was not read");
        }
    }
}

fn load_all(folder: &SpecFolder, print: &Print, old: &Jobs, faults: &mut Vec<String>) -> Jobs {
    let mut jobs = Jobs::new();
    let of_jobs = |path: &&PathBuf| path.parent().is_some_and(|p| p.ends_with("jobs"));
    for path in print.keys().filter(of_jobs).filter(|p| is_yaml(p)) {
        match folder.job(&path.to_string_lossy()) {
            Ok(job) => {
                jobs.insert(job.job.name.clone(), Arc::new(job));
            }
            Err(error) => {
                faults.extend(told(path, &error));
                let before = old.iter().find(|(_, job)| job.job_path == *path);
                if let Some((name, job)) = before {
                    tracing::error!(
                        job = name,
                        "the job stays as it was before its files became wrong"
                    );
                    jobs.insert(name.clone(), job.clone());
                }
            }
        }
    }
    jobs
}

/// Says what is wrong, in the log and line by line to whoever shows it.
fn told(path: &Path, error: &LoadError) -> Vec<String> {
    let lines = match error {
        LoadError::Wrong(found) => found.iter().map(ToString::to_string).collect(),
        LoadError::Unknown { .. } => vec![format!("{}: {error}", path.display())],
    };
    for line in &lines {
        tracing::error!("{line}");
    }
    lines
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "yaml" || e == "yml")
}

/// When each file of the folder was changed last, and its size.
fn fingerprint(dir: &Path) -> Print {
    let mut print = Print::new();
    for part in ["jobs", "providers"] {
        let Ok(entries) = std::fs::read_dir(dir.join(part)) else {
            continue;
        };
        for entry in entries.flatten() {
            if let Ok(meta) = std::fs::metadata(entry.path()) {
                print.insert(entry.path(), (meta.modified().ok(), meta.len()));
            }
        }
    }
    print
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, file: &str, text: &str) {
        std::fs::write(dir.join(file), text).expect("written");
    }

    #[test]
    fn a_file_that_became_wrong_leaves_the_old_job() {
        let dir = tempfile::tempdir().expect("a folder");
        for part in ["jobs", "providers"] {
            std::fs::create_dir(dir.path().join(part)).expect("made");
        }
        let provider = concat!(
            "provider: p\nversion: 1\nbase_url: http://h\nlimits:\n  - {name: second, rate: 5/s}\n",
            "endpoints:\n  e:\n    get: /v1\n    query: {n: \"{{ n }}\"}\n    records: $.data[*]\n",
            "    fields: {x: $.x}\n",
        );
        let job = concat!(
            "job: j\nprovider: p\nendpoint: e\nsplit:\n  n: [1, 2]\n",
            "outputs:\n  s3: {format: ndjson}\n",
        );
        write(dir.path(), "providers/p.yaml", provider);
        write(dir.path(), "jobs/j.yaml", job);
        let watch = SpecWatch {
            dir: dir.path().to_owned(),
            jobs: RwLock::default(),
            faults: RwLock::default(),
        };
        watch.read_again();
        let found = SpecFolder::open(dir.path()).expect("a folder");
        assert!(watch.job("j").is_some(), "{:?}", found.job("j").err());
        write(dir.path(), "jobs/j.yaml", "job: j\nnonsense: [\n");
        watch.read_again();
        assert!(watch.job("j").is_some(), "the old one stays");
        assert!(!watch.faults().is_empty(), "and it is said");
        write(
            dir.path(),
            "jobs/j.yaml",
            &job.replace("[1, 2]", "[1, 2, 3]"),
        );
        watch.read_again();
        assert!(watch.faults().is_empty());
        let cells = watch.job("j").expect("the new one").job.split.len();
        assert_eq!(cells, 1);
        std::fs::remove_file(dir.path().join("jobs/j.yaml")).expect("removed");
        watch.read_again();
        assert!(watch.job("j").is_none(), "a file that is gone is no fault");
    }
}
