//! An object on its way: in memory while it is small, in a temporary file from then on.

use std::io::{Result, Write};

use tempfile::NamedTempFile;

/// What stays in memory.
const SMALL: usize = 8 << 20;

/// Takes bytes.
#[derive(Debug)]
pub enum Spooled {
    /// All of them.
    Memory(Vec<u8>),
    /// All of them; gone when it is dropped.
    File(NamedTempFile),
}

impl Default for Spooled {
    fn default() -> Self {
        Spooled::Memory(Vec::new())
    }
}

impl Write for Spooled {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        match self {
            Spooled::Memory(held) if held.len() + bytes.len() <= SMALL => {
                held.extend_from_slice(bytes);
                return Ok(bytes.len());
            }
            Spooled::Memory(held) => {
                let mut file = NamedTempFile::new()?;
                file.write_all(held)?;
                *self = Spooled::File(file);
            }
            Spooled::File(_) => {}
        }
        match self {
            Spooled::File(file) => file.write(bytes),
            Spooled::Memory(held) => held.write(bytes),
        }
    }

    fn flush(&mut self) -> Result<()> {
        match self {
            Spooled::Memory(_) => Ok(()),
            Spooled::File(file) => file.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_goes_into_a_file() {
        let mut spooled = Spooled::default();
        let piece = vec![7; SMALL / 2];
        for _ in 0..3 {
            spooled.write_all(&piece).expect("written");
        }
        let Spooled::File(file) = spooled else {
            panic!("still in memory")
        };
        let length = file.path().metadata().expect("there").len();
        assert_eq!(length, 3 * piece.len() as u64);
    }
}
