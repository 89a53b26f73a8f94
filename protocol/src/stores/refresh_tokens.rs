//! Refresh tokens that took the place of the one before, without which people would have to consent anew: they have
//! to outlive Redis.
//!
//! They are objects with rising numbers, each put only where there is none: of two that rotate at once the second
//! one sees it, and the highest number counts. Sealed with a key of the credential's own secrets.

use bytes::Bytes;

use super::objects::{ObjectError, Objects, PutNew};
use crate::connector::Credential;
use crate::layout;

const FIELD: &str = "refresh_token";
const SEALED_AS: &str = "refresh token";

/// Those of one credential.
#[derive(Clone, Copy)]
pub struct RefreshTokens<'a> {
    /// The bucket.
    pub objects: &'a Objects,
    /// `PACELINE_PREFIX`
    pub prefix: &'a str,
    /// The provider.
    pub provider: &'a str,
    /// As its file has it.
    pub credential: &'a Credential,
}

/// What reading the newest one found.
pub struct Newest {
    /// The credential with it.
    pub credential: Credential,
    /// Its number; 0 for that of the file.
    pub number: u64,
}

impl RefreshTokens<'_> {
    /// The one of the credential's own file.
    pub fn of_the_file(&self) -> Newest {
        Newest {
            credential: self.credential.clone(),
            number: 0,
        }
    }

    /// The credential with its newest refresh token: that of its own file when it was never rotated.
    ///
    /// # Errors
    /// When S3 does not answer.
    pub async fn newest(&self) -> Result<Newest, ObjectError> {
        let number = highest(self.objects, &self.folder()).await?;
        if number == 0 {
            return Ok(self.of_the_file());
        }
        let mut credential = self.credential.clone();
        if let Some(object) = self.objects.get(&self.key(number)).await? {
            let sealer = self.credential.sealer(self.provider);
            let opened = sealer.open(SEALED_AS, &object.body);
            match opened.and_then(|bytes| String::from_utf8(bytes).ok()) {
                Some(refresh) => credential = credential.with_field(FIELD, &refresh),
                None => tracing::error!(
                    provider.name = self.provider,
                    credential = self.credential.name(),
                    object.key = self.key(number),
                    "a kept refresh token cannot be read; the one of the file is tried"
                ),
            }
        }
        Ok(Newest { credential, number })
    }

    /// As it is kept.
    pub fn seal(&self, refresh: &str) -> Bytes {
        let sealer = self.credential.sealer(self.provider);
        Bytes::from(sealer.seal(SEALED_AS, refresh.as_bytes()))
    }

    /// Keeps the one that took the place of the one with number `before`; `Exists` when somebody else kept one
    /// meanwhile. To be tried again with the same `sealed`.
    ///
    /// # Errors
    /// When S3 does not answer.
    pub async fn put_next(&self, before: u64, sealed: Bytes) -> Result<PutNew, ObjectError> {
        let put = self
            .objects
            .put_new(&self.key(before + 1), sealed.clone(), &[])
            .await?;
        if put == PutNew::Exists {
            // A try whose outcome nobody knew may have been ours.
            let there = self.objects.get(&self.key(before + 1)).await?;
            if there.is_some_and(|object| object.body == sealed) {
                return Ok(PutNew::Created);
            }
        }
        if put == PutNew::Created && before > 1 {
            // The one before stays, in case that a provider takes it once more.
            drop(self.objects.delete(&self.key(before - 1)).await);
        }
        Ok(put)
    }

    fn folder(&self) -> String {
        layout::credential(self.prefix, self.provider, self.credential.name())
    }

    fn key(&self, number: u64) -> String {
        format!("{}refresh-{number}", self.folder())
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
