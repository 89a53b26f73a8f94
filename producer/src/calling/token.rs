//! The token or session that a call is signed in with: the one that the fleet keeps, else a new one, got under the
//! fleet's lease and kept for everybody.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use paceline_protocol::connector::{
    CallContext, Credential, Granted, HttpRequest, Secret, Token, TokenAnswer, TokenTemplates,
};
use paceline_protocol::outcome::{Outcome, Verdict};
use paceline_protocol::stores::objects::PutNew;
use paceline_protocol::stores::refresh_tokens::RefreshTokens;
use paceline_protocol::stores::state::KeptToken;

use super::{Caller, Sent};

/// How long a lease lasts without being kept.
const LEASE: Duration = Duration::from_secs(10);
/// How often it is kept.
const KEEP: Duration = Duration::from_secs(3);
/// How often a token is looked for that somebody else renews.
const LOOK: Duration = Duration::from_millis(150);
/// After a try in vain, everybody takes the reason for theirs for so long.
const TROUBLE: Duration = Duration::from_secs(5);
/// What a sealed token is sealed as.
const SEALED_AS: &str = "token";

/// A token, and which one of its credential's.
#[derive(Clone)]
pub(super) struct SignedIn {
    pub place: usize,
    pub token: Arc<Token>,
    pub generation: u64,
}

/// The request for one credential's token, ready to be made.
struct Request<'r> {
    tokens: &'r TokenTemplates,
    context: CallContext,
    place: usize,
    credential: Credential,
    fence: u64,
    until: Instant,
}

impl Caller<'_> {
    /// A token of the picked credential, else of the first that has or gets one; a text when none does.
    pub(super) async fn sign_in(
        &self,
        tokens: &TokenTemplates,
        context: &CallContext,
        picked: Option<usize>,
        until: Instant,
    ) -> Result<Result<SignedIn, String>> {
        let mut why = "there are no credentials".to_owned();
        for place in 0..self.pool.credentials.len() {
            if picked.is_some_and(|picked| picked != place) {
                continue;
            }
            match self.token_of(tokens, context, place, until).await? {
                Ok(signed) => return Ok(Ok(signed)),
                Err(reason) => why = reason,
            }
        }
        Ok(Err(why))
    }

    async fn token_of(
        &self,
        tokens: &TokenTemplates,
        context: &CallContext,
        place: usize,
        until: Instant,
    ) -> Result<Result<SignedIn, String>> {
        let credential = self.pool.credentials[place].clone();
        let (state, provider) = (self.fleet.state, self.connector.provider());
        loop {
            let look = state.look_for_token(provider, credential.name(), &self.holder, LEASE);
            let seen = look.await?;
            let kept = seen.kept.as_ref().and_then(|kept| {
                let opened = credential.sealer(provider).open(SEALED_AS, &kept.sealed)?;
                Some((Token::from_bytes(&opened)?, kept.generation))
            });
            if let Some((token, generation)) = kept {
                if let Some(fence) = seen.renew {
                    self.leave(&credential, fence, None).await?;
                }
                return Ok(Ok(SignedIn {
                    place,
                    token: Arc::new(token),
                    generation,
                }));
            }
            if let Some(fence) = seen.renew {
                let request = Request {
                    tokens,
                    context: context.clone(),
                    place,
                    credential,
                    fence,
                    until,
                };
                return self.renew(request).await;
            }
            if let Some(trouble) = seen.trouble {
                return Ok(Err(trouble));
            }
            if Instant::now() >= until {
                return Ok(Err("somebody else still asks for its token".into()));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Under the lease, which is kept meanwhile and given back at the end.
    async fn renew(&self, request: Request<'_>) -> Result<Result<SignedIn, String>> {
        let (credential, fence) = (request.credential.clone(), request.fence);
        if request.tokens.one_time {
            self.leave(&credential, fence, None).await?;
            return Ok(Err(
                "no session is kept, and a log-in with a one-time code is left to the workers"
                    .into(),
            ));
        }
        let asked = tokio::select! {
            asked = self.ask_for_token(request) => asked,
            () = self.keep_token_lease(&credential, fence) => Ok(Err(String::new())),
        };
        let trouble = match &asked {
            Ok(Ok(_)) => return asked,
            Ok(Err(why)) => Some(why.as_str()),
            Err(_) => None,
        };
        self.leave(&credential, fence, trouble).await?;
        asked
    }

    async fn ask_for_token(&self, request: Request<'_>) -> Result<Result<SignedIn, String>> {
        let credential = &request.credential;
        let refreshing = self.refreshing(credential);
        let newest = match request.tokens.rotates() {
            true => refreshing.newest().await?,
            false => refreshing.of_the_file(),
        };
        let context = self.connector.token_context(request.context.clone());
        let now_us = self.fleet_us().await?;
        let with_newest = context
            .clone()
            .at(now_us)
            .with_credential(&newest.credential);
        let built = self.connector.token_request(request.tokens, with_newest)?;
        let sent = loop {
            let allowed = self
                .granted(&context, Some(request.place), request.until)
                .await?;
            let allowed = match allowed {
                Ok(allowed) => allowed,
                Err(why) => return Ok(Err(why)),
            };
            let build = |_: CallContext| Ok::<HttpRequest, _>(built.clone());
            if let Some(sent) = self.send(&context, allowed, build).await? {
                break sent;
            }
        };
        let answer = self.judge_token(request.tokens, &sent);
        self.note(&sent, &answer.verdict());
        let verdict = match answer {
            TokenAnswer::Granted(granted) => {
                self.tell(&sent, Outcome::Ok, None).await?;
                return self.granted_token(&request, granted, newest.number).await;
            }
            TokenAnswer::Refused(verdict) => {
                self.tell(&sent, Outcome::AuthExpired, None).await?;
                verdict
            }
            TokenAnswer::Closed(verdict) | TokenAnswer::Again(verdict) => {
                self.tell(&sent, verdict.outcome, verdict.wait).await?;
                verdict
            }
        };
        let what = request.tokens.endpoint();
        Ok(Err(format!("its {what} request: {}", verdict.reason)))
    }

    fn judge_token(&self, tokens: &TokenTemplates, sent: &Sent) -> TokenAnswer {
        let answer = match &sent.answer {
            Ok(answer) => answer,
            Err(error) => {
                return TokenAnswer::Again(Verdict {
                    outcome: Outcome::Retryable,
                    wait: None,
                    reason: error.to_string(),
                });
            }
        };
        answer.judge_token(&self.connector, tokens, sent.answered_us)
    }

    /// Keeps what the provider gave: first what cannot be had again, then the token.
    async fn granted_token(
        &self,
        request: &Request<'_>,
        granted: Granted,
        number: u64,
    ) -> Result<Result<SignedIn, String>> {
        let credential = &request.credential;
        if let Some(Secret(refresh)) = &granted.rotated {
            let refreshing = self.refreshing(credential);
            let sealed = refreshing.seal(refresh);
            loop {
                match refreshing.put_next(number, sealed.clone()).await {
                    Ok(PutNew::Created) => break,
                    Ok(PutNew::Exists) => {
                        return Ok(Err("somebody else has renewed its token meanwhile".into()));
                    }
                    Err(error) => {
                        tracing::error!(error = %error, "a new refresh token is not kept yet; it is lost if this process ends now");
                    }
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
        let provider = self.connector.provider();
        let sealer = credential.sealer(provider);
        let kept = KeptToken {
            generation: request.fence,
            sealed: sealer.seal(SEALED_AS, &granted.token.to_bytes()),
            renew_in: granted.renew_after,
            good_for: granted.lasts,
        };
        let put = self
            .fleet
            .state
            .put_token(provider, credential.name(), &self.holder, &kept);
        Ok(match put.await? {
            true => Ok(SignedIn {
                place: request.place,
                token: Arc::new(granted.token),
                generation: request.fence,
            }),
            false => Err("somebody else renews its token meanwhile".into()),
        })
    }

    /// Tells the fleet whether the token of a call was taken.
    pub(super) async fn token_was_taken(&self, signed: &SignedIn, taken: bool) -> Result<bool> {
        let provider = self.connector.provider();
        let name = self.pool.credentials[signed.place].name();
        let state = self.fleet.state;
        if taken {
            state.token_works(provider, name, signed.generation).await?;
            return Ok(true);
        }
        Ok(state
            .token_ended(provider, name, signed.generation, false)
            .await?)
    }

    fn refreshing<'c>(&'c self, credential: &'c Credential) -> RefreshTokens<'c> {
        RefreshTokens {
            objects: &self.fleet.archive.objects,
            prefix: &self.fleet.archive.fleet.prefix,
            provider: self.connector.provider(),
            credential,
        }
    }

    /// The fleet's clock now.
    async fn fleet_us(&self) -> Result<i64> {
        let nothing = self.holding(&[], 0);
        Ok(self.fleet.limiter.renew(&nothing).await?.answer.now_us)
    }

    /// Keeps the lease. Never returns.
    async fn keep_token_lease(&self, credential: &Credential, fence: u64) {
        let (provider, name) = (self.connector.provider(), credential.name());
        loop {
            tokio::time::sleep(KEEP).await;
            let kept =
                self.fleet
                    .state
                    .keep_token_lease(provider, name, &self.holder, fence, LEASE);
            // Lost: what comes of the request is not kept, by its fence.
            if let Err(error) = kept.await {
                tracing::debug!(error = %error, "the lease of a token was not kept");
            }
        }
    }

    async fn leave(
        &self,
        credential: &Credential,
        fence: u64,
        trouble: Option<&str>,
    ) -> Result<()> {
        let (provider, name) = (self.connector.provider(), credential.name());
        let trouble = trouble.map(|why| (why, TROUBLE));
        Ok(self
            .fleet
            .state
            .leave_token(provider, name, &self.holder, fence, trouble)
            .await?)
    }
}
