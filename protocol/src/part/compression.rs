//! Whole bodies and streams, compressed as the job says.

use std::cell::RefCell;
use std::io::{Read, Result, Write};

use flate2::write::GzEncoder;

use crate::spec::Compression;

/// Level 3: the library's own default, fast enough for a worker and half the size of level 1.
const LEVEL: i32 = 3;

thread_local! {
    /// Tables of a megabyte, made once for each thread that writes bodies.
    static ZSTD: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
}

/// The plain bytes of a body.
pub(super) fn read(compress: Compression, body: &[u8]) -> Result<Vec<u8>> {
    match compress {
        Compression::None => Ok(body.to_vec()),
        Compression::Zstd => zstd::decode_all(body),
        Compression::Gzip => {
            let mut plain = Vec::new();
            flate2::read::MultiGzDecoder::new(body).read_to_end(&mut plain)?;
            Ok(plain)
        }
    }
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
