//! Tokens and sessions of credentials, sealed, each one for the whole fleet: who looks finds a good one, or
//! gets the lease of renewing it, or hears who has it. A fence keeps a holder that was too slow from putting
//! its token over a newer one.

use std::sync::LazyLock;
use std::time::Duration;

use redis::{Script, ScriptInvocation};

use super::{State, StateError};

static TOKEN: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("token.lua")));

/// What a look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSeen {
    /// The token that may be used now.
    pub kept: Option<KeptToken>,
    /// The fence of the lease, when the caller is to renew it.
    pub renew: Option<u64>,
    /// How long somebody else may still hold the lease.
    pub held_for: Duration,
    /// The step of the last one-time code that was used; none in a record that is new, or was lost.
    pub last_step: Option<u64>,
    /// Why nobody can renew it for a moment.
    pub trouble: Option<String>,
}

/// A token as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptToken {
    /// Which one: grows with each.
    pub generation: u64,
    /// Sealed.
    pub sealed: Vec<u8>,
    /// After how long it is to be renewed.
    pub renew_in: Duration,
    /// How long it is good.
    pub good_for: Duration,
}

/// How the script tells what a look found: numbers as text, which Lua would round.
type Seen = (
    String,
    Vec<u8>,
    String,
    String,
    String,
    String,
    String,
    String,
);

impl State {
    fn token(&self, provider: &str, credential: &str, what: &str) -> ScriptInvocation<'static> {
        let mut call = TOKEN.key(self.keys.token(provider, credential));
        call.arg(what);
        call
    }

    async fn run_token(&self, call: &ScriptInvocation<'_>) -> Result<bool, StateError> {
        let mut connection = self.connection().await?;
        call.invoke_async(&mut connection)
            .await
            .map_err(|e| self.failed(e))
    }

    /// Looks for the token of `credential`; who finds none, or one that is to be renewed, gets the lease when it
    /// is free.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn look_for_token(
        &self,
        provider: &str,
        credential: &str,
        holder: &str,
        lease: Duration,
    ) -> Result<TokenSeen, StateError> {
        let mut connection = self.connection().await?;
        let mut call = self.token(provider, credential, "look");
        call.arg(holder).arg(micros(lease));
        let (generation, sealed, renew, until, fence, held, step, trouble): Seen = call
            .invoke_async(&mut connection)
            .await
            .map_err(|e| self.failed(e))?;
        let number = |text: &str| text.parse::<u64>().unwrap_or(0);
        let kept = (!sealed.is_empty()).then(|| KeptToken {
            generation: number(&generation),
            sealed,
            renew_in: Duration::from_micros(number(&renew)),
            good_for: Duration::from_micros(number(&until)),
        });
        Ok(TokenSeen {
            kept,
            renew: Some(number(&fence)).filter(|fence| *fence > 0),
            held_for: Duration::from_micros(number(&held)),
            last_step: step.parse().ok(),
            trouble: Some(trouble).filter(|trouble| !trouble.is_empty()),
        })
    }

    /// Keeps the lease for another while; false when it is lost.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn keep_token_lease(
        &self,
        provider: &str,
        credential: &str,
        holder: &str,
        fence: u64,
        lease: Duration,
    ) -> Result<bool, StateError> {
        let mut call = self.token(provider, credential, "keep");
        call.arg(holder).arg(fence).arg(micros(lease));
        self.run_token(&call).await
    }

    /// Uses the one-time code of `step` up; false when it may not be used: it was used before, or the lease is lost.
    ///
    /// # Errors
    /// When Redis does not answer: the code may be used up.
    pub async fn use_one_time_step(
        &self,
        provider: &str,
        credential: &str,
        holder: &str,
        fence: u64,
        step: u64,
    ) -> Result<bool, StateError> {
        let mut call = self.token(provider, credential, "step");
        call.arg(holder).arg(fence).arg(step);
        self.run_token(&call).await
    }

    /// Keeps a token for the fleet and gives the lease back; false when the lease was lost meanwhile.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn put_token(
        &self,
        provider: &str,
        credential: &str,
        holder: &str,
        token: &KeptToken,
    ) -> Result<bool, StateError> {
        let mut call = self.token(provider, credential, "put");
        call.arg(holder)
            .arg(token.generation)
            .arg(token.sealed.as_slice())
            .arg(micros(token.renew_in))
            .arg(micros(token.good_for));
        self.run_token(&call).await
    }

    /// Gives the lease back without a token. With `trouble`, nobody tries again for so long.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn leave_token(
        &self,
        provider: &str,
        credential: &str,
        holder: &str,
        fence: u64,
        trouble: Option<(&str, Duration)>,
    ) -> Result<(), StateError> {
        let (why, pause) = trouble.unwrap_or_default();
        let mut call = self.token(provider, credential, "leave");
        call.arg(holder).arg(fence).arg(why).arg(micros(pause));
        self.run_token(&call).await.map(drop)
    }

    /// A call was answered well with this token.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn token_works(
        &self,
        provider: &str,
        credential: &str,
        generation: u64,
    ) -> Result<(), StateError> {
        let mut call = self.token(provider, credential, "proven");
        call.arg(generation);
        self.run_token(&call).await.map(drop)
    }

    /// A provider does not take this token any more. True when it is to be renewed, false when no call was ever
    /// answered well with it: then the credential itself is not accepted. Only the first who tells hears that.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn token_ended(
        &self,
        provider: &str,
        credential: &str,
        generation: u64,
        worked: bool,
    ) -> Result<bool, StateError> {
        let mut call = self.token(provider, credential, "ended");
        call.arg(generation).arg(u8::from(worked));
        self.run_token(&call).await
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX >> 12)
}
