//! Who may ask: tokens with roles (`PACELINE_API_TOKENS`), compared in constant time. Without tokens only calls
//! from this machine under its own names are answered, which also keeps a page of elsewhere from reaching us by
//! rebinding DNS.

use std::net::IpAddr;

use anyhow::{Result, bail, ensure};
use axum::http::{HeaderMap, header};
use base64::Engine as _;
use paceline_protocol::settings::Environment;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::problem::Problem;
use crate::serve::page::session;

/// What a token may do; each includes the ones before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::serve) enum Role {
    /// Look.
    Read,
    /// Start, retry, pause, resume and cancel runs.
    Run,
    /// Change limits.
    Admin,
}

impl Role {
    /// As `PACELINE_API_TOKENS` says it.
    fn word(self) -> &'static str {
        match self {
            Role::Read => "read",
            Role::Run => "run",
            Role::Admin => "admin",
        }
    }
}

struct Token {
    name: String,
    role: Role,
    digest: [u8; 32],
}

/// The tokens of `PACELINE_API_TOKENS`.
pub(in crate::serve) struct Tokens(Vec<Token>);

impl Tokens {
    /// Reads `name:role:token,...`.
    pub(in crate::serve) fn from_env(env: &impl Environment) -> Result<Self> {
        let text = env.secret("PACELINE_API_TOKENS")?.unwrap_or_default();
        let entries = text
            .split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty());
        let tokens = entries
            .enumerate()
            .map(|(place, entry)| token(place + 1, entry));
        let tokens: Vec<Token> = tokens.collect::<Result<_>>()?;
        for (place, token) in tokens.iter().enumerate() {
            let same = tokens[..place].iter().any(|t| t.digest == token.digest);
            ensure!(
                !same,
                "PACELINE_API_TOKENS: entry {} has the token of another one: who asks with it could be either",
                place + 1
            );
        }
        ensure!(
            text.is_empty() || !tokens.is_empty(),
            "PACELINE_API_TOKENS holds no token; without the variable this machine alone is answered"
        );
        Ok(Tokens(tokens))
    }

    /// Whether there is no token at all: then this machine alone is answered.
    pub(in crate::serve) fn none(&self) -> bool {
        self.0.is_empty()
    }

    /// The name of whoever asks from `peer`, when they may do what needs `role`.
    pub(super) fn admit(
        &self,
        headers: &HeaderMap,
        peer: IpAddr,
        role: Role,
    ) -> Result<String, Problem> {
        let (name, has) = self.who(headers, peer)?;
        if has < role {
            let (has, needed) = (has.word(), role.word());
            return Err(Problem::forbidden(&format!(
                "this token has the role `{has}`; that needs `{needed}`"
            )));
        }
        if role > Role::Read {
            let by_cookie = !self.none() && !headers.contains_key(header::AUTHORIZATION);
            if by_cookie && !session::is_same_origin(headers) {
                return Err(Problem::forbidden(
                    "with a cookie a change has to come from the page itself",
                ));
            }
            if self.none() && session::is_of_another_site(headers) {
                return Err(Problem::forbidden(
                    "a page of another site may not change anything",
                ));
            }
        }
        Ok(name)
    }

    /// The name of whoever asks from `peer`, and what they may do.
    pub(in crate::serve) fn who(
        &self,
        headers: &HeaderMap,
        peer: IpAddr,
    ) -> Result<(String, Role), Problem> {
        if self.none() {
            // A peer alone does not tell a page that rebinds its name to this machine; a name alone, which
            // anybody can send, does not tell another machine.
            return if peer.to_canonical().is_loopback() && names_this_machine(headers) {
                Ok(("local".to_owned(), Role::Admin))
            } else {
                Err(Problem::forbidden(
                    "without PACELINE_API_TOKENS the API answers on this machine alone",
                ))
            };
        }
        let given = given(headers)
            .or_else(|| session::token(headers))
            .ok_or_else(|| Problem::unauthorized("send `Authorization: Bearer <token>`"))?;
        self.of(&given)
            .ok_or_else(|| Problem::unauthorized("this token is not known"))
    }

    /// Whose token it is, and what it may do.
    pub(in crate::serve) fn of(&self, given: &str) -> Option<(String, Role)> {
        let digest: [u8; 32] = Sha256::digest(given).into();
        let mut found = None;
        for token in &self.0 {
            if bool::from(token.digest.ct_eq(&digest)) {
                found = Some((token.name.clone(), token.role));
            }
        }
        found
    }
}

/// The token that came: as a bearer's, or as the password of whoever can send nothing else (SNS).
fn given(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = value.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = base64::engine::general_purpose::STANDARD.decode(rest.trim());
    let pair = String::from_utf8(pair.ok()?).ok()?;
    Some(pair.split_once(':')?.1.to_owned())
}

/// Never shows the entry: it holds a secret.
fn token(place: usize, entry: &str) -> Result<Token> {
    let mut parts = entry.splitn(3, ':');
    let (Some(name), Some(role), Some(secret)) = (parts.next(), parts.next(), parts.next()) else {
        bail!("PACELINE_API_TOKENS: entry {place} is not name:role:token");
    };
    let role = match role {
        "read" => Role::Read,
        "run" => Role::Run,
        "admin" => Role::Admin,
        _ => bail!("PACELINE_API_TOKENS: the role of entry {place} is none of read, run, admin"),
    };
    if name.is_empty() || secret.is_empty() {
        bail!("PACELINE_API_TOKENS: entry {place} lacks its name or token");
    }
    Ok(Token {
        name: name.to_owned(),
        role,
        digest: Sha256::digest(secret).into(),
    })
}

fn names_this_machine(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    // Of two it could not be said which one counts.
    let (Some(host), None) = (
        hosts.next().and_then(|host| host.to_str().ok()),
        hosts.next(),
    ) else {
        return false;
    };
    is_loopback(host)
        && headers.get(header::ORIGIN).is_none_or(|origin| {
            // Another page of this machine is another origin, too.
            let origin = origin.to_str().unwrap_or_default();
            let authority = origin
                .strip_prefix("http://")
                .or(origin.strip_prefix("https://"));
            authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
        })
}

/// `localhost`, `127.x.x.x` or `[::1]`, with or without a port.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const AWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7));

    fn tokens(text: &str) -> Result<Tokens> {
        let env = BTreeMap::from([("PACELINE_API_TOKENS".to_owned(), text.to_owned())]);
        Tokens::from_env(&env)
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            (
                header::HeaderName::from_static(name),
                value.parse().expect("a value"),
            )
        });
        let mut headers = HeaderMap::new();
        pairs.for_each(|(name, value)| {
            headers.append(name, value);
        });
        headers
    }

    #[test]
    fn a_token_that_two_share_or_a_list_of_none_is_refused_without_showing_it() {
        for (text, said) in [
            ("a:read:secret,b:admin:secret", "entry 2"),
            (",,", "holds no token"),
            (" ", "holds no token"),
        ] {
            let refused = tokens(text).err().expect(text).to_string();
            assert!(refused.contains(said) && !refused.contains("secret"));
        }
        assert!(tokens("").expect("none").none());
    }

    #[test]
    fn a_role_includes_the_smaller_ones() {
        let tokens = tokens("ann:read:abc, bob:run:d:ef").expect("tokens");
        let with = |token: &str, role| {
            let value = format!("Bearer {token}");
            tokens
                .admit(&headers(&[("authorization", &value)]), AWAY, role)
                .is_ok()
        };
        assert!(with("abc", Role::Read) && !with("abc", Role::Run));
        assert!(with("d:ef", Role::Read) && with("d:ef", Role::Run) && !with("d:ef", Role::Admin));
        let basic = headers(&[("authorization", "Basic c25zOmFiYw==")]); // sns:abc
        assert!(tokens.admit(&basic, AWAY, Role::Read).is_ok());
        assert!(!with("", Role::Read) && !with("abcd", Role::Read));
        assert!(
            tokens
                .admit(&headers(&[("host", "localhost")]), HERE, Role::Read)
                .is_err()
        );
    }

    #[test]
    fn a_wrong_entry_is_named_without_its_secret() {
        for bad in ["ann:abc", "ann:root:abc", "ann:read:"] {
            let error = tokens(bad).err().expect("refused").to_string();
            assert!(
                error.contains("entry 1") && !error.contains("abc"),
                "{error}"
            );
        }
    }

    #[test]
    fn without_tokens_only_this_machine_is_answered() {
        let none = tokens("").expect("none");
        let from = |peer: IpAddr, pairs: &[(&'static str, &str)]| {
            none.admit(&headers(pairs), peer, Role::Admin).is_ok()
        };
        let may = |pairs: &[(&'static str, &str)]| from(HERE, pairs);
        let mapped = "::ffff:127.0.0.1".parse().expect("an address");
        let local = [("host", "localhost:9100")];
        assert!(from(mapped, &local) && !from(AWAY, &local));
        assert!(may(&[("host", "127.0.0.1:9100")]) && may(&[("host", "[::1]:80")]));
        assert!(may(&[
            ("host", "localhost:9100"),
            ("origin", "http://localhost:9100")
        ]));
        assert!(!may(&[("host", "evil.example:9100")]) && !may(&[]));
        assert!(!may(&[
            ("host", "localhost:9100"),
            ("host", "evil.example")
        ]));
        assert!(!may(&[
            ("host", "localhost:9100"),
            ("sec-fetch-site", "cross-site")
        ]));
        assert!(may(&[
            ("host", "localhost:9100"),
            ("sec-fetch-site", "none")
        ]));
        for elsewhere in ["https://evil.example", "http://localhost:3000", "null"] {
            assert!(!may(&[("host", "localhost:9100"), ("origin", elsewhere)]));
        }
    }
}
