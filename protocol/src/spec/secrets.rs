//! Secrets that stand in a file, where everybody who reads the repository finds them.

use super::model::Template;
use super::reader::Reader;
use super::scope::Spot;
use super::tree::{Data, Node};

const HINT: &str = "put it in the environment, name that in `credentials: {from_env: NAME}`, and write \"{{ credential.key }}\" here";

/// Words that tell a secret wherever they stand in a name.
const TELLING: [&str; 9] = [
    "apikey",
    "authorization",
    "cookie",
    "credential",
    "passphrase",
    "password",
    "secret",
    "servicekey",
    "signature",
];
/// Words that tell one as a word of their own.
const WORDS: [&str; 12] = [
    "appid",
    "auth",
    "bearer",
    "jwt",
    "key",
    "passwd",
    "pwd",
    "sessionid",
    "session",
    "sid",
    "sig",
    "token",
];
/// With one of these a key or a token is none.
const HARMLESS: [&str; 16] = [
    "page",
    "next",
    "previous",
    "continuation",
    "sort",
    "order",
    "group",
    "partition",
    "primary",
    "type",
    "grant",
    "words",
    "word",
    "sync",
    "delta",
    "max",
];

/// Whether `name` is one of a secret: `x-api-key` is, `keyword` and `page_token` are not.
pub fn is_secret_name(name: &str) -> bool {
    let squashed: String = name
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect();
    if TELLING.iter().any(|word| squashed.contains(word)) {
        return true;
    }
    let words = name_words(name);
    let has = |list: &[&str]| words.iter().any(|word| list.contains(&word.as_str()));
    has(&WORDS) && !has(&HARMLESS)
        || squashed.ends_with("key") && squashed.starts_with("open")
        || squashed.ends_with("token") && !has(&HARMLESS) && !squashed.starts_with("page")
}

/// Whether a word of `value` is a signed token (JWT), whatever it is called.
pub fn is_signed_token(value: &str) -> bool {
    value
        .split_whitespace()
        .any(|word| word.starts_with("eyJ") && word.matches('.').count() == 2)
}

/// How well-known keys begin (as their makers' manuals say, so that they are found where they do not belong).
const BEGINNINGS: [&str; 14] = [
    "sk_live_",
    "sk_test_",
    "rk_live_",
    "pk_live_",
    "sk-",
    "ghp_",
    "gho_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "xoxp-",
    "AKIA",
    "AIza",
    "SG.",
];

/// Whether a segment of a path is a well-known kind of key: Stripe's, GitHub's, a Telegram bot's, a signed token.
pub fn is_secret_segment(segment: &str) -> bool {
    const SHORTEST: usize = 16;
    let begins = BEGINNINGS.iter().any(|begin| {
        segment
            .strip_prefix(begin)
            .is_some_and(|rest| rest.len() >= SHORTEST && rest.chars().any(|c| c.is_ascii_digit()))
    });
    let bot = segment.strip_prefix("bot").and_then(|rest| {
        let (number, key) = rest.split_once(':')?;
        let digits = number.bytes().all(|b| b.is_ascii_digit());
        Some(digits && !number.is_empty() && key.len() >= SHORTEST)
    });
    begins || bot == Some(true) || is_signed_token(segment)
}

/// A path must not hold a key.
pub(super) fn in_path(r: &Reader, node: &Node, path: &str) -> Option<()> {
    let mut literals = path.split('/').filter(|segment| is_literal(segment));
    match literals.any(is_secret_segment) {
        true => r.fault(node.at, "the path holds a secret in the file itself", HINT),
        false => Some(()),
    }
}

/// `X-Api-Key`, `api_key` and `apiKey` are three, two and two words.
fn name_words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut lower = false;
    for c in name.chars() {
        let starts = !c.is_ascii_alphanumeric() || c.is_ascii_uppercase() && lower;
        if starts {
            words.push(String::new());
        }
        lower = c.is_ascii_lowercase();
        if c.is_ascii_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.push(c.to_ascii_lowercase());
        }
    }
    words
}

/// A template of `auth` that must not be the secret itself.
pub(super) fn in_auth(r: &Reader, node: &Node, name: &str) -> Option<Template> {
    let value = r.template(node, &Spot::Auth)?;
    match looks_secret(name, &value) {
        true => refuse(r, node, name),
        false => Some(value),
    }
}

/// A template that stands for a secret whatever it is called, so any text without a name in it is one.
pub(super) fn always(r: &Reader, node: &Node, name: &str) -> Option<Template> {
    let value = r.template(node, &Spot::Auth)?;
    match is_literal(&value) && !value.is_empty() {
        true => refuse(r, node, name),
        false => Some(value),
    }
}

/// The key of signatures. What is shorter than any real one is an example's.
pub(super) fn signing_key(r: &Reader, node: &Node) -> Option<Template> {
    const SHORTEST: usize = 8;
    let value = r.template(node, &Spot::Auth)?;
    match is_literal(&value) && value.len() >= SHORTEST {
        true => refuse(r, node, "key"),
        false => Some(value),
    }
}

/// The fields of a token request or a log-in.
pub(super) fn in_form(r: &Reader, node: &Node) -> Option<Template> {
    let name = node.path.rsplit('.').next().unwrap_or_default();
    let squashed = name.to_ascii_lowercase();
    let sure = ["password", "passwd", "secret"]
        .iter()
        .any(|word| squashed.contains(word));
    match sure && is_secret_name(name) {
        true => always(r, node, name),
        false => in_auth(r, node, name),
    }
}

/// What a request holds beside what `auth` adds: its headers, its query and its body.
///
/// Names are less telling there, so only what looks like a key is taken for one.
pub(super) fn in_request(r: &Reader, node: &Node) {
    match &node.data {
        Data::Map(entries) => entries.iter().for_each(|entry| in_request(r, &entry.node)),
        Data::List(list) => list.iter().for_each(|below| in_request(r, below)),
        Data::Scalar(value) => {
            let text = value.as_str().unwrap_or_default();
            let name = last_key(&node.path);
            let random = text.contains(|c: char| c.is_ascii_digit());
            if is_literal(text) && (looks_secret(&name, text) && random || is_signed_token(text)) {
                refuse::<()>(r, node, &name);
            }
        }
    }
}

/// The last key of a path, without the places of a list behind it.
fn last_key(path: &str) -> String {
    let last = path.rsplit('.').next().unwrap_or_default();
    last.split('[').next().unwrap_or_default().to_owned()
}

/// User and password in a URL.
pub(super) fn in_url(r: &Reader, node: &Node, url: &str) -> Option<()> {
    let authority = url.split_once("://").map_or("", |(_, rest)| rest);
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    let Some((user, _)) = authority.rsplit_once('@') else {
        return Some(());
    };
    let password = user.split_once(':').map_or("", |(_, password)| password);
    match !password.is_empty() && is_literal(password) {
        true => r.fault(
            node.at,
            "the URL holds a password in the file itself",
            "put the whole URL in the environment and write ${NAME} here; user and password of a provider belong to `credentials` and `auth`",
        ),
        false => Some(()),
    }
}

fn refuse<T>(r: &Reader, node: &Node, name: &str) -> Option<T> {
    let message = format!("`{name}` holds a secret in the file itself");
    r.fault(node.at, message, HINT)
}

fn is_literal(value: &str) -> bool {
    !value.contains("{{") && !value.contains("${")
}

/// A long literal in a field that is named like a key.
fn looks_secret(name: &str, value: &str) -> bool {
    let longest = value.split_whitespace().map(str::len).max().unwrap_or(0);
    is_literal(value) && is_secret_name(name) && longest >= 12
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets() {
        for name in [
            "Authorization",
            "x-api-key",
            "apikey",
            "apiKey",
            "openapikey",
            "serviceKey",
            "key",
            "X-Naver-Client-Secret",
            "access_token",
            "accesstoken",
            "X-Auth",
            "appid",
            "sig",
            "Ocp-Apim-Subscription-Key",
            "X-Shopify-Access-Token",
            "Cookie",
            "client_secret",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in [
            "q",
            "keyword",
            "keywords",
            "pageToken",
            "page_token",
            "nextToken",
            "sort_key",
            "author",
            "grant_type",
            "X-Goog-FieldMask",
            "max_tokens",
            "monkey",
            "token_type",
        ] {
            assert!(!is_secret_name(name), "{name}");
        }
        assert!(is_signed_token(
            "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln"
        ));
        assert!(!is_signed_token("eyJ.a"));
        for segment in [
            "sk_live_ABCDEF1234567890abcdef",
            "bot123456789:AAFabcdefghijklmnop",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln",
        ] {
            assert!(is_secret_segment(segment), "{segment}");
        }
        for segment in [
            "v1",
            "sk-products-overview-of-all",
            "bots:all",
            "accounts",
            "0123456789abcdef0123456789abcdef",
        ] {
            assert!(!is_secret_segment(segment), "{segment}");
        }
    }

    #[test]
    fn secrets_are_told_from_words() {
        assert!(looks_secret("x-api-key", "sk_live_0123456789"));
        assert!(looks_secret("authorization", "Bearer abcdefghijklmnop"));
        assert!(!looks_secret(
            "authorization",
            "Bearer {{ credential.key }}"
        ));
        assert!(!looks_secret("accept", "application/vnd.example+json"));
        assert!(!looks_secret("x-api-key", "demo"));
    }
}
