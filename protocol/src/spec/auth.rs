//! Reads the entries of `auth:`.

use indexmap::IndexMap;

use super::model::*;
use super::reader::Reader;
use super::scope::Spot;
use super::tree::{Data, Node};
use super::{secrets, sense};

/// Keys of an entry of `auth`, of all kinds.
pub const AUTH: &[&str] = &[
    "header",
    "query",
    "value",
    "sign",
    "key",
    "message",
    "oauth2",
    "token",
    "basic",
    "form",
    "refresh_before",
    "session",
    "login",
    "lasts",
    "jwt",
    "head",
    "claims",
];
/// Keys of `basic`.
pub const BASIC: &[&str] = &["user", "password"];
/// Keys of `token` and `login`.
pub const POST: &[&str] = &["post"];

/// Which keys an entry of a kind has; the first names the kind.
const KINDS: [&[&str]; 6] = [
    &["sign", "key", "message", "header", "value"],
    &[
        "oauth2",
        "token",
        "basic",
        "form",
        "refresh_before",
        "header",
        "value",
    ],
    &["session", "login", "form", "refresh_before", "lasts"],
    &["jwt", "key", "head", "claims", "header", "value"],
    &["header", "value"],
    &["query", "value"],
];

/// One entry.
pub(super) fn auth(r: &Reader, node: &Node) -> Option<Auth> {
    let Data::Map(entries) = &node.data else {
        return r.fault(
            node.at,
            format!("{} where a mapping belongs", node.kind()),
            RIGHT,
        );
    };
    let kind = KINDS
        .iter()
        .find(|keys| entries.iter().any(|e| e.key == keys[0]));
    let Some(keys) = kind else {
        r.fields(node, AUTH)?;
        return r.fault(node.at, "this says no way to sign in", RIGHT);
    };
    match keys[0] {
        "sign" => sign(r, node, keys),
        "oauth2" => oauth2(r, node, keys),
        "session" => session(r, node, keys),
        "jwt" => jwt(r, node, keys),
        "header" => header(r, node, keys),
        _ => query(r, node, keys),
    }
}

const RIGHT: &str = "{header: x-api-key, value: \"{{ credential.key }}\"}, or one with `query`, `sign`, `oauth2`, `session` or `jwt`";

type Keys = &'static [&'static str];

fn header(r: &Reader, node: &Node, keys: Keys) -> Option<Auth> {
    let f = r.fields(node, keys)?;
    let header = f.need("header", own_header);
    let value = f.need("value", |r, n| {
        secrets::in_auth(r, n, header.as_deref().unwrap_or_default())
    });
    Some(Auth::Header {
        header: header?,
        value: value?,
    })
}

/// A header that is not the client's own.
fn own_header(r: &Reader, node: &Node) -> Option<String> {
    let name = r.header(node)?;
    sense::header_name(r, node.at, &name)?;
    Some(name)
}

fn query(r: &Reader, node: &Node, keys: Keys) -> Option<Auth> {
    let f = r.fields(node, keys)?;
    let query = f.need("query", Reader::text);
    let value = f.need("value", |r, n| {
        secrets::in_auth(r, n, query.as_deref().unwrap_or_default())
    });
    Some(Auth::Query {
        query: query?,
        value: value?,
    })
}

fn sign(r: &Reader, node: &Node, keys: Keys) -> Option<Auth> {
    const ALGORITHMS: &[(&str, &str)] = &[
        ("hmac_sha256_hex", "hmac_sha256_hex"),
        ("hmac_sha256_base64", "hmac_sha256_base64"),
    ];
    let f = r.fields(node, keys)?;
    let algorithm = f.need("sign", |r, n| r.choice(n, ALGORITHMS));
    let key = f.need("key", |r, n| secrets::signing_key(r, n));
    let message = f.need("message", |r, n| r.template(n, &Spot::Signing));
    let header = f.need("header", Reader::header);
    let value = f.need("value", |r, n| r.template(n, &Spot::Signature));
    Some(Auth::Sign {
        algorithm: algorithm?.to_owned(),
        key: key?,
        message: message?,
        header: header?,
        value: value?,
    })
}

fn form(r: &Reader, node: &Node) -> Option<IndexMap<String, Template>> {
    r.map(node, secrets::in_form)
}

fn post(r: &Reader, node: &Node) -> Option<Template> {
    r.fields(node, POST)?
        .need("post", |r, n| r.template(n, &Spot::Auth))
}

fn oauth2(r: &Reader, node: &Node, keys: Keys) -> Option<Auth> {
    const GRANTS: &[(&str, &str)] = &[
        ("client_credentials", "client_credentials"),
        ("refresh_token", "refresh_token"),
    ];
    let f = r.fields(node, keys)?;
    let (grant, token) = (
        f.need("oauth2", |r, n| r.choice(n, GRANTS)),
        f.need("token", post),
    );
    let basic = f.take("basic", basic);
    let form = f.take("form", form).unwrap_or_default();
    let refresh_before = f
        .take("refresh_before", Reader::span)
        .unwrap_or(Span::secs(60));
    let header = f.take("header", Reader::header);
    let value = f.take("value", |r, n| r.template(n, &Spot::GrantedToken));
    Some(Auth::Oauth2 {
        grant: grant?.to_owned(),
        token: token?,
        basic,
        form,
        refresh_before,
        header: header.unwrap_or_else(Auth::authorization),
        value: value.unwrap_or_else(Auth::bearer),
    })
}

/// Who asks for a token, by HTTP basic.
fn basic(r: &Reader, node: &Node) -> Option<(Template, Template)> {
    let f = r.fields(node, BASIC)?;
    let user = f.need("user", |r, n| r.template(n, &Spot::Auth));
    let password = f.need("password", |r, n| secrets::always(r, n, "password"));
    Some((user?, password?))
}

fn session(r: &Reader, node: &Node, keys: Keys) -> Option<Auth> {
    let f = r.fields(node, keys)?;
    f.take("session", |r, n| r.choice(n, &[("cookies", ())]));
    let login = f.need("login", post);
    let form = f.take("form", form).unwrap_or_default();
    let refresh_before = f
        .take("refresh_before", Reader::span)
        .unwrap_or(Span::secs(60));
    let lasts = f
        .take("lasts", Reader::some_span)
        .unwrap_or(Span::secs(1800));
    Some(Auth::Session {
        login: login?,
        form,
        refresh_before,
        lasts,
    })
}

fn jwt(r: &Reader, node: &Node, keys: Keys) -> Option<Auth> {
    let f = r.fields(node, keys)?;
    f.take("jwt", |r, n| r.choice(n, &[("hs256", ())]));
    let key = f.need("key", |r, n| secrets::signing_key(r, n));
    let head = f.take("head", form).unwrap_or_default();
    let claims = f
        .take("claims", |r, n| {
            r.map(n, |r, n| r.templates_in(n, &Spot::Auth))
        })
        .unwrap_or_default();
    let header = f
        .take("header", Reader::header)
        .unwrap_or_else(Auth::authorization);
    let value = f
        .take("value", |r, n| r.template(n, &Spot::Token))
        .unwrap_or_else(Auth::bearer);
    Some(Auth::Jwt {
        key: key?,
        head,
        claims,
        header,
        value,
    })
}
