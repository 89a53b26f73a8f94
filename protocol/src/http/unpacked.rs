//! A body as it comes in, with the cap counted after decompression.
//!
//! The client unpacks br and zstd, and deflate where a server sends it as the standard has it. Many send it without the
//! zlib wrapper, so nobody is asked for it. But of gzip its first member only and drops the others in silence. So gzip
//! is unpacked here: a body of several members, as loggers write them, is all of them.

use std::io::{self, Write};

use flate2::write::MultiGzDecoder;
use reqwest::header::{CONTENT_ENCODING, HeaderMap};

use super::HttpError;

/// What the client asks for.
pub(super) const ACCEPTED: &str = "gzip, br, zstd";

/// The bytes so far.
pub(super) struct Unpacked {
    bytes: Packing,
    status: u16,
    max: u64,
}

enum Packing {
    Plain(Capped),
    Gzip(Box<MultiGzDecoder<Capped>>),
}

/// A body's bytes are kept in pieces of at most so many: growing one buffer would hold a large one twice.
const PIECE: usize = 1 << 20;

/// Bytes up to a cap.
struct Capped {
    pieces: Vec<Vec<u8>>,
    length: u64,
    max: u64,
    over: bool,
}

impl Unpacked {
    /// For an answer with `headers`; what says that it is packed is taken out of them.
    pub(super) fn of(status: u16, headers: &mut HeaderMap, max: u64) -> Self {
        let gzip = headers.get(CONTENT_ENCODING).is_some_and(|coding| {
            let coding = coding.as_bytes();
            coding.eq_ignore_ascii_case(b"gzip") || coding.eq_ignore_ascii_case(b"x-gzip")
        });
        let capped = Capped {
            pieces: vec![Vec::new()],
            length: 0,
            max,
            over: false,
        };
        let bytes = match gzip {
            true => {
                headers.remove(CONTENT_ENCODING);
                Packing::Gzip(Box::new(MultiGzDecoder::new(capped)))
            }
            false => Packing::Plain(capped),
        };
        Unpacked { bytes, status, max }
    }

    /// Refuses a body whose length is known beforehand to be too large.
    pub(super) fn expect(&self, length: Option<u64>) -> Result<(), HttpError> {
        match (&self.bytes, length) {
            (Packing::Plain(_), Some(length)) if length > self.max => Err(self.too_large()),
            _ => Ok(()),
        }
    }

    /// Takes the next bytes.
    pub(super) fn push(&mut self, chunk: &[u8]) -> Result<(), HttpError> {
        let (written, over) = match &mut self.bytes {
            Packing::Plain(capped) => (capped.write_all(chunk), capped.over),
            Packing::Gzip(packed) => (packed.write_all(chunk), packed.get_ref().over),
        };
        match written {
            _ if over => Err(self.too_large()),
            written => written.map_err(broken),
        }
    }

    /// The whole body.
    pub(super) fn whole(mut self, received: u64) -> Result<Vec<u8>, HttpError> {
        match &mut self.bytes {
            Packing::Plain(capped) => Ok(capped.take()),
            // Nothing at all is no gzip either: a 204, for one.
            Packing::Gzip(_) if received == 0 => Ok(Vec::new()),
            Packing::Gzip(packed) => {
                let ended = packed.try_finish();
                if packed.get_ref().over {
                    return Err(self.too_large());
                }
                ended.map_err(broken)?;
                Ok(packed.get_mut().take())
            }
        }
    }
}

impl Unpacked {
    fn too_large(&self) -> HttpError {
        HttpError::TooLarge {
            status: self.status,
            most: self.max,
        }
    }
}

fn broken(error: io::Error) -> HttpError {
    HttpError::Broken(format!("the body is no whole gzip: {error}"))
}

impl Capped {
    /// All of them in one, each piece let go of as soon as it is copied.
    fn take(&mut self) -> Vec<u8> {
        let mut pieces = std::mem::take(&mut self.pieces);
        if pieces.len() == 1 {
            return pieces.remove(0);
        }
        let mut whole = Vec::with_capacity(self.length as usize);
        for piece in pieces {
            whole.extend_from_slice(&piece);
        }
        whole
    }

    fn last_with_room(&mut self) -> &mut Vec<u8> {
        if self.pieces.last().is_none_or(|last| last.len() >= PIECE) {
            self.pieces.push(Vec::with_capacity(PIECE));
        }
        self.pieces.last_mut().expect("one was put there")
    }
}

impl Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.length + bytes.len() as u64 > self.max {
            self.over = true;
            return Err(io::Error::other("too large"));
        }
        let last = self.last_with_room();
        let fits = bytes.len().min(PIECE - last.len());
        last.extend_from_slice(&bytes[..fits]);
        self.length += fits as u64;
        Ok(fits)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use reqwest::header::HeaderValue;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(bytes).expect("into memory");
        packed.finish().expect("into memory")
    }

    fn unpack(coding: &str, body: &[u8], step: usize, max: u64) -> Result<Vec<u8>, HttpError> {
        let mut headers = HeaderMap::new();
        headers.insert(
            CONTENT_ENCODING,
            HeaderValue::from_str(coding).expect("one"),
        );
        let mut unpacked = Unpacked::of(200, &mut headers, max);
        for chunk in body.chunks(step) {
            unpacked.push(chunk)?;
        }
        unpacked.whole(body.len() as u64)
    }

    #[test]
    fn every_member_counts_however_it_is_cut() {
        let whole = [gzip(b"one\n"), gzip(b""), gzip(b"two\n")].concat();
        for step in [1, 3, 7, 1000] {
            let body = unpack("gzip", &whole, step, 100).expect("unpacks");
            assert_eq!(body, b"one\ntwo\n", "in steps of {step}");
        }
        assert_eq!(unpack("X-GZIP", &gzip(b"a"), 9, 9).expect("unpacks"), b"a");
        assert_eq!(unpack("gzip", b"", 1, 9).expect("nothing"), b"");
        assert_eq!(unpack("identity", b"abc", 2, 3).expect("plain"), b"abc");
    }

    #[test]
    fn a_body_of_several_pieces_is_put_together_in_order() {
        let body: Vec<u8> = (0..PIECE * 5 / 2).map(|at| (at % 251) as u8).collect();
        for step in [1 << 10, 300_000, PIECE, body.len()] {
            let plain = unpack("identity", &body, step, body.len() as u64);
            assert_eq!(plain.expect("fits"), body, "in steps of {step}");
        }
        let packed = gzip(&body);
        let unpacked = unpack("gzip", &packed, 7_000, body.len() as u64);
        assert_eq!(unpacked.expect("fits"), body);
    }

    #[test]
    fn a_length_that_is_too_large_is_refused_before_a_byte_of_it() {
        let plain = Unpacked::of(200, &mut HeaderMap::new(), 9);
        assert!(plain.expect(None).is_ok() && plain.expect(Some(9)).is_ok());
        assert!(matches!(
            plain.expect(Some(10)),
            Err(HttpError::TooLarge { most: 9, .. })
        ));
    }

    #[test]
    fn half_a_body_is_broken_and_a_large_one_too_large() {
        let whole = [gzip(b"one\n"), gzip(b"two\n")].concat();
        for cut in 1..whole.len() {
            let cut = unpack("gzip", &whole[..cut], 5, 100);
            // Cut between two members it is whole.
            match cut {
                Ok(body) => assert_eq!(body, b"one\n"),
                Err(error) => assert!(matches!(error, HttpError::Broken(_)), "{error}"),
            }
        }
        let bomb = gzip(&vec![b' '; 1_000_000]);
        assert!(matches!(
            unpack("gzip", &bomb, 4096, 999_999),
            Err(HttpError::TooLarge { most: 999_999, .. })
        ));
        assert_eq!(
            unpack("gzip", &bomb, 4096, 1_000_000).expect("fits").len(),
            1_000_000
        );
        assert!(matches!(
            unpack("identity", b"abcd", 3, 3),
            Err(HttpError::TooLarge { most: 3, .. })
        ));
        assert!(matches!(
            unpack("gzip", b"no gzip at all", 4, 99),
            Err(HttpError::Broken(_))
        ));
    }
}
