//! S3. Every step has a time limit and our own jittered retries; conditional puts are probed at start.
//!
//! The SDK's retries are off: they draw from one bucket for the whole process, which some hundred
//! failing puts empty for good. Its time limits leave out a body that trickles, so ours are outside.

mod client;
mod fault;

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use bytes::{Bytes, BytesMut};

use crate::settings::{Environment, ProcessEnvironment};
use client::Endpoint;
use fault::{Answer, Fault, NOT_IMPLEMENTED};

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
    /// It does not let us in, or not here: waiting does not help.
    #[error(
        "S3 ({what}) {key}: {why}: correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the key this right"
    )]
    Denied {
        /// `put`, `get`, ...
        what: &'static str,
        /// The object or prefix.
        key: String,
        /// What it said.
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
pub struct Objects {
    client: Client,
    bucket: String,
    endpoint: Endpoint,
}

/// An object with what is kept beside it.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its bytes.
    pub body: Bytes,
    /// Its user metadata, lower-case names.
    pub metadata: HashMap<String, String>,
    /// Its entity tag.
    pub etag: Option<String>,
}

/// What an object may be put over.
#[derive(Clone, Copy)]
enum Over<'a> {
    Any,
    Nothing,
    Tag(&'a str),
}

/// One entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was written.
    pub modified: Option<jiff::Timestamp>,
    /// Its entity tag, as the store spells it.
    pub etag: Option<String>,
}

/// What reading an object that has to be the one that was listed found.
#[derive(Clone, Debug)]
pub enum GotSame {
    /// It is the same.
    Same(Object),
    /// Another one lies under its key.
    Changed,
    /// There is none.
    Missing,
}

/// What a conditional put found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutNew {
    /// It is ours now.
    Created,
    /// There was one already.
    Exists,
}

/// The largest object that is read into memory.
const BODY_CAP: usize = 512 << 20;
/// The largest object that one put takes.
const ONE_PUT: u64 = 5 << 30;
/// How long one try may take, beside one second for each mebibyte that it moves.
const TRY_LIMIT: Duration = Duration::from_secs(10);

impl std::fmt::Debug for Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Objects({})", self.endpoint())
    }
}

impl Objects {
    /// A client for `bucket`, from the SDK's own chain (`AWS_ENDPOINT_URL_S3`, `AWS_REGION`, keys);
    /// path style where an endpoint is given. Keys may also be in files (`AWS_SECRET_ACCESS_KEY_FILE`);
    /// a file that cannot be read is said by every request.
    pub async fn new(bucket: &str) -> Self {
        Self::of(bucket, &ProcessEnvironment).await
    }

    /// The same with what `env` names, before what the process' own environment does.
    pub async fn of(bucket: &str, env: &impl Environment) -> Self {
        let (client, endpoint) = client::connect(env).await;
        Objects {
            client,
            bucket: bucket.to_owned(),
            endpoint,
        }
    }

    /// The bucket's name.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The same client on another bucket.
    pub fn with_bucket(&self, bucket: &str) -> Self {
        Objects {
            bucket: bucket.to_owned(),
            ..self.clone()
        }
    }

    /// Where it is, for messages; without secrets.
    pub fn endpoint(&self) -> String {
        format!("{}/{}", self.endpoint.shown, self.bucket)
    }

    /// One cheap request without retries: reachable, allowed, and the bucket is there.
    ///
    /// # Errors
    /// When it is not.
    pub async fn ping(&self) -> Result<(), ObjectError> {
        let asked = self
            .client
            .list_objects_v2()
            .bucket(&self.bucket)
            .max_keys(1)
            .send();
        let answer = match tokio::time::timeout(TRY_LIMIT, asked).await {
            Ok(answer) => answer.map_err(Fault::from),
            Err(_) => Err(Fault::late(TRY_LIMIT)),
        };
        answer
            .map(drop)
            .map_err(|fault| self.error("list", "", fault))
    }

    /// Puts one key twice with `If-None-Match: *` below `prefix` and demands a refusal. The key is a
    /// new one for each probe and is deleted where the store allows it.
    ///
    /// # Errors
    /// [`ObjectError::NoConditionalPut`]
    pub async fn probe_conditional_put(&self, prefix: &str) -> Result<(), ObjectError> {
        let key = format!(
            "{}/probe/{}",
            prefix.trim_matches('/'),
            uuid::Uuid::new_v4().simple()
        );
        self.put_new(&key, Bytes::from_static(b"1"), &[]).await?;
        let second = self.put_new(&key, Bytes::from_static(b"2"), &[]).await?;
        if let Err(error) = self.delete(&key).await {
            tracing::debug!(object.key = %key, %error, "the probe object stays");
        }
        match second {
            PutNew::Exists => Ok(()),
            PutNew::Created => Err(ObjectError::NoConditionalPut(self.endpoint())),
        }
    }

    /// Puts an object over what was there.
    ///
    /// # Errors
    /// When S3 does not take it within the time limit.
    pub async fn put(
        &self,
        key: &str,
        body: Bytes,
        metadata: &[(&str, String)],
    ) -> Result<(), ObjectError> {
        self.put_if(key, body, metadata, Over::Any).await.map(drop)
    }

    /// Puts a file over what was there, without holding it in memory.
    ///
    /// # Errors
    /// When S3 does not take it within the time limit, or the file cannot be read.
    pub async fn put_file(&self, key: &str, file: &Path) -> Result<(), ObjectError> {
        let unread = |why: String| ObjectError::Failed {
            what: "put",
            key: key.to_owned(),
            why,
        };
        let size = tokio::fs::metadata(file).await;
        let size = size.map_err(|error| unread(error.to_string()))?.len();
        if size > ONE_PUT {
            return Err(unread("it is larger than 5 GiB".into()));
        }
        let limit = limit_for(usize::try_from(size).unwrap_or(usize::MAX));
        let answer = self
            .until_answered("put", key, limit, || async {
                let body = ByteStream::from_path(file).await;
                let body = body.map_err(|error| Fault::Final(error.to_string()))?;
                let put = self.client.put_object().bucket(&self.bucket).key(key);
                Ok(put.body(body).send().await.map(drop)?)
            })
            .await?;
        let put = answer.found();
        put.ok_or_else(|| ObjectError::NoBucket(self.bucket.clone()))
    }

    /// Puts an object only when there is none. After a try whose outcome is unknown, `Exists` may be
    /// our own object: the caller adopts what is there either way.
    ///
    /// # Errors
    /// When S3 does not answer within the time limit.
    pub async fn put_new(
        &self,
        key: &str,
        body: Bytes,
        metadata: &[(&str, String)],
    ) -> Result<PutNew, ObjectError> {
        self.put_if(key, body, metadata, Over::Nothing).await
    }

    /// Puts an object over the one with the entity tag `over`, or where there is none; false when there is another one by
    /// now. A store that knows no `If-Match` for puts takes it whatever is there.
    ///
    /// # Errors
    /// When S3 does not answer within the time limit.
    pub async fn put_over(
        &self,
        key: &str,
        body: Bytes,
        over: Option<&str>,
    ) -> Result<bool, ObjectError> {
        let condition = over.map_or(Over::Nothing, Over::Tag);
        match self.put_if(key, body.clone(), &[], condition).await {
            Ok(PutNew::Created) => Ok(true),
            // A try whose outcome was unknown may have been ours.
            Ok(PutNew::Exists) => Ok(self.get(key).await?.is_some_and(|it| it.body == body)),
            Err(ObjectError::Failed { why, .. }) if why.starts_with(NOT_IMPLEMENTED) => {
                self.put(key, body, &[]).await.map(|()| true)
            }
            Err(error) => Err(error),
        }
    }

    async fn put_if(
        &self,
        key: &str,
        body: Bytes,
        metadata: &[(&str, String)],
        over: Over<'_>,
    ) -> Result<PutNew, ObjectError> {
        let metadata: HashMap<String, String> = metadata
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect();
        let limit = limit_for(body.len());
        let (none_match, same) = match over {
            Over::Any => (None, None),
            Over::Nothing => (Some("*"), None),
            Over::Tag(tag) => (None, Some(tag)),
        };
        let answer = self
            .until_answered("put", key, limit, || async {
                let put = self
                    .client
                    .put_object()
                    .bucket(&self.bucket)
                    .key(key)
                    .set_metadata(Some(metadata.clone()))
                    .set_if_none_match(none_match.map(str::to_owned))
                    .set_if_match(same.map(str::to_owned))
                    .body(ByteStream::from(body.clone()));
                Ok(put.send().await.map(drop)?)
            })
            .await?;
        Ok(match answer {
            Answer::Done(()) => PutNew::Created,
            Answer::Exists => PutNew::Exists,
            Answer::Missing => return Err(ObjectError::NoBucket(self.bucket.clone())),
        })
    }

    /// Gets an object; `None` when there is none.
    ///
    /// # Errors
    /// When S3 does not answer within the time limit, or the object is larger than 512 MiB.
    pub async fn get(&self, key: &str) -> Result<Option<Object>, ObjectError> {
        let limit = Duration::from_secs(60);
        let answer = self
            .until_answered("get", key, limit, || async {
                let get = self.client.get_object().bucket(&self.bucket).key(key);
                read_body(tokio::time::timeout(TRY_LIMIT, get.send()).await??).await
            })
            .await?;
        Ok(answer.found())
    }

    /// Gets an object when it still is the one with this entity tag (any without one).
    ///
    /// # Errors
    /// When S3 does not answer within the time limit, or the object is larger than 512 MiB.
    pub async fn get_same(&self, key: &str, etag: Option<&str>) -> Result<GotSame, ObjectError> {
        let limit = Duration::from_secs(60);
        let answer = self
            .until_answered("get", key, limit, || async {
                let get = self.client.get_object().bucket(&self.bucket).key(key);
                let get = get.set_if_match(etag.map(str::to_owned));
                read_body(tokio::time::timeout(TRY_LIMIT, get.send()).await??).await
            })
            .await?;
        Ok(match answer {
            Answer::Done(object) => GotSame::Same(object),
            Answer::Exists => GotSame::Changed,
            Answer::Missing => GotSame::Missing,
        })
    }

    /// An object's user metadata without its body; `None` when there is none.
    ///
    /// # Errors
    /// When S3 does not answer within the time limit.
    pub async fn head(&self, key: &str) -> Result<Option<HashMap<String, String>>, ObjectError> {
        let answer = self
            .until_answered("head", key, TRY_LIMIT, || async {
                let head = self.client.head_object().bucket(&self.bucket).key(key);
                Ok(head.send().await?.metadata.unwrap_or_default())
            })
            .await?;
        Ok(answer.found())
    }

    /// All objects whose key begins with `prefix`, by key, page by page into `each`.
    ///
    /// # Errors
    /// When S3 does not answer within the time limit.
    pub async fn list_each(
        &self,
        prefix: &str,
        each: &mut (dyn FnMut(Listed) + Send),
    ) -> Result<(), ObjectError> {
        let mut page = Page::first();
        while let Some(from) = page.next {
            page = self.list_page(prefix, None, from).await?;
            page.objects.drain(..).for_each(&mut *each);
        }
        Ok(())
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
    pub async fn folders(&self, prefix: &str) -> Result<Vec<String>, ObjectError> {
        let mut names = Vec::new();
        let mut page = Page::first();
        while let Some(from) = page.next {
            page = self.list_page(prefix, Some("/"), from).await?;
            names.append(&mut page.folders);
        }
        Ok(names)
    }

    async fn list_page(
        &self,
        prefix: &str,
        delimiter: Option<&str>,
        from: From,
    ) -> Result<Page, ObjectError> {
        let answer = self
            .until_answered("list", prefix, 3 * TRY_LIMIT, || async {
                let list = self
                    .client
                    .list_objects_v2()
                    .bucket(&self.bucket)
                    .prefix(prefix)
                    .set_delimiter(delimiter.map(str::to_owned))
                    .set_continuation_token(from.0.clone());
                Ok(Page::read(prefix, list.send().await?))
            })
            .await?;
        answer
            .found()
            .ok_or_else(|| ObjectError::NoBucket(self.bucket.clone()))
    }

    /// Deletes an object; one that is not there is fine.
    ///
    /// # Errors
    /// When S3 does not answer within the time limit.
    pub async fn delete(&self, key: &str) -> Result<(), ObjectError> {
        self.until_answered("delete", key, TRY_LIMIT, || async {
            let delete = self.client.delete_object().bucket(&self.bucket).key(key);
            Ok(delete.send().await.map(drop)?)
        })
        .await
        .map(drop)
    }
}

/// Where a listing goes on; nothing at its beginning.
struct From(Option<String>);

/// One page of a listing.
struct Page {
    objects: Vec<Listed>,
    folders: Vec<String>,
    next: Option<From>,
}

impl Page {
    fn first() -> Self {
        Page {
            objects: Vec::new(),
            folders: Vec::new(),
            next: Some(From(None)),
        }
    }

    fn read(
        prefix: &str,
        page: aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output,
    ) -> Self {
        let next = match (page.is_truncated, page.next_continuation_token) {
            (Some(true), Some(token)) => Some(From(Some(token))),
            _ => None,
        };
        let listed = |object: aws_sdk_s3::types::Object| {
            Some(Listed {
                size: object.size.and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
                modified: object.last_modified.and_then(|at| {
                    jiff::Timestamp::new(at.secs(), 0)
                        .ok()?
                        .checked_add(jiff::SignedDuration::from_nanos(i64::from(
                            at.subsec_nanos(),
                        )))
                        .ok()
                }),
                etag: object.e_tag,
                key: object.key?,
            })
        };
        let folder = |common: aws_sdk_s3::types::CommonPrefix| {
            let name = common.prefix?;
            let name = name.strip_prefix(prefix)?.trim_end_matches('/');
            Some(name.to_owned())
        };
        Page {
            objects: page
                .contents
                .unwrap_or_default()
                .into_iter()
                .filter_map(listed)
                .collect(),
            folders: page
                .common_prefixes
                .unwrap_or_default()
                .into_iter()
                .filter_map(folder)
                .collect(),
            next,
        }
    }
}

fn limit_for(bytes: usize) -> Duration {
    TRY_LIMIT + Duration::from_secs((bytes >> 20) as u64)
}

/// A body in memory, never more than [`BODY_CAP`], each chunk in time.
async fn read_body(mut got: GetObjectOutput) -> Result<Object, Fault> {
    let announced = got.content_length.and_then(|n| usize::try_from(n).ok());
    let mut body = BytesMut::with_capacity(announced.unwrap_or(0).min(BODY_CAP));
    while let Some(chunk) = tokio::time::timeout(TRY_LIMIT, got.body.next()).await? {
        let chunk = chunk.map_err(|e| Fault::Again(format!("its body broke off: {e}")))?;
        if body.len() + chunk.len() > BODY_CAP {
            return Err(Fault::Final("it is larger than 512 MiB".into()));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Object {
        body: body.freeze(),
        metadata: got.metadata.unwrap_or_default(),
        etag: got.e_tag,
    })
}
