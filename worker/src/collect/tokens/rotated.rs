//! What has to outlive Redis: a refresh token that took the place of the one before, and whether an account ever
//! used a one-time code.

use bytes::Bytes;
use paceline_protocol::layout;
use paceline_protocol::stores::objects::{ObjectError, PutNew};
use paceline_protocol::stores::refresh_tokens::{Newest, RefreshTokens};

use super::{AWAY, Work};

impl Work<'_> {
    fn refreshing(&self) -> RefreshTokens<'_> {
        RefreshTokens {
            objects: &self.of.context.parting.stores.objects,
            prefix: &self.of.context.prefix,
            provider: self.provider,
            credential: &self.credential,
        }
    }

    /// The credential with its newest refresh token: that of its own file when it was never rotated.
    pub(super) async fn newest(&self) -> Result<Newest, ObjectError> {
        match self.tokens.rotates() {
            true => self.refreshing().newest().await,
            false => Ok(self.refreshing().of_the_file()),
        }
    }

    /// Keeps a refresh token that took the place of the one with `number`, as long as that takes: without it the
    /// account is lost. False when somebody else kept one meanwhile.
    pub(super) async fn keep_refresh_token(&self, number: u64, refresh: &str) -> bool {
        let sealed = self.refreshing().seal(refresh);
        loop {
            match self.refreshing().put_next(number, sealed.clone()).await {
                Ok(PutNew::Created) => return true,
                Ok(PutNew::Exists) => return false,
                Err(error) => {
                    tracing::error!(provider.name = self.provider, credential = self.name(), error = %error, "a new refresh token is not kept yet; it is lost if this worker ends now")
                }
            }
            tokio::time::sleep(AWAY).await;
        }
    }

    /// Notes that the account uses one-time codes. True when it did before.
    pub(super) async fn used_codes_before(&self) -> Result<bool, ObjectError> {
        let folder = layout::credential(&self.of.context.prefix, self.provider, self.name());
        let objects = &self.of.context.parting.stores.objects;
        let key = format!("{folder}one-time");
        let put = objects.put_new(&key, Bytes::new(), &[]).await?;
        Ok(put == PutNew::Exists)
    }
}
