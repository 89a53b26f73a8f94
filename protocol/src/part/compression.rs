//! Whole bodies and streams, compressed as the job says.

use std::cell::RefCell;
use std::io::{Read, Result, Write};

use flate2::write::GzEncoder;

use crate::spec::Compression;

/// Level 3: the library's own default, fast enough for a worker and half the size of level 1.
const LEVEL: i32 = 3;

/// A body of more than this (64 MiB) is read in pieces, whatever it says of its size.
const WHOLE_AT_MOST: u64 = 64 << 20;

thread_local! {
    /// Tables of a megabyte, made once for each thread that writes bodies.
    static ZSTD: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    /// The same for each thread that reads them.
    static UNZSTD: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// The plain bytes of a body.
pub(super) fn read(compress: Compression, body: &[u8]) -> Result<Vec<u8>> {
    match compress {
        Compression::None => Ok(body.to_vec()),
        Compression::Zstd => match size_of_one_frame(body) {
            Some(size) => read_whole(body, size),
            None => zstd::decode_all(body),
        },
        Compression::Gzip => {
            let mut plain = Vec::new();
            flate2::read::MultiGzDecoder::new(body).read_to_end(&mut plain)?;
            Ok(plain)
        }
    }
}

/// As [`read`], of a body that somebody else wrote: `None` when there are more than `most` bytes.
pub(super) fn read_within(
    compress: Compression,
    body: &[u8],
    most: u64,
) -> Result<Option<Vec<u8>>> {
    let mut plain = Vec::new();
    let read = match compress {
        Compression::None => body.take(most + 1).read_to_end(&mut plain)?,
        Compression::Zstd => zstd::Decoder::new(body)?
            .take(most + 1)
            .read_to_end(&mut plain)?,
        Compression::Gzip => flate2::read::MultiGzDecoder::new(body)
            .take(most + 1)
            .read_to_end(&mut plain)?,
    };
    Ok((read as u64 <= most).then_some(plain))
}

/// The plain size of a body that is one frame and tells it: so are those of `write`, not those of a stream.
fn size_of_one_frame(body: &[u8]) -> Option<usize> {
    let frame = zstd::zstd_safe::find_frame_compressed_size(body);
    let size = zstd::zstd_safe::get_frame_content_size(body).ok()??;
    let whole = frame == Ok(body.len()) && size <= WHOLE_AT_MOST;
    usize::try_from(size).ok().filter(|_| whole)
}

fn read_whole(body: &[u8], size: usize) -> Result<Vec<u8>> {
    UNZSTD.with_borrow_mut(|kept| match kept {
        Some(zstd) => zstd.decompress(body, size),
        None => kept
            .insert(zstd::bulk::Decompressor::new()?)
            .decompress(body, size),
    })
}

/// A body out of its plain bytes. Its size is known, so zstd needs tables for that size alone, where a stream
/// clears those of the largest one for each block.
pub(super) fn write(compress: Compression, plain: &[u8]) -> Result<Vec<u8>> {
    if compress == Compression::Zstd {
        return ZSTD.with_borrow_mut(|kept| match kept {
            Some(zstd) => zstd.compress(plain),
            None => kept
                .insert(zstd::bulk::Compressor::new(LEVEL)?)
                .compress(plain),
        });
    }
    let mut into = Compressor::new(compress, Vec::with_capacity(plain.len() / 2))?;
    into.write_all(plain)?;
    into.finish()
}

/// What is written to it comes out compressed.
pub(super) enum Compressor<W: Write> {
    Plain(W),
    Gzip(GzEncoder<W>),
    Zstd(zstd::Encoder<'static, W>),
}

impl<W: Write> Compressor<W> {
    pub(super) fn new(compress: Compression, into: W) -> Result<Self> {
        Ok(match compress {
            Compression::None => Compressor::Plain(into),
            Compression::Gzip => {
                Compressor::Gzip(GzEncoder::new(into, flate2::Compression::default()))
            }
            Compression::Zstd => Compressor::Zstd(zstd::Encoder::new(into, LEVEL)?),
        })
    }

    pub(super) fn finish(self) -> Result<W> {
        match self {
            Compressor::Plain(into) => Ok(into),
            Compressor::Gzip(encoder) => encoder.finish(),
            Compressor::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        match self {
            Compressor::Plain(into) => into.write(bytes),
            Compressor::Gzip(encoder) => encoder.write(bytes),
            Compressor::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> Result<()> {
        match self {
            Compressor::Plain(into) => into.flush(),
            Compressor::Gzip(encoder) => encoder.flush(),
            Compressor::Zstd(encoder) => encoder.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zstd_is_read_however_it_was_written() {
        let plain = b"a line\n".repeat(1_000);
        let whole = write(Compression::Zstd, &plain).expect("written");
        assert_eq!(size_of_one_frame(&whole), Some(plain.len()));
        let mut stream = Compressor::new(Compression::Zstd, Vec::new()).expect("a stream");
        stream.write_all(&plain).expect("written");
        let stream = stream.finish().expect("written");
        assert_eq!(size_of_one_frame(&stream), None);
        let two_frames = [whole.clone(), whole.clone()].concat();
        assert_eq!(size_of_one_frame(&two_frames), None);
        let read = |body: &[u8]| read(Compression::Zstd, body).expect("read");
        assert_eq!(read(&whole), plain);
        assert_eq!(read(&stream), plain);
        assert_eq!(read(&two_frames), [plain.clone(), plain.clone()].concat());
        assert_eq!(read(&write(Compression::Zstd, b"").expect("written")), b"");
    }

    #[test]
    fn a_truncated_body_is_an_error() {
        let whole = write(Compression::Zstd, &b"a line\n".repeat(100)).expect("written");
        for body in [&whole[..whole.len() - 1], &whole[..4], b"no zstd"] {
            assert!(read(Compression::Zstd, body).is_err(), "{body:?}");
        }
    }
}
