//! What has to outlive Redis: a refresh token that took the place of the one before, without which people would
//! have to consent anew, and whether an account ever used a one-time code.
//!
//! Refresh tokens are objects with rising numbers, each put only where there is none: of two that rotate at once
//! the second one sees it, and the highest number counts.

use bytes::Bytes;
use paceline_protocol::connector::Credential;
use paceline_protocol::layout;
use paceline_protocol::stores::objects::{ObjectError, Objects, PutNew};

use super::{AWAY, Work};

const FIELD: &str = "refresh_token";
const SEALED_AS: &str = "refresh token";

/// What reading the newest refresh token found.
pub(super) struct Newest {
    /// The credential with it.
    pub credential: Credential,
    /// Its number; 0 for that of the file.
    pub number: u64,
}

impl Work<'_> {
    fn folder(&self) -> String {
        layout::credential(&self.of.context.prefix, self.provider, self.name())
    }

    fn objects(&self) -> &Objects {
        &self.of.context.parting.stores.objects
    }

    /// The credential with its newest refresh token: that of its own file when it was never rotated.
    pub(super) async fn newest(&self) -> Result<Newest, ObjectError> {
        let mut credential = self.credential.clone();
        let mut number = 0;
        if self.tokens.rotates() {
            number = highest(self.objects(), &self.folder()).await?;
        }
        if number > 0
            && let Some(object) = self.objects().get(&self.key(number)).await?
        {
            let sealer = self.credential.sealer(self.provider);
            let opened = sealer.open(SEALED_AS, &object.body);
            match opened.and_then(|bytes| String::from_utf8(bytes).ok()) {
                Some(refresh) => credential = credential.with_field(FIELD, &refresh),
                None => tracing::error!(
                    provider.name = self.provider,
                    credential = self.name(),
                    object.key = self.key(number),
                    "a kept refresh token cannot be read; the one of the file is tried"
                ),
            }
        }
        Ok(Newest { credential, number })
    }

    /// Keeps a refresh token that took the place of the one with `number`, as long as that takes: without it the
    /// account is lost. False when somebody else kept one meanwhile.
    pub(super) async fn keep_refresh_token(&self, number: u64, refresh: &str) -> bool {
        let sealer = self.credential.sealer(self.provider);
        let sealed = Bytes::from(sealer.seal(SEALED_AS, refresh.as_bytes()));
        loop {
            match self.put_next(number, sealed.clone()).await {
                Ok(PutNew::Created) => return true,
                Ok(PutNew::Exists) => return false,
                Err(error) => {
                    tracing::error!(provider.name = self.provider, credential = self.name(), error = %error, "a new refresh token is not kept yet; it is lost if this worker ends now")
                }
            }
            tokio::time::sleep(AWAY).await;
        }
    }

    async fn put_next(&self, before: u64, sealed: Bytes) -> Result<PutNew, ObjectError> {
        let put = self
            .objects()
            .put_new(&self.key(before + 1), sealed.clone(), &[])
            .await?;
        if put == PutNew::Exists {
            // A try whose outcome nobody knew may have been ours.
            let there = self.objects().get(&self.key(before + 1)).await?;
            if there.is_some_and(|object| object.body == sealed) {
                return Ok(PutNew::Created);
            }
        }
        if put == PutNew::Created && before > 1 {
            // The one before stays, in case that a provider takes it once more.
            drop(self.objects().delete(&self.key(before - 1)).await);
        }
        Ok(put)
    }

    fn key(&self, number: u64) -> String {
        format!("{}refresh-{number}", self.folder())
    }

    /// Notes that the account uses one-time codes. True when it did before.
    pub(super) async fn used_codes_before(&self) -> Result<bool, ObjectError> {
        let key = format!("{}one-time", self.folder());
        let put = self.objects().put_new(&key, Bytes::new(), &[]).await?;
        Ok(put == PutNew::Exists)
    }
}

async fn highest(objects: &Objects, folder: &str) -> Result<u64, ObjectError> {
    let there = objects.list(&format!("{folder}refresh-")).await?;
    let number = |key: &str| key.rsplit_once("refresh-")?.1.parse().ok();
    Ok(there
        .iter()
        .filter_map(|o| number(&o.key))
        .max()
        .unwrap_or(0))
}
