//! Signatures as Standard Webhooks say: `v1,` and the base64 of an HMAC-SHA256 over id, time and body.

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use paceline_protocol::settings::Environment;
use sha2::Sha256;

/// The keys of `PACELINE_WEBHOOK_SECRET`; none without it.
pub(in crate::serve) struct Signer(Vec<Vec<u8>>);

impl Signer {
    /// Reads `whsec_<base64>`. A secret without that prefix may be meant as base64 or as it stands: both
    /// signatures are sent, as the standard allows.
    pub(in crate::serve) fn from_env(env: &impl Environment) -> Result<Self> {
        let Some(secret) = env.secret("PACELINE_WEBHOOK_SECRET")? else {
            return Ok(Signer(Vec::new()));
        };
        Ok(Signer(keys(&secret)?))
    }

    /// The value of `webhook-signature`.
    pub(super) fn sign(&self, id: &str, seconds: i64, body: &[u8]) -> Option<String> {
        let signatures: Vec<String> = self
            .0
            .iter()
            .map(|key| one(key, id, seconds, body))
            .collect();
        (!signatures.is_empty()).then(|| signatures.join(" "))
    }
}

/// Never shows the secret.
fn keys(secret: &str) -> Result<Vec<Vec<u8>>> {
    if let Some(encoded) = secret.strip_prefix("whsec_") {
        let key = STANDARD.decode(encoded).unwrap_or_default();
        ensure!(
            !key.is_empty(),
            "PACELINE_WEBHOOK_SECRET: after `whsec_` comes the key in base64, as `openssl rand -base64 32` makes one"
        );
        return Ok(vec![key]);
    }
    let mut keys = vec![secret.as_bytes().to_vec()];
    keys.extend(STANDARD.decode(secret));
    Ok(keys)
}

fn one(key: &[u8], id: &str, seconds: i64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length is a key");
    mac.update(format!("{id}.{seconds}.").as_bytes());
    mac.update(body);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standards_own_example_is_reproduced() {
        let signer = Signer(keys("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a key"));
        let signed = signer.sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(
            signed.as_deref(),
            Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
        );
    }

    #[test]
    fn without_a_secret_nothing_is_signed() {
        assert_eq!(Signer(Vec::new()).sign("x", 1, b""), None);
        assert_eq!(keys("not base64!").expect("keys").len(), 1);
        assert_eq!(keys("topsecret123").expect("keys").len(), 2);
    }

    #[test]
    fn a_secret_that_anybody_could_guess_is_refused() {
        for secret in ["whsec_", "whsec_!!!"] {
            let refused = keys(secret).expect_err(secret).to_string();
            assert!(refused.contains("base64"), "{refused}");
        }
    }
}
