//! Names that end up in object keys, queue names and Redis keys, checked once where they enter.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The id of one execution of a job. Sorts by time when it is made here; may be given by the user.
///
/// At most 64 characters of `A-Z a-z 0-9 . _ -`, the first one a letter or digit, never `..`, so that
/// it is safe as a part of an object key, a queue name and a Redis key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(String);

/// Why a text is not a run id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{given}` is not a run id: use 1 to 64 of A-Z a-z 0-9 . _ - with a letter or digit first and no `..`, for example 2026-11-21"
)]
pub struct BadRunId {
    given: String,
}

impl RunId {
    /// The longest run id, in bytes.
    pub const MAX_LEN: usize = 64;

    /// An id for a run planned at `at`: UTC to the second, then six characters of `entropy`.
    pub fn at(at: jiff::Timestamp, entropy: u32) -> Self {
        let utc = at.to_zoned(jiff::tz::TimeZone::UTC);
        RunId(format!(
            "{}-{:06x}",
            utc.strftime("%Y%m%d-%H%M%S"),
            entropy & 0x00ff_ffff
        ))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RunId {
    type Err = BadRunId;

    fn from_str(text: &str) -> Result<Self, BadRunId> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let good = !text.is_empty()
            && text.len() <= Self::MAX_LEN
            && text.bytes().all(legal)
            && text.as_bytes()[0].is_ascii_alphanumeric()
            && !text.contains("..");
        if good {
            Ok(RunId(text.to_owned()))
        } else {
            let given = text.chars().take(80).collect();
            Err(BadRunId { given })
        }
    }
}

impl TryFrom<String> for RunId {
    type Error = BadRunId;

    fn try_from(text: String) -> Result<Self, BadRunId> {
        text.parse()
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> String {
        id.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A run together with its job: what most names are made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RunRef {
    /// The job's name.
    pub job: String,
    /// The run's id.
    pub run: RunId,
}

impl fmt::Display for RunRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.job, self.run)
    }
}

/// Why a text is not `<job>/<run>`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not <job>/<run>, for example fares/2026-11-21")]
pub struct BadRunRef {
    given: String,
}

impl FromStr for RunRef {
    type Err = BadRunRef;

    /// Reads what [`Display`](fmt::Display) writes.
    fn from_str(text: &str) -> Result<Self, BadRunRef> {
        let named = text.split_once('/').filter(|(job, _)| is_name(job));
        let run = named.and_then(|(job, run)| {
            let run = run.parse().ok()?;
            let job = job.to_owned();
            Some(RunRef { job, run })
        });
        run.ok_or_else(|| BadRunRef {
            given: text.chars().take(120).collect(),
        })
    }
}

/// Whether `name` can name a job, provider, endpoint or limit: 1 to 48 of `a-z 0-9 - _`, a letter or digit first.
pub fn is_name(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    (1..=48).contains(&name.len())
        && name.bytes().all(legal)
        && name.as_bytes()[0].is_ascii_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_read_as_it_is_written() {
        let run: RunRef = "fares/2026-11-21".parse().expect("a run");
        assert_eq!(
            (run.job.as_str(), run.run.as_str()),
            ("fares", "2026-11-21")
        );
        assert_eq!(run.to_string().parse(), Ok(run));
        for bad in [
            "fares",
            "fares/",
            "/2026-11-21",
            "fares/a/b",
            "../x",
            "fares/..",
            "",
        ] {
            assert!(bad.parse::<RunRef>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_run_id_never_leaves_its_folder() {
        for bad in [
            "",
            "..",
            "../x",
            "a/b",
            "a..b",
            ".hidden",
            "é",
            "a b",
            "a\n",
            &"x".repeat(65),
        ] {
            assert!(bad.parse::<RunId>().is_err(), "{bad:?} must be refused");
        }
        for good in ["2026-11-21", "20261121-031500-00ab12", "A_1.b"] {
            assert_eq!(
                good.parse::<RunId>().map(|id| id.to_string()),
                Ok(good.to_owned())
            );
        }
    }

    #[test]
    fn made_ids_sort_by_time() {
        let at = |s: i64| jiff::Timestamp::from_second(s).expect("in range");
        assert!(RunId::at(at(1_795_000_000), 9) < RunId::at(at(1_795_000_001), 1));
    }
}
