//! What must outlive Redis of a provider's limits, in S3: what operators set, holds, and closures of more than a
//! minute. One object each, so that no slow writer takes another one's back.
//!
//! S3 first, then Redis: whoever finds Redis' state lost puts back what lies here before anything is granted.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::limiter::{Closure, FleetLimiter, LimiterError};
use super::objects::{ObjectError, Objects};
use crate::layout;
use crate::limit::{Closed, Hold, Kept, Numbers, PROVIDER, tag_of, whole_of};

/// Closures of more than this many microseconds are kept (1 min).
pub const KEPT_FROM_US: i64 = 60_000_000;

/// Why something was not kept or put back.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// S3 is away.
    #[error(transparent)]
    Objects(#[from] ObjectError),
    /// Redis is away.
    #[error(transparent)]
    Limiter(#[from] LimiterError),
}

/// Where they lie: the bucket, the prefix in it, and the provider.
#[derive(Clone, Copy, Debug)]
pub struct KeptLimits<'a> {
    /// The bucket.
    pub objects: &'a Objects,
    /// `PACELINE_PREFIX`
    pub prefix: &'a str,
    /// The provider, as the limiter knows it.
    pub provider: &'a str,
}

/// Who changed it, when and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// When, by the clock of whoever did.
    pub at: Timestamp,
    /// `--reason`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Entry {
    Set {
        limit: String,
        numbers: Numbers,
        change: Change,
    },
    Hold {
        whole: String,
        hold: Hold,
        change: Change,
    },
    Ban {
        name: String,
        until_us: i64,
        strikes: u32,
        reason: String,
    },
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// What operators said.
    pub kept: Kept,
    /// Closures, by name.
    pub closed: BTreeMap<String, Closed>,
    /// Who set which limit's numbers, and why.
    pub changes: BTreeMap<String, Change>,
}

impl KeptLimits<'_> {
    /// Everything that is kept.
    ///
    /// # Errors
    /// When S3 does not answer.
    pub async fn read(&self) -> Result<Found, ObjectError> {
        let mut found = Found::default();
        let folder = layout::kept_limits(self.prefix, tag_of(self.provider));
        for listed in self.objects.list(&folder).await? {
            let Some(object) = self.objects.get(&listed.key).await? else {
                continue;
            };
            match serde_json::from_slice(&object.body) {
                Ok(entry) => found.add(entry),
                Err(error) => {
                    tracing::error!(key = listed.key, error = %error, "not a kept limit; it is left out");
                }
            }
        }
        Ok(found)
    }

    /// Puts everything back into Redis, if its state was lost. Returns whether it was.
    ///
    /// # Errors
    /// When a store does not answer.
    pub async fn put_back(&self, limiter: &FleetLimiter) -> Result<bool, KeptError> {
        let found = self.read().await?;
        let put = limiter.put_back(self.provider, &found.kept, &found.closed);
        Ok(put.await?)
    }

    /// Sets the numbers of a limit, from now on and for the whole fleet.
    ///
    /// # Errors
    /// When a store does not answer; doing it again is harmless.
    pub async fn set(
        &self,
        limiter: &FleetLimiter,
        limit: &str,
        numbers: Numbers,
        change: Change,
    ) -> Result<(), KeptError> {
        let entry = Entry::Set {
            limit: limit.to_owned(),
            numbers,
            change,
        };
        self.put(&format!("set-{limit}"), &entry).await?;
        self.put_back(limiter).await?;
        let set = limiter.set_numbers(self.provider, limit, Some(&numbers));
        Ok(set.await?)
    }

    /// Holds the provider.
    ///
    /// # Errors
    /// As for [`set`](Self::set).
    pub async fn hold(
        &self,
        limiter: &FleetLimiter,
        hold: Hold,
        change: Change,
    ) -> Result<(), KeptError> {
        let entry = Entry::Hold {
            whole: whole_of(self.provider).to_owned(),
            hold: hold.clone(),
            change,
        };
        self.put(&self.hold_name(), &entry).await?;
        self.put_back(limiter).await?;
        Ok(limiter.hold(self.provider, Some(&hold)).await?)
    }

    /// Takes back what operators set of `limits` (counters' names). What answers told is forgotten too.
    ///
    /// # Errors
    /// As for [`set`](Self::set).
    pub async fn reset(&self, limiter: &FleetLimiter, limits: &[String]) -> Result<(), KeptError> {
        for limit in limits {
            self.objects
                .delete(&self.key(&format!("set-{limit}")))
                .await?;
            limiter.set_numbers(self.provider, limit, None).await?;
        }
        limiter.forget_learned(self.provider, limits).await?;
        Ok(())
    }

    /// Ends a hold.
    ///
    /// # Errors
    /// As for [`set`](Self::set).
    pub async fn end_hold(&self, limiter: &FleetLimiter) -> Result<(), KeptError> {
        self.objects.delete(&self.key(&self.hold_name())).await?;
        Ok(limiter.hold(self.provider, None).await?)
    }

    /// Keeps a closure that lasts longer than a minute; `now_us` is the fleet's clock.
    ///
    /// # Errors
    /// When S3 does not answer.
    pub async fn ban(
        &self,
        closure: &Closure,
        strikes: u32,
        now_us: i64,
    ) -> Result<(), ObjectError> {
        let for_us = i64::try_from(closure.for_.as_micros()).unwrap_or(i64::MAX / 4);
        let name = match closure.name.as_str() {
            PROVIDER => whole_of(self.provider),
            name => name,
        };
        let entry = Entry::Ban {
            name: name.to_owned(),
            until_us: now_us.saturating_add(for_us),
            strikes,
            reason: closure.reason.clone(),
        };
        self.put(&encoded("ban", name), &entry).await
    }

    /// Somebody looked: what answers had closed is not kept any more.
    ///
    /// # Errors
    /// When S3 does not answer.
    pub async fn forget_bans(&self) -> Result<(), ObjectError> {
        let folder = layout::kept_limits(self.prefix, tag_of(self.provider));
        for listed in self.objects.list(&format!("{folder}ban-")).await? {
            self.objects.delete(&listed.key).await?;
        }
        Ok(())
    }

    /// One closure was wrong: it is not kept any more.
    ///
    /// # Errors
    /// When S3 does not answer.
    pub async fn forget_ban(&self, name: &str) -> Result<(), ObjectError> {
        self.objects.delete(&self.key(&encoded("ban", name))).await
    }

    fn hold_name(&self) -> String {
        encoded("hold", whole_of(self.provider))
    }

    async fn put(&self, name: &str, entry: &Entry) -> Result<(), ObjectError> {
        let body = serde_json::to_vec(entry).expect("numbers and texts always serialise");
        self.objects.put(&self.key(name), body.into(), &[]).await
    }

    fn key(&self, name: &str) -> String {
        let folder = layout::kept_limits(self.prefix, tag_of(self.provider));
        format!("{folder}{name}.json")
    }
}

fn encoded(what: &str, name: &str) -> String {
    let name = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC);
    format!("{what}-{name}")
}

impl Found {
    fn add(&mut self, entry: Entry) {
        match entry {
            Entry::Set {
                limit,
                numbers,
                change,
            } => {
                self.kept.set.insert(limit.clone(), numbers);
                self.changes.insert(limit, change);
            }
            Entry::Hold { whole, hold, .. } => drop(self.kept.holds.insert(whole, hold)),
            Entry::Ban {
                name,
                until_us,
                strikes,
                reason,
            } => {
                let closed = Closed {
                    until_us,
                    strikes,
                    reason,
                    ..Closed::default()
                };
                self.closed.insert(name, closed);
            }
        }
    }
}
