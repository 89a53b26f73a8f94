//! The demo's processes: the simulated provider, the workers, the producer.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use paceline_stack::{Process, Stack};

/// Real airports, and few enough for a demo of a minute and a half.
const DESTINATIONS: &str =
    "iata,name\nNRT,Tokyo Narita\nBKK,Bangkok\nCDG,Paris Charles de Gaulle\n";
/// What the fleet knows and the provider expects; none of it may turn up anywhere else.
const KEYS: &str = "demo-key-one,demo-key-two";
/// How long a process may take for its first word.
const PATIENCE: Duration = Duration::from_secs(20);

/// All processes of the demo. Dropping it ends them.
pub struct Fleet {
    /// The binaries lie beside this program.
    binaries: PathBuf,
    folder: PathBuf,
    env: BTreeMap<String, String>,
    provider: Option<Process>,
    collectors: Vec<Process>,
    loader: Option<Process>,
    producer: Option<Process>,
    run: String,
    started: usize,
}

/// What a finished fleet leaves to look at.
pub struct Finished {
    /// The run's id.
    pub run: String,
    /// Namespace and prefix, so that one's own servers keep runs of demos apart.
    pub prefix: String,
}

impl Fleet {
    /// Lays out the spec folder, with `fares.yaml` unchanged and three destinations.
    pub fn new(stack: &Stack) -> anyhow::Result<Self> {
        let binaries = std::env::current_exe()?;
        let binaries = binaries.parent().context("this program lies nowhere")?;
        let folder = stack.folder().join("demo");
        lay_out_spec(&folder.join("spec"))?;
        let mut env: BTreeMap<String, String> = stack.env().into_iter().collect();
        let spec = folder.join("spec").to_string_lossy().into_owned();
        env.insert("PACELINE_SPEC".into(), spec);
        env.insert("PACELINE_NAMESPACE".into(), "demo".into());
        env.insert("PACELINE_PREFIX".into(), "demo".into());
        env.insert("FARE_SEARCH_KEYS".into(), KEYS.into());
        Ok(Fleet {
            binaries: binaries.to_owned(),
            folder,
            env,
            provider: None,
            collectors: Vec::new(),
            loader: None,
            producer: None,
            run: format!("demo-{}", jiff::Zoned::now().strftime("%Y%m%d-%H%M%S")),
            started: 0,
        })
    }

    /// Starts the simulator; its URL.
    pub fn start_provider(&mut self) -> anyhow::Result<String> {
        let rate = format!("{}/s", super::ALLOWED);
        let arguments = [
            "--rate",
            &rate,
            "--concurrency",
            "64",
            "--quota",
            "25000",
            "--keys",
            KEYS,
        ];
        let mut provider = self.start("simulator", &arguments)?;
        let url = first_url(&mut provider)?;
        self.env.insert("FARE_SEARCH_URL".into(), url.clone());
        self.provider = Some(provider);
        Ok(url)
    }

    /// Starts one more `worker collect`.
    pub fn start_collector(&mut self) -> anyhow::Result<()> {
        let collector = self.start("worker", &["collect"])?;
        self.collectors.push(collector);
        Ok(())
    }

    /// Starts `worker load`.
    pub fn start_loader(&mut self) -> anyhow::Result<()> {
        self.loader = Some(self.start("worker", &["load"])?);
        Ok(())
    }

    /// Starts `producer enqueue fares --wait`.
    pub fn enqueue(&mut self) -> anyhow::Result<()> {
        let run = self.run.clone();
        let arguments = ["enqueue", "fares", "--run-id", &run, "--wait"];
        self.producer = Some(self.start("producer", &arguments)?);
        Ok(())
    }

    /// How `producer enqueue --wait` ended; `None` while it waits.
    pub fn enqueue_ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        let producer = self.producer.as_mut().context("nothing was enqueued")?;
        Ok(producer.try_wait()?)
    }

    /// Kill -9 of the collector that has run longest; its process id.
    pub fn kill_one_collector(&mut self) -> anyhow::Result<u32> {
        ensure!(!self.collectors.is_empty(), "no collector runs");
        let mut victim = self.collectors.remove(0);
        victim.kill()?;
        Ok(victim.id())
    }

    /// A worker that ended by itself would make the demo wait for ever.
    pub fn check_alive(&mut self) -> anyhow::Result<()> {
        for process in self.collectors.iter_mut().chain(&mut self.loader) {
            if let Some(status) = process.try_wait()? {
                bail!(
                    "{} ended with {status}:\n{}",
                    process.name(),
                    process.last_words(15)
                );
            }
        }
        Ok(())
    }

    /// The last words of the producer.
    pub fn what_went_wrong(&self) -> String {
        let words = self.producer.as_ref().map(|p| p.last_words(15));
        words.unwrap_or_default()
    }

    /// What `producer audit` proves from the ledger.
    pub fn audit(&mut self) -> anyhow::Result<String> {
        let run = self.run.clone();
        let mut audit = self.start("producer", &["audit", &run])?;
        let status = audit.wait_at_most(PATIENCE)?;
        let status = status.context("producer audit does not end")?;
        ensure!(
            status.success(),
            "audit ended with {status}:\n{}",
            audit.said()
        );
        Ok(audit.said())
    }

    /// Drains the workers. The provider stays: it has the last word.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        for mut process in self.collectors.drain(..).chain(self.loader.take()) {
            let status = process.terminate(Duration::from_secs(30))?;
            ensure!(status.success(), "{} drained with {status}", process.name());
        }
        Ok(())
    }

    /// What there is to look at.
    pub fn finished(&self) -> Finished {
        Finished {
            run: self.run.clone(),
            prefix: "demo".into(),
        }
    }

    /// Writes what leads to the servers and the binaries as a shell reads it; the file's path.
    pub fn write_environment(&self) -> anyhow::Result<PathBuf> {
        let path = self.folder.join("environment");
        let mut text = String::new();
        for (name, value) in &self.env {
            let quoted = value.replace('\'', r"'\''");
            text.push_str(&format!("export {name}='{quoted}'\n"));
        }
        let binaries = self.binaries.display();
        text.push_str(&format!("PATH='{binaries}':\"$PATH\"\n"));
        fs::write(&path, text).with_context(|| path.display().to_string())?;
        Ok(path)
    }

    fn start(&mut self, binary: &str, arguments: &[&str]) -> anyhow::Result<Process> {
        self.started += 1;
        let role = arguments.first().unwrap_or(&"").trim_start_matches('-');
        let log = format!("{}-{binary}-{role}.log", self.started);
        let mut command = Command::new(self.binaries.join(binary));
        command.args(arguments).envs(&self.env);
        Process::spawn(
            &format!("{binary} {role}"),
            &mut command,
            &self.folder.join(log),
        )
    }
}

/// The example files as they are, but for the destinations.
fn lay_out_spec(folder: &Path) -> anyhow::Result<()> {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/spec");
    for file in ["jobs/fares.yaml", "providers/fare-search.yaml"] {
        let to = folder.join(file);
        fs::create_dir_all(to.parent().unwrap_or(folder))?;
        fs::copy(example.join(file), to).with_context(|| format!("deploy/spec/{file}"))?;
    }
    fs::write(folder.join("jobs/destinations.csv"), DESTINATIONS)?;
    Ok(())
}

/// The URL that the simulator prints when it listens.
fn first_url(provider: &mut Process) -> anyhow::Result<String> {
    let until = Instant::now() + PATIENCE;
    loop {
        let said = provider.said();
        let url = said.split_whitespace().find(|w| w.starts_with("http://"));
        if let Some(url) = url {
            return Ok(url.trim_end_matches('/').to_owned());
        }
        if provider.try_wait()?.is_some() || Instant::now() > until {
            bail!("the simulator did not come up:\n{said}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
