//! S3. Every step has a time limit and our own jittered retries; conditional puts are probed at start.

use std::collections::HashMap;

use bytes::Bytes;

/// Why S3 did not do it.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// It did not answer, or answered an error that retries did not cure.
    #[error("S3 ({what}) {key}: {why}")]
    Failed {
        /// `put`, `get`, ...
        what: &'static str,
        /// The object or prefix.
        key: String,
        /// What went wrong.
        why: String,
    },
    /// The bucket is not there.
    #[error("S3 has no bucket {0}: create it, or correct PACELINE_BUCKET")]
    NoBucket(String),
    /// The store ignores `If-None-Match`, on which exact resume stands.
    #[error(
        "the S3 store at {0} ignores If-None-Match: * (a second put of one key succeeded); Paceline cannot use it"
    )]
    NoConditionalPut(String),
}

/// The client of one bucket. Cheap to clone.
#[derive(Clone)]
pub struct Objects {}

/// An object with what is kept beside it.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its bytes.
    pub body: Bytes,
    /// Its user metadata, lower-case names.
    pub metadata: HashMap<String, String>,
}

/// One entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
}

/// What a conditional put found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutNew {
    /// It is ours now.
    Created,
    /// There was one already.
    Exists,
}

impl Objects {
    /// A client for `bucket`, from the SDK's own chain (`AWS_ENDPOINT_URL_S3`, `AWS_REGION`, keys);
    /// path style where an endpoint is given.
    pub async fn new(_bucket: &str) -> Self {
        todo!()
    }

    /// The bucket's name.
    pub fn bucket(&self) -> &str {
        todo!()
    }

    /// The same client on another bucket.
    pub fn with_bucket(&self, _bucket: &str) -> Self {
        todo!()
    }

    /// Where it is, for messages; without secrets.
    pub fn endpoint(&self) -> String {
        todo!()
    }

    /// One cheap request: reachable, allowed, and the bucket is there.
    ///
    /// # Errors
    /// When it is not.
    pub async fn ping(&self) -> Result<(), ObjectError> {
        todo!()
    }

    /// Puts one key twice with `If-None-Match: *` below `prefix` and demands a refusal.
    ///
    /// # Errors
    /// [`ObjectError::NoConditionalPut`]
    pub async fn probe_conditional_put(&self, _prefix: &str) -> Result<(), ObjectError> {
        todo!()
    }

    /// Puts an object over what was there.
    ///
    /// # Errors
    /// When S3 does not take it within the time limit.
    pub async fn put(
        &self,
        _key: &str,
        _body: Bytes,
        _metadata: &[(&str, String)],
    ) -> Result<(), ObjectError> {
        todo!()
    }

    /// Puts an object only when there is none.
    ///
    /// # Errors
    /// When S3 does not answer within the time limit.
    pub async fn put_new(
        &self,
        _key: &str,
        _body: Bytes,
        _metadata: &[(&str, String)],
    ) -> Result<PutNew, ObjectError> {
        todo!()
    }

    /// Gets an object; `None` when there is none.
    ///
    /// # Errors
    /// When S3 does not answer within the time limit.
    pub async fn get(&self, _key: &str) -> Result<Option<Object>, ObjectError> {
        todo!()
    }

    /// An object's user metadata without its body; `None` when there is none.
    ///
    /// # Errors
    /// When S3 does not answer within the time limit.
    pub async fn head(&self, _key: &str) -> Result<Option<HashMap<String, String>>, ObjectError> {
        todo!()
    }

    /// All objects whose key begins with `prefix`, by key, page by page into `each`.
    ///
    /// # Errors
    /// When S3 does not answer within the time limit.
    pub async fn list_each(
        &self,
        _prefix: &str,
        _each: &mut (dyn FnMut(Listed) + Send),
    ) -> Result<(), ObjectError> {
        todo!()
    }

    /// All objects whose key begins with `prefix`, in memory.
    ///
    /// # Errors
    /// When S3 does not answer within the time limit.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Listed>, ObjectError> {
        let mut all = Vec::new();
        self.list_each(prefix, &mut |listed| all.push(listed))
            .await?;
        Ok(all)
    }

    /// The names of the folders directly below `prefix` (which ends with `/`).
    ///
    /// # Errors
    /// When S3 does not answer within the time limit.
    pub async fn folders(&self, _prefix: &str) -> Result<Vec<String>, ObjectError> {
        todo!()
    }

    /// Deletes an object; one that is not there is fine.
    ///
    /// # Errors
    /// When S3 does not answer within the time limit.
    pub async fn delete(&self, _key: &str) -> Result<(), ObjectError> {
        todo!()
    }
}
