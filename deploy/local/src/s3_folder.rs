//! Objects as files: `s3s-fs`, with listings that read the folders of their prefix alone.
//!
//! `s3s-fs` walks its whole bucket for each listing. A fleet lists a shard's few parts whenever it takes a shard, so
//! the store would get slower with every object that lies in it.

use std::io;
use std::path::{Path, PathBuf};

use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use s3s_fs::FileSystem;

/// The most keys of one page.
const PAGE: i32 = 1000;

/// A folder for each bucket.
#[derive(Debug)]
pub(crate) struct Folder {
    root: PathBuf,
    files: FileSystem,
}

impl Folder {
    /// Buckets in `root`, which `files` serves.
    pub(crate) fn new(root: &Path, files: FileSystem) -> Self {
        Folder {
            root: root.to_owned(),
            files,
        }
    }
}

/// All that `s3s-fs` does well.
macro_rules! as_the_files_do {
    ($($name:ident($input:ident) -> $output:ident;)*) => {
        #[async_trait::async_trait]
        impl S3 for Folder {
            $(async fn $name(&self, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
                self.files.$name(request).await
            })*

            async fn list_objects_v2(
                &self,
                request: S3Request<ListObjectsV2Input>,
            ) -> S3Result<S3Response<ListObjectsV2Output>> {
                let encoding = request.input.encoding_type.clone();
                let mut listed = match Listing::of(&request.input) {
                    Some(listing) => self.list(listing, request.input).await?,
                    None => self.files.list_objects_v2(request).await?,
                };
                if encoding.is_some_and(|kind| kind.as_str() == EncodingType::URL) {
                    encode_keys(&mut listed.output);
                }
                Ok(listed)
            }
        }
    };
}

as_the_files_do! {
    abort_multipart_upload(AbortMultipartUploadInput) -> AbortMultipartUploadOutput;
    complete_multipart_upload(CompleteMultipartUploadInput) -> CompleteMultipartUploadOutput;
    copy_object(CopyObjectInput) -> CopyObjectOutput;
    create_bucket(CreateBucketInput) -> CreateBucketOutput;
    create_multipart_upload(CreateMultipartUploadInput) -> CreateMultipartUploadOutput;
    delete_bucket(DeleteBucketInput) -> DeleteBucketOutput;
    delete_object(DeleteObjectInput) -> DeleteObjectOutput;
    delete_objects(DeleteObjectsInput) -> DeleteObjectsOutput;
    get_bucket_location(GetBucketLocationInput) -> GetBucketLocationOutput;
    get_object(GetObjectInput) -> GetObjectOutput;
    head_bucket(HeadBucketInput) -> HeadBucketOutput;
    head_object(HeadObjectInput) -> HeadObjectOutput;
    list_buckets(ListBucketsInput) -> ListBucketsOutput;
    list_objects(ListObjectsInput) -> ListObjectsOutput;
    list_parts(ListPartsInput) -> ListPartsOutput;
    put_object(PutObjectInput) -> PutObjectOutput;
    upload_part(UploadPartInput) -> UploadPartOutput;
    upload_part_copy(UploadPartCopyInput) -> UploadPartCopyOutput;
}

impl Folder {
    async fn list(
        &self,
        listing: Listing,
        input: ListObjectsV2Input,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let bucket = self.root.join(&input.bucket);
        if !bucket.is_dir() {
            return Err(s3_error!(NoSuchBucket));
        }
        let most = input.max_keys.unwrap_or(PAGE).clamp(0, PAGE);
        let walked = tokio::task::spawn_blocking(move || listing.walk(&bucket)).await;
        let found = walked
            .map_err(io::Error::other)
            .and_then(|found| found)
            .map_err(|error| s3_error!(error, InternalError))?;
        let page = usize::try_from(most).unwrap_or(0);
        let truncated = found.len() > page && page > 0;
        let (mut contents, mut prefixes, mut last) = (Vec::new(), Vec::new(), None);
        for entry in found.into_iter().take(page) {
            last = Some(entry.key.clone());
            match entry.object {
                Some((size, written)) => contents.push(Object {
                    key: Some(entry.key),
                    size: Some(size),
                    last_modified: Some(written.into()),
                    ..Object::default()
                }),
                None => prefixes.push(CommonPrefix {
                    prefix: Some(entry.key),
                }),
            }
        }
        let count = contents.len() + prefixes.len();
        Ok(S3Response::new(ListObjectsV2Output {
            key_count: i32::try_from(count).ok(),
            max_keys: Some(most),
            is_truncated: Some(truncated),
            contents: (!contents.is_empty()).then_some(contents),
            common_prefixes: (!prefixes.is_empty()).then_some(prefixes),
            next_continuation_token: last.filter(|_| truncated),
            continuation_token: input.continuation_token,
            delimiter: input.delimiter,
            encoding_type: input.encoding_type,
            name: Some(input.bucket),
            prefix: input.prefix,
            start_after: input.start_after,
            ..Default::default()
        }))
    }
}

/// What `encoding-type=url` asks for, as many clients do without being told: they decode whatever comes.
fn encode_keys(listed: &mut ListObjectsV2Output) {
    listed.encoding_type = Some(EncodingType::from_static(EncodingType::URL));
    let keys = listed.contents.iter_mut().flatten();
    let prefixes = listed.common_prefixes.iter_mut().flatten();
    let beside = [
        &mut listed.prefix,
        &mut listed.delimiter,
        &mut listed.start_after,
    ];
    let texts = keys
        .map(|object| &mut object.key)
        .chain(prefixes.map(|common| &mut common.prefix))
        .chain(beside);
    for text in texts.flatten() {
        *text = encoded(text);
    }
}

/// Bytes that are neither unreserved nor a slash become `%` and two hex digits.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                encoded.push(char::from(byte));
            }
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

/// What is asked for.
#[derive(Debug)]
struct Listing {
    /// The folder of the prefix: empty, or ending in `/`.
    folder: String,
    prefix: String,
    /// Stops at the next `/`.
    by_folder: bool,
    /// Only keys beyond.
    after: Option<String>,
}

/// A key, or a common prefix.
#[derive(Debug)]
struct Entry {
    key: String,
    /// Size in bytes and when it was written; none of a common prefix.
    object: Option<(i64, std::time::SystemTime)>,
}

impl Listing {
    /// `None` for what only a walk over everything answers.
    fn of(input: &ListObjectsV2Input) -> Option<Self> {
        let prefix = input.prefix.clone().unwrap_or_default();
        let folder = prefix
            .rfind('/')
            .map_or("", |end| &prefix[..=end])
            .to_owned();
        let plain = |part: &str| !matches!(part, "" | "." | "..");
        let whole = folder.strip_suffix('/').unwrap_or(&folder);
        let by_folder = match input.delimiter.as_deref() {
            None | Some("") => false,
            Some("/") => true,
            Some(_) => return None,
        };
        let walks = folder.is_empty() || whole.split('/').all(plain);
        walks.then(|| Listing {
            folder,
            by_folder,
            after: input
                .continuation_token
                .clone()
                .max(input.start_after.clone()),
            prefix,
        })
    }

    /// Everything beyond `after`, in order.
    fn walk(&self, bucket: &Path) -> io::Result<Vec<Entry>> {
        let mut found = Vec::new();
        self.read(&bucket.join(&self.folder), &self.folder, &mut found)?;
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    /// Reads a folder whose keys begin with `above`.
    fn read(&self, folder: &Path, above: &str, found: &mut Vec<Entry>) -> io::Result<()> {
        let files = match std::fs::read_dir(folder) {
            Ok(files) => files,
            Err(error) if gone(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        for file in files {
            let file = file?;
            let Ok(name) = file.file_name().into_string() else {
                continue;
            };
            if file.file_type()?.is_dir() {
                self.read_below(&file.path(), &format!("{above}{name}/"), found)?;
                continue;
            }
            let key = format!("{above}{name}");
            if !key.starts_with(&self.prefix) || self.is_passed(&key) {
                continue;
            }
            match file.metadata() {
                Ok(about) => found.push(Entry {
                    key,
                    object: Some((
                        i64::try_from(about.len()).unwrap_or(i64::MAX),
                        about.modified()?,
                    )),
                }),
                Err(error) if gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn read_below(&self, folder: &Path, key: &str, found: &mut Vec<Entry>) -> io::Result<()> {
        if !key.starts_with(&self.prefix) {
            return Ok(());
        }
        if !self.by_folder {
            return self.read(folder, key, found);
        }
        if !self.is_passed(key) && holds_files(folder)? {
            found.push(Entry {
                key: key.to_owned(),
                object: None,
            });
        }
        Ok(())
    }

    fn is_passed(&self, key: &str) -> bool {
        self.after.as_deref().is_some_and(|after| key <= after)
    }
}

/// Deleted meanwhile, or a file where a folder was asked for.
fn gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Folders that were emptied stay; S3 knows none.
fn holds_files(folder: &Path) -> io::Result<bool> {
    let files = match std::fs::read_dir(folder) {
        Ok(files) => files,
        Err(error) if gone(&error) => return Ok(false),
        Err(error) => return Err(error),
    };
    for file in files {
        let file = file?;
        if !file.file_type()?.is_dir() || holds_files(&file.path())? {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket() -> tempfile::TempDir {
        let bucket = tempfile::tempdir().expect("a folder");
        for key in ["a/1", "a/2", "a/b/3", "a-b", "c/d/4", "e"] {
            let file = bucket.path().join(key);
            std::fs::create_dir_all(file.parent().expect("a parent")).expect("made");
            std::fs::write(file, key).expect("written");
        }
        std::fs::create_dir_all(bucket.path().join("emptied/once")).expect("made");
        bucket
    }

    fn keys(prefix: &str, by_folder: bool, after: Option<&str>) -> Vec<String> {
        let input = ListObjectsV2Input {
            prefix: Some(prefix.to_owned()),
            delimiter: by_folder.then(|| "/".to_owned()),
            start_after: after.map(str::to_owned),
            ..ListObjectsV2Input::default()
        };
        let listing = Listing::of(&input).expect("plain");
        let found = listing.walk(bucket().path()).expect("walked");
        found.into_iter().map(|entry| entry.key).collect()
    }

    #[test]
    fn keys_come_in_the_order_of_their_bytes() {
        let all = ["a-b", "a/1", "a/2", "a/b/3", "c/d/4", "e"];
        assert_eq!(keys("", false, None), all);
        assert_eq!(keys("", false, Some("a/1")), all[2..]);
        assert_eq!(keys("a", false, None), all[..4]);
        assert_eq!(keys("a/", false, None), all[1..4]);
        assert_eq!(keys("a/b", false, None), ["a/b/3"]);
        assert!(keys("z/y", false, None).is_empty());
        assert!(keys("e/", false, None).is_empty());
    }

    #[test]
    fn keys_are_encoded_for_who_decodes_them() {
        let object = |key: &str| Object {
            key: Some(key.to_owned()),
            ..Object::default()
        };
        let mut listed = ListObjectsV2Output {
            contents: Some(vec![object("a/s-0%2D1/b c"), object("한")]),
            prefix: Some("a%".into()),
            ..ListObjectsV2Output::default()
        };
        encode_keys(&mut listed);
        let keys = listed.contents.iter().flatten();
        let keys: Vec<_> = keys.filter_map(|object| object.key.as_deref()).collect();
        assert_eq!(keys, ["a/s-0%252D1/b%20c", "%ED%95%9C"]);
        assert_eq!(listed.prefix.as_deref(), Some("a%25"));
    }

    #[test]
    fn a_listing_by_folder_stops_at_the_next_slash() {
        assert_eq!(keys("", true, None), ["a-b", "a/", "c/", "e"]);
        assert_eq!(keys("a/", true, None), ["a/1", "a/2", "a/b/"]);
        assert_eq!(keys("a/", true, Some("a/2")), ["a/b/"]);
        assert_eq!(keys("c", true, None), ["c/"]);
    }

    #[test]
    fn odd_prefixes_are_left_to_the_walk_over_everything() {
        for prefix in ["/a", "a//b", "../x", "a/./b"] {
            let input = ListObjectsV2Input {
                prefix: Some(prefix.to_owned()),
                ..ListObjectsV2Input::default()
            };
            assert!(Listing::of(&input).is_none(), "{prefix}");
        }
    }
}
