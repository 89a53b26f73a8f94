//! Sealing what a provider gave a credential (tokens, cookies, rotated refresh tokens) before it is kept
//! anywhere: XChaCha20-Poly1305 under a key made of the credential's own secrets, so that who reads the
//! stores learns nothing, and who has the credential learns nothing new.

use std::collections::BTreeMap;
use std::fmt;

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{Key, KeyInit, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// Bytes of the nonce before the sealed text.
const NONCE: usize = 24;

/// Seals and opens what is kept for one credential.
#[derive(Clone)]
pub struct Sealer(XChaCha20Poly1305);

impl Sealer {
    pub(super) fn of(provider: &str, fields: &BTreeMap<String, String>) -> Self {
        let mut mac = hmac(b"paceline sealing key 1");
        for text in std::iter::once(provider).chain(
            fields
                .iter()
                .flat_map(|(name, value)| [name.as_str(), value.as_str()]),
        ) {
            mac.update(&(text.len() as u64).to_be_bytes());
            mac.update(text.as_bytes());
        }
        let key: [u8; 32] = mac.finalize().into_bytes().into();
        Sealer(XChaCha20Poly1305::new(&Key::from(key)))
    }

    /// Seals `text`; `what` says what it is, so that one thing cannot be put in place of another.
    pub fn seal(&self, what: &str, text: &[u8]) -> Vec<u8> {
        let nonce = nonce();
        let payload = Payload {
            msg: text,
            aad: what.as_bytes(),
        };
        let sealed = self
            .0
            .encrypt(&XNonce::from(nonce), payload)
            .expect("a text of some kilobytes can be sealed");
        [nonce.as_slice(), &sealed].concat()
    }

    /// Opens what [`seal`](Self::seal) made; `None` when it is something else or was changed.
    pub fn open(&self, what: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, msg) = sealed.split_at_checked(NONCE)?;
        let payload = Payload {
            msg,
            aad: what.as_bytes(),
        };
        let nonce = <[u8; NONCE]>::try_from(nonce).ok()?;
        self.0.decrypt(&XNonce::from(nonce), payload).ok()
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer")
    }
}

fn hmac(key: &[u8]) -> Hmac<Sha256> {
    <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(key).expect("any length is a key")
}

/// From two random identifiers: 190 of its bits are random.
fn nonce() -> [u8; NONCE] {
    let (a, b) = (uuid::Uuid::new_v4(), uuid::Uuid::new_v4());
    let mut nonce = [0; NONCE];
    nonce[..16].copy_from_slice(a.as_bytes());
    nonce[16..].copy_from_slice(&b.as_bytes()[8..]);
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(provider: &str, secret: &str) -> Sealer {
        Sealer::of(
            provider,
            &BTreeMap::from([("secret".to_owned(), secret.to_owned())]),
        )
    }

    #[test]
    fn only_the_same_credential_opens_it() {
        let own = sealer("p", "s");
        let sealed = own.seal("token", b"the token");
        assert_eq!(
            own.open("token", &sealed).as_deref(),
            Some(&b"the token"[..])
        );
        assert_ne!(
            own.seal("token", b"the token"),
            sealed,
            "a nonce is used once"
        );
        assert!(!sealed.windows(5).any(|w| w == b"token"));
        assert_eq!(own.open("refresh", &sealed), None);
        assert_eq!(sealer("p", "other").open("token", &sealed), None);
        assert_eq!(sealer("q", "s").open("token", &sealed), None);
    }

    #[test]
    fn what_was_changed_does_not_open() {
        let own = sealer("p", "s");
        let sealed = own.seal("token", b"text");
        for place in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[place] ^= 1;
            assert_eq!(own.open("token", &changed), None);
            assert_eq!(own.open("token", &sealed[..place]), None);
        }
    }
}
