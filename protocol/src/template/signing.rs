//! Filters that sign-in needs: bcrypt with a given salt, and one-time codes.

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use minijinja::value::Value;
use minijinja::{Error, ErrorKind, State};
use totp_rs::{Algorithm, Builder, Secret};

/// A code is good for so many seconds (RFC 6238).
pub const TOTP_STEP_S: i64 = 30;

/// Some providers give out salts whose last character has bits that no byte of the salt holds. They
/// hash with what is left, so we do too.
const SALT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::BCRYPT,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

fn bad(text: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, text.to_owned())
}

/// `text | bcrypt(salt)`, the salt as `$2a$10$` and 22 characters. No message shows the salt: it is a secret.
pub(super) fn bcrypt(value: &Value, salt: &str) -> Result<String, Error> {
    let wrong = || bad("bcrypt: the salt is not like $2a$10$ and 22 characters");
    let mut parts = salt.strip_prefix('$').ok_or_else(wrong)?.splitn(3, '$');
    let version = match parts.next() {
        Some("2a") => bcrypt::Version::TwoA,
        Some("2b") => bcrypt::Version::TwoB,
        Some("2y") => bcrypt::Version::TwoY,
        _ => return Err(wrong()),
    };
    let cost = parts.next().and_then(|c| c.parse::<u32>().ok());
    // A cost of 16 is seconds of work for one request already.
    let cost = cost
        .filter(|cost| (4..=16).contains(cost))
        .ok_or_else(wrong)?;
    let digits = parts.next().and_then(|s| s.get(..22)).ok_or_else(wrong)?;
    let bytes = SALT.decode(digits).map_err(|_| wrong())?;
    let salt = <[u8; 16]>::try_from(bytes).map_err(|_| wrong())?;
    let hash = bcrypt::hash_with_salt(value.to_string(), cost, salt)
        .map_err(|_| bad("bcrypt: this text cannot be hashed"))?;
    Ok(hash.format_for_version(version))
}

/// `secret | totp`: the one-time code (RFC 6238: SHA-1, six digits, 30 s) of a base32 secret at `now`.
pub(super) fn totp(state: &State<'_, '_>, secret: &str) -> Result<String, Error> {
    let now_ms = state
        .lookup("now_ms")
        .and_then(|now| i64::try_from(now).ok())
        .ok_or_else(|| bad("totp: there is no `now` here"))?;
    // As people write it: in groups, in either case, with or without padding.
    let letters: String = secret
        .chars()
        .filter(|c| !matches!(c, ' ' | '-' | '='))
        .map(|c| c.to_ascii_uppercase())
        .collect();
    let secret =
        Secret::try_from_base32(letters).map_err(|_| bad("totp: the secret is not base32"))?;
    let codes = Builder::new()
        .with_algorithm(Algorithm::SHA1)
        .with_digits(6)
        .with_step_duration(TOTP_STEP_S.unsigned_abs())
        .with_secret(secret)
        .build_noncompliant();
    let seconds = u64::try_from(now_ms / 1000).unwrap_or(0);
    Ok(codes.generate(seconds).to_string())
}

#[cfg(test)]
mod tests {
    use crate::template::environment;
    use minijinja::context;

    /// The provider's published sample, whose visible beginning this has. Its salt is the trap: strict
    /// decoders refuse its last character.
    #[test]
    fn a_token_request_signed_by_bcrypt() {
        let signed = environment().render_str(
            "{{ [id, now_ms] | join('_') | bcrypt(secret) | base64 }}",
            context! { id => "aaaabbbbcccc", now_ms => 1_643_961_623_299_i64, secret => "$2a$10$abcdefghijklmnopqrstuv" },
        );
        assert_eq!(
            signed.expect("renders"),
            "JDJhJDEwJGFiY2RlZmdoaWprbG1ub3BxcnN0dXVCVldZSk42T0VPdEx1OFY0cDQxa2IuTnpVaUEzbmsy"
        );
    }

    #[test]
    fn a_wrong_salt_is_refused_and_not_shown() {
        for salt in [
            "",
            "hunter2-hunter2-hunter2-hunter2",
            "$2a$99$abcdefghijklmnopqrstuv",
            "$2a$10$short",
            "$2a$10$\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}",
        ] {
            let refused = environment().render_str("{{ 'x' | bcrypt(s) }}", context! { s => salt });
            let told = format!("{:#}", refused.expect_err(salt));
            assert!(!told.contains("hunter2"), "{told}");
        }
    }

    /// RFC 6238, appendix B (SHA-1), the last six of its eight digits.
    #[test]
    fn one_time_codes() {
        let secret = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
        for (seconds, code) in [
            (59_i64, "287082"),
            (1_111_111_109, "081804"),
            (1_234_567_890, "005924"),
            (20_000_000_000, "353130"),
        ] {
            let shown = environment().render_str(
                "{{ secret | totp }}",
                context! { secret, now_ms => seconds * 1000 },
            );
            assert_eq!(shown.expect("renders"), code);
        }
    }
}
