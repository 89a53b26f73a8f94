//! The entries of a pool of credentials, and the public name of each: all that ever leaves a process.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

/// The entries of a pool as it is written in the environment: separated by commas or lines. An entry that stands there
/// before is left out: the provider counts both as one key.
pub fn pool_entries(list: &str) -> Vec<&str> {
    let mut seen = BTreeSet::new();
    written_entries(list)
        .filter(|entry| seen.insert(*entry))
        .collect()
}

/// The entries with those that come twice.
pub fn written_entries(list: &str) -> impl Iterator<Item = &str> {
    list.split([',', '\n'])
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
}

/// Place in the pool and six hex digits of a keyed hash: enough to tell keys apart, too little to guess one.
pub fn public_name(provider: &str, place: usize, entry: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(b"paceline credential name\0");
    hash.update(provider.as_bytes());
    hash.update(b"\0");
    hash.update(entry.as_bytes());
    let digest = hash.finalize();
    format!(
        "{place}-{:02x}{:02x}{:02x}",
        digest[0], digest[1], digest[2]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_keys_apart_and_hold_no_secret() {
        let (a, b) = (
            public_name("p", 0, "secret-a"),
            public_name("p", 0, "secret-b"),
        );
        assert_ne!(a, b);
        assert!(a.starts_with("0-") && a.len() == 8 && !a.contains("secret"));
    }

    #[test]
    fn a_pool_is_written_with_commas_or_lines() {
        assert_eq!(pool_entries(" a, b:c\n\nd ,"), ["a", "b:c", "d"]);
        assert!(pool_entries(" ,\n").is_empty());
    }

    #[test]
    fn a_key_that_is_written_twice_is_one_key() {
        assert_eq!(pool_entries("a,b,a, b,c"), ["a", "b", "c"]);
        assert_eq!(written_entries("a,b,a").count(), 3);
    }
}
