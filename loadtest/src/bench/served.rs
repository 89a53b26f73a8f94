//! `producer serve` as a process, and how long its answers take.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::Programs;
use super::fleet::own_environment;

/// The environment of programs on these servers, with names of their own and this spec folder.
pub fn environment(
    servers: Vec<(String, String)>,
    name: &str,
    provider: &str,
    spec: &Path,
) -> Vec<(String, String)> {
    let fares = [("FARE_SEARCH_KEYS", "a"), ("FARE_SEARCH_URL", provider)];
    let fares = fares.map(|(name, value)| (name.to_owned(), value.to_owned()));
    [servers, own_environment(name, spec), fares.into()].concat()
}

/// A serving process. Dropping it kills it.
#[derive(Debug)]
pub struct Served {
    child: Child,
    url: String,
}

impl Served {
    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// When it ends instead.
    pub fn start(programs: &Programs, environment: &[(String, String)]) -> anyhow::Result<Self> {
        let mut child = programs
            .command("producer")
            .args(["serve", "--listen", "127.0.0.1:0"])
            .envs(environment.iter().cloned())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let said = child.stderr.take().context("its stderr is piped")?;
        let mut lines = BufReader::new(said).lines();
        let mut url = None;
        for line in lines.by_ref() {
            let line = line?;
            let found = line.split_whitespace().find(|w| w.starts_with("http://"));
            if let Some(found) = found.filter(|_| line.starts_with("listening")) {
                url = Some(found.to_owned());
                break;
            }
            eprintln!("{line}");
        }
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|l| eprintln!("{l}")));
        let Some(url) = url else {
            bail!("producer serve ended: {:?}", child.wait()?);
        };
        Ok(Served { child, url })
    }

    /// `http://127.0.0.1:<port>`
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Which process it is.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The memory that it holds now, in MiB.
    pub fn resident_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()));
        let status = status.unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(|r| r.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
        kib.unwrap_or(0) / 1024
    }

    /// Asks for `path` until `holds` of its text.
    ///
    /// # Errors
    /// When it does not within `patience`.
    pub async fn until(
        &self,
        path: &str,
        patience: Duration,
        holds: impl Fn(&str) -> bool,
    ) -> anyhow::Result<String> {
        let until = Instant::now() + patience;
        loop {
            let answer = reqwest::get(format!("{}{path}", self.url)).await?;
            let text = answer.text().await?;
            if holds(&text) {
                return Ok(text);
            }
            if Instant::now() > until {
                bail!(
                    "{path} is never as it should be: {}",
                    text.chars().take(500).collect::<String>()
                );
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may be gone, which is what is wanted.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// How long answers took.
#[derive(Clone, Debug, Default)]
pub struct Times(Vec<Duration>);

impl Times {
    /// Asks `times` times, one after the other on one connection, after a few that do not count.
    ///
    /// # Errors
    /// When an answer is not 200.
    pub async fn of(url: &str, times: usize) -> anyhow::Result<(Self, usize)> {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let (mut all, mut bytes) = (Times::default(), 0);
        for number in 0..times + 5 {
            let begun = Instant::now();
            let answer = client.get(url).send().await?.error_for_status()?;
            bytes = answer.bytes().await?.len();
            if number >= 5 {
                all.note(begun.elapsed());
            }
        }
        Ok((all, bytes))
    }

    /// One more.
    pub fn note(&mut self, took: Duration) {
        self.0.push(took);
    }

    /// The time that `percent` of them took at most, in milliseconds.
    pub fn ms(&self, percent: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort();
        let place = (sorted.len() as f64 * percent / 100.0).ceil() as usize;
        let at = sorted.get(place.clamp(1, sorted.len().max(1)) - 1);
        at.copied().unwrap_or_default().as_secs_f64() * 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_time_that_was_measured() {
        let mut times = Times::default();
        for ms in (1..=200).rev() {
            times.note(Duration::from_millis(ms));
        }
        assert_eq!(
            (times.ms(50.0), times.ms(99.0), times.ms(100.0)),
            (100.0, 198.0, 200.0)
        );
        assert_eq!(Times::default().ms(99.0), 0.0);
    }
}
