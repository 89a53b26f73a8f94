//! What operators said of a provider's limits, and closures that outlive Redis: in Redis beside what answers closed,
//! so that every step reads them without a round trip of its own.

use std::collections::BTreeMap;

use redis::AsyncCommands as _;

use super::{FleetLimiter, LimiterError, open_closure, own_closure, slowed, wire};
use crate::limit::{Closed, Hold, Kept, Numbers};

use super::{Closure, Slowed};

/// What operators said, as it lies in Redis.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeptNow {
    /// Redis' clock, microseconds since 1970.
    pub now_us: i64,
    /// Numbers that hold instead of the file's, by the limit's name.
    pub set: BTreeMap<String, Numbers>,
    /// Nothing starts before, if that is not over.
    pub hold: Option<Hold>,
    /// What answers closed.
    pub closures: Vec<Closure>,
    /// What is open and called below a pace that was refused.
    pub slowed: Vec<Slowed>,
    /// The state was lost and nothing was put back yet.
    pub is_lost: bool,
}

impl FleetLimiter {
    /// Sets the numbers of a limit for the whole fleet, in all of its scopes; `None`: as the file and the answers have
    /// it. From now on nobody gets a grant by other numbers.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn set_numbers(
        &self,
        provider: &str,
        limit: &str,
        numbers: Option<&Numbers>,
    ) -> Result<(), LimiterError> {
        let name = format!("={limit}");
        let text = numbers.map(wire::encode_numbers);
        self.say(provider, &name, text.as_deref()).await
    }

    /// Holds a provider: nothing starts before. `None` ends it.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn hold(&self, provider: &str, hold: Option<&Hold>) -> Result<(), LimiterError> {
        let text = hold.map(encode_hold);
        let name = wire::hold_name(provider);
        self.say(provider, &name, text.as_deref()).await
    }

    async fn say(
        &self,
        provider: &str,
        name: &str,
        text: Option<&str>,
    ) -> Result<(), LimiterError> {
        let key = self.keys.closures(provider);
        let mut connection = self.connection.clone();
        let mut command = redis::cmd(if text.is_some() { "HSET" } else { "HDEL" });
        command.arg(key).arg(name);
        if let Some(text) = text {
            command.arg(text);
        }
        self.within(command.exec_async(&mut connection)).await
    }

    /// Puts back what operators said and the closures that were kept, if the state was lost; see
    /// [`crate::limit::State::put_back`]. Returns whether it was.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn put_back(
        &self,
        provider: &str,
        kept: &Kept,
        closed: &BTreeMap<String, Closed>,
    ) -> Result<bool, LimiterError> {
        self.put_back_at(provider, kept, closed, "").await
    }

    /// As [`put_back`](Self::put_back), on a server process that is passed in: for the suite.
    ///
    /// # Errors
    /// As for [`put_back`](Self::put_back).
    #[doc(hidden)]
    pub async fn put_back_at(
        &self,
        provider: &str,
        kept: &Kept,
        closed: &BTreeMap<String, Closed>,
        server: &str,
    ) -> Result<bool, LimiterError> {
        let mut call = self.scripts.put_back.key(self.keys.closures(provider));
        call.arg(server);
        for (limit, numbers) in &kept.set {
            call.arg(format!("={limit}"))
                .arg(wire::encode_numbers(numbers));
        }
        for (whole, hold) in &kept.holds {
            call.arg(format!("#hold{whole}")).arg(encode_hold(hold));
        }
        for (name, closure) in closed {
            call.arg(name).arg(wire::encode_closed(closure));
        }
        self.run(&call).await
    }

    /// What operators said and answers closed, as it is now.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn kept(&self, provider: &str) -> Result<KeptNow, LimiterError> {
        let seen = self.look(vec![self.keys.closures(provider)]).await?;
        let mut kept = KeptNow {
            now_us: seen.now_us,
            is_lost: true,
            ..KeptNow::default()
        };
        let hold_name = wire::hold_name(provider);
        for (name, text) in seen.hashes.iter().flatten() {
            match (name.strip_prefix('='), name.as_str()) {
                (Some(limit), _) => kept
                    .set
                    .extend(wire::read_numbers(text).map(|numbers| (limit.to_owned(), numbers))),
                (None, "#id") => kept.is_lost = *text != seen.server,
                (None, name) if name == hold_name => {
                    kept.hold = read_hold(text).filter(|hold| hold.until_us > seen.now_us);
                }
                (None, name) => {
                    let own = own_closure(provider, name);
                    let Some((own, closed)) = own.zip(wire::read_closed(text)) else {
                        continue;
                    };
                    kept.slowed.extend(slowed(seen.now_us, own, &closed));
                    kept.closures.extend(open_closure(seen.now_us, own, closed));
                }
            }
        }
        kept.closures.sort_by(|a, b| a.name.cmp(&b.name));
        kept.slowed.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(kept)
    }

    /// Forgets the numbers that answers told of `limits` of a provider, in every scope. The next answer tells them
    /// again.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn forget_learned(
        &self,
        provider: &str,
        limits: &[String],
    ) -> Result<(), LimiterError> {
        let mut connection = self.connection.clone();
        for scope in self.scopes(provider).await? {
            if limits.contains(&scope.limit) {
                let key = scope.key.as_str();
                let gone: redis::RedisFuture<'_, ()> = connection.hdel(key, &["heard", "#heard"]);
                self.within(gone).await?;
            }
        }
        Ok(())
    }

    /// The limits and scopes of a provider that something is remembered of.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn scopes(&self, provider: &str) -> Result<Vec<KnownScope>, LimiterError> {
        let prefix = format!("{}:", self.keys.limits(provider));
        let mut found = BTreeMap::new();
        let mut cursor = 0u64;
        loop {
            let mut connection = self.connection.clone();
            let mut command = redis::cmd("SCAN");
            let pattern = format!("{}*", glob_escaped(&prefix));
            command
                .arg(cursor)
                .arg("MATCH")
                .arg(pattern)
                .arg("COUNT")
                .arg(1_000);
            let (next, keys): (u64, Vec<String>) =
                self.within(command.query_async(&mut connection)).await?;
            for key in keys {
                if let Some(scope) = KnownScope::of(&prefix, &key) {
                    found.insert(key, scope);
                }
            }
            cursor = next;
            if cursor == 0 {
                return Ok(found.into_values().collect());
            }
        }
    }
}

/// A limit in one scope that something is remembered of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownScope {
    /// The limit's name.
    pub limit: String,
    /// The scope; of a long one a digest.
    pub scope: String,
    key: String,
}

impl KnownScope {
    fn of(prefix: &str, key: &str) -> Option<Self> {
        let mut parts = key.strip_prefix(prefix)?.splitn(3, ':');
        let kind = parts.next()?;
        let is_limit = matches!(kind, "paced" | "leases" | "quota");
        let (limit, scope) = (parts.next()?, parts.next()?);
        is_limit.then(|| KnownScope {
            limit: limit.to_owned(),
            scope: scope.to_owned(),
            key: key.to_owned(),
        })
    }
}

fn glob_escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\' | '^') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

fn encode_hold(hold: &Hold) -> String {
    format!("{} {}", hold.until_us.max(0), hold.reason)
}

fn read_hold(text: &str) -> Option<Hold> {
    let (until, reason) = text.split_once(' ')?;
    Some(Hold {
        until_us: until.parse().ok()?,
        reason: reason.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_may_hold_anything() {
        let scope = KnownScope::of("n:{p}:", "n:{p}:paced:second:a:b/c").expect("one");
        assert_eq!((&*scope.limit, &*scope.scope), ("second", "a:b/c"));
        assert_eq!(KnownScope::of("n:{p}:", "n:{p}:claim:j/r/1/0"), None);
        assert_eq!(KnownScope::of("n:{p}:", "n:{p}:closed"), None);
    }
}
