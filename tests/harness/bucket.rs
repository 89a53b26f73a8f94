//! A bucket, read with the SDK as it comes.

use std::collections::HashMap;
use std::io::Read as _;

use anyhow::Context;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::primitives::ByteStream;

use crate::Fleet;

/// A client of one bucket.
pub struct Bucket {
    client: Client,
    name: String,
}

/// An object, decompressed.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its bytes, after decompression by the end of its key.
    pub body: Vec<u8>,
    /// Its user metadata.
    pub metadata: HashMap<String, String>,
}

impl Object {
    /// The body's lines, each parsed as JSON.
    ///
    /// # Errors
    /// When a line is not JSON.
    pub fn rows(&self) -> anyhow::Result<Vec<serde_json::Value>> {
        let lines = self.body.split(|byte| *byte == b'\n');
        lines
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).context("a line that is not JSON"))
            .collect()
    }
}

impl Bucket {
    /// The bucket of a fleet.
    pub fn of(fleet: &Fleet) -> Self {
        Self::open(|name| fleet.value(name).to_owned())
    }

    /// The bucket that the variables found by `value` lead to.
    pub fn open(value: impl Fn(&str) -> String) -> Self {
        let credentials = Credentials::new(
            value("AWS_ACCESS_KEY_ID"),
            value("AWS_SECRET_ACCESS_KEY"),
            None,
            None,
            "test",
        );
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(value("AWS_ENDPOINT_URL_S3"))
            .region(Region::new(value("AWS_REGION")))
            .credentials_provider(credentials)
            .force_path_style(true)
            .build();
        Bucket {
            client: Client::from_conf(config),
            name: value("PACELINE_BUCKET"),
        }
    }

    /// All keys below `prefix`.
    ///
    /// # Errors
    /// When S3 refuses.
    pub async fn keys(&self, prefix: &str) -> anyhow::Result<Vec<String>> {
        let request = self.client.list_objects_v2();
        let mut pages = request
            .bucket(&self.name)
            .prefix(prefix)
            .into_paginator()
            .send();
        let mut keys = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.with_context(|| format!("listing {prefix}"))?;
            keys.extend(
                page.contents()
                    .iter()
                    .filter_map(|o| o.key().map(str::to_owned)),
            );
        }
        Ok(keys)
    }

    /// One object, decompressed.
    ///
    /// # Errors
    /// When it is not there or cannot be decompressed.
    pub async fn get(&self, key: &str) -> anyhow::Result<Object> {
        let mut object = self.get_as_it_is(key).await?;
        object.body = decompress(key, &object.body).with_context(|| key.to_owned())?;
        Ok(object)
    }

    /// One object, its bytes as they are.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn get_as_it_is(&self, key: &str) -> anyhow::Result<Object> {
        let request = self.client.get_object().bucket(&self.name).key(key);
        let answer = request.send().await.with_context(|| key.to_owned())?;
        let metadata = answer.metadata().cloned().unwrap_or_default();
        let bytes = answer
            .body
            .collect()
            .await
            .context("the body")?
            .into_bytes();
        let body = bytes.to_vec();
        Ok(Object { body, metadata })
    }

    /// Puts an object over what was there.
    ///
    /// # Errors
    /// When S3 refuses.
    pub async fn put(&self, key: &str, body: &[u8]) -> anyhow::Result<()> {
        self.put_saying(key, body, &[]).await
    }

    /// The same, with what is said beside the object.
    ///
    /// # Errors
    /// When S3 refuses.
    pub async fn put_saying(
        &self,
        key: &str,
        body: &[u8],
        said: &[(&str, &str)],
    ) -> anyhow::Result<()> {
        let mut request = self.client.put_object().bucket(&self.name).key(key);
        for (name, value) in said {
            request = request.metadata(*name, *value);
        }
        let put = request.body(ByteStream::from(body.to_vec())).send().await;
        put.map(drop).with_context(|| key.to_owned())
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// When S3 refuses.
    pub async fn delete(&self, key: &str) -> anyhow::Result<()> {
        let request = self.client.delete_object().bucket(&self.name).key(key);
        request
            .send()
            .await
            .map(drop)
            .with_context(|| key.to_owned())
    }

    /// Puts an object when there is none. False when there is one.
    ///
    /// # Errors
    /// When S3 refuses for another reason.
    pub async fn put_new(&self, key: &str, body: &[u8]) -> anyhow::Result<bool> {
        let request = self.client.put_object().bucket(&self.name).key(key);
        let body = ByteStream::from(body.to_vec());
        match request.if_none_match("*").body(body).send().await {
            Ok(_) => Ok(true),
            Err(error) if status(&error) == Some(412) => Ok(false),
            Err(error) => Err(error).with_context(|| key.to_owned()),
        }
    }
}

fn status<E>(
    error: &aws_sdk_s3::error::SdkError<E, aws_sdk_s3::config::http::HttpResponse>,
) -> Option<u16> {
    Some(error.raw_response()?.status().as_u16())
}

fn decompress(key: &str, bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    match key.rsplit('.').next() {
        Some("zst") => Ok(zstd::decode_all(bytes)?),
        Some("gz") => {
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain)?;
            Ok(plain)
        }
        _ => Ok(bytes.to_vec()),
    }
}
