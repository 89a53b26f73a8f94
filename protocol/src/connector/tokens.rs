//! Token requests and log-ins: one for a credential and the whole fleet. Building the request and reading the
//! answer; who makes it, and when, is the worker's affair.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::utf8_percent_encode;

use super::request::{
    ENCODED, HttpRequest, NotRequestable, compile, encode, path_environment, render,
};
use super::{Answer, CallContext, CompileError, Connector};
use crate::outcome::{Outcome, Verdict};
use crate::spec::{Auth, Method, Provider};
use crate::template::{Compiled, Templates, environment};

/// A token whose answer names no end is taken to last so long; the provider says when it was less.
const UNKNOWN_END: Duration = Duration::from_secs(24 * 3600);
/// A new refresh token in an answer comes under this name.
const REFRESH: &str = "refresh_token";

/// What a call is signed in with: headers. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Lower-case names and values.
    pub headers: Vec<(String, String)>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// As it is sealed.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(&self.headers).unwrap_or_default()
    }

    /// From what was sealed.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let headers = serde_json::from_slice(bytes).ok()?;
        Some(Token { headers })
    }
}

/// What a token request or log-in gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// What calls are signed in with.
    pub token: Token,
    /// How long it is good from the answer on.
    pub lasts: Duration,
    /// After how long it is renewed.
    pub renew_after: Duration,
    /// A refresh token that takes the place of the one that was used.
    pub rotated: Option<Secret>,
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// What the answer to a token request or log-in means.
#[derive(Clone, Debug, PartialEq)]
pub enum TokenAnswer {
    /// It is there.
    Granted(Granted),
    /// The credential is not accepted: asking again could lock it.
    Refused(Verdict),
    /// Later, without burning an attempt.
    Closed(Verdict),
    /// Worth another attempt.
    Again(Verdict),
}

impl TokenAnswer {
    /// For the ledger.
    pub fn verdict(&self) -> Verdict {
        match self {
            TokenAnswer::Granted(_) => Verdict {
                outcome: Outcome::Ok,
                wait: None,
                reason: String::new(),
            },
            TokenAnswer::Refused(v) | TokenAnswer::Closed(v) | TokenAnswer::Again(v) => v.clone(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    ClientCredentials,
    RefreshToken,
    Session { lasts: Duration },
}

/// A provider's token request or log-in, compiled.
#[derive(Debug)]
pub struct TokenTemplates {
    kind: Kind,
    base_url: String,
    paths: Templates,
    path: Compiled,
    basic: Option<(Compiled, Compiled)>,
    form: Vec<(String, Compiled)>,
    refresh_before: Duration,
    carried: Carried,
    /// Its form has a one-time code, which works once.
    pub one_time: bool,
}

impl TokenTemplates {
    pub(super) fn compile(
        provider: &Provider,
        templates: &mut Templates,
    ) -> Result<Option<Self>, CompileError> {
        let mut found = None;
        for auth in &provider.auth {
            let (kind, path, form, refresh_before) = match auth {
                Auth::Oauth2 {
                    grant,
                    token,
                    form,
                    refresh_before,
                    ..
                } if grant == REFRESH => (Kind::RefreshToken, token, form, refresh_before),
                Auth::Oauth2 {
                    token,
                    form,
                    refresh_before,
                    ..
                } => (Kind::ClientCredentials, token, form, refresh_before),
                Auth::Session {
                    login,
                    form,
                    refresh_before,
                    lasts,
                } => (
                    Kind::Session { lasts: lasts.0 },
                    login,
                    form,
                    refresh_before,
                ),
                _ => continue,
            };
            let (basic, carried) = match auth {
                Auth::Oauth2 {
                    basic,
                    header,
                    value,
                    ..
                } => (basic.as_ref(), Carried::compile(header, value)?),
                _ => (None, Carried::bearer()),
            };
            if found.is_some() {
                return Err(CompileError::NotBuilt(
                    "two ways to get a token at one provider".into(),
                ));
            }
            let mut fields: Vec<(String, Compiled)> = Vec::new();
            for (name, source) in kind.defaults() {
                if !form.contains_key(*name) {
                    fields.push(((*name).to_owned(), compile(templates, source)?));
                }
            }
            for (name, source) in form {
                fields.push((name.clone(), compile(templates, source)?));
            }
            let mut paths = Templates::new(path_environment());
            found = Some(TokenTemplates {
                kind,
                base_url: provider.base_url.clone().unwrap_or_default(),
                path: compile(&mut paths, path)?,
                paths,
                basic: match basic {
                    Some((user, password)) => {
                        Some((compile(templates, user)?, compile(templates, password)?))
                    }
                    None => None,
                },
                form: fields,
                refresh_before: refresh_before.0,
                carried,
                one_time: form.values().any(|source| uses_totp(source)),
            });
        }
        Ok(found)
    }

    /// The name under which it is limited and written to the ledger.
    pub fn endpoint(&self) -> &'static str {
        self.kind.endpoint()
    }

    /// Whether answers may bring a refresh token that takes the place of the one that was used.
    pub fn rotates(&self) -> bool {
        self.kind == Kind::RefreshToken
    }

    /// What calls carry in the place of `token`.
    pub fn carry(&self, token: &str) -> (String, String) {
        self.carried.of(token)
    }

    fn url(&self, context: &minijinja::Value) -> Result<String, NotRequestable> {
        let path = match &self.path {
            Compiled::Name(_) => encode(&render(&self.paths, &self.path, context)?),
            other => render(&self.paths, other, context)?,
        };
        if path.starts_with("https://") || path.starts_with("http://") {
            return Ok(path);
        }
        let base = self.base_url.trim_end_matches('/');
        Ok(format!("{base}/{}", path.trim_start_matches('/')))
    }

    fn renew_after(&self, lasts: Duration) -> Duration {
        // A token that ends within `refresh_before` anyway would be renewed without end.
        lasts.saturating_sub(self.refresh_before).max(lasts / 2)
    }
}

impl Kind {
    fn endpoint(self) -> &'static str {
        match self {
            Kind::Session { .. } => "login",
            Kind::ClientCredentials | Kind::RefreshToken => "token",
        }
    }

    /// What the form of every such request has, unless the file says otherwise.
    fn defaults(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Kind::ClientCredentials => &[("grant_type", "client_credentials")],
            Kind::RefreshToken => &[
                ("grant_type", REFRESH),
                (REFRESH, "{{ credential.refresh_token }}"),
            ],
            Kind::Session { .. } => &[],
        }
    }
}

/// Whether a template uses the filter `totp`.
fn uses_totp(source: &str) -> bool {
    source
        .split('|')
        .skip(1)
        .any(|filter| filter.trim_start().starts_with("totp"))
}

impl Connector {
    /// The token request or log-in that calls need first, if they do.
    pub fn tokens(&self) -> Option<&TokenTemplates> {
        self.tokens.as_ref()
    }

    /// The context of the token request that a call with `context` needs.
    pub fn token_context(&self, context: CallContext) -> CallContext {
        context.of_endpoint(self.tokens.as_ref().map_or("", TokenTemplates::endpoint))
    }

    /// The token request; `context` is that of [`token_context`](Self::token_context) with credential and instant.
    ///
    /// # Errors
    /// When a value cannot stand where its template puts it.
    pub fn token_request(
        &self,
        tokens: &TokenTemplates,
        context: CallContext,
    ) -> Result<HttpRequest, NotRequestable> {
        let context = context.value();
        let url = tokens.url(&context)?;
        let mut form = String::new();
        for (name, template) in &tokens.form {
            if !form.is_empty() {
                form.push('&');
            }
            form.extend(utf8_percent_encode(name, ENCODED));
            form.push('=');
            let value = render(&self.templates, template, &context)?;
            form.extend(utf8_percent_encode(&value, ENCODED));
        }
        let mut headers = vec![("accept".into(), "application/json, */*".into())];
        if let Some((user, password)) = &tokens.basic {
            let user = render(&self.templates, user, &context)?;
            let password = render(&self.templates, password, &context)?;
            headers.push(("authorization".into(), basic(&user, &password)?));
        }
        Ok(HttpRequest {
            method: Method::Post,
            url,
            headers,
            body: Some(("application/x-www-form-urlencoded", form.into_bytes())),
        })
    }

    /// What the answer to it means: the provider's rules first, then whether it sets the token or cookie.
    pub fn judge_token(
        &self,
        tokens: &TokenTemplates,
        answer: &Answer<'_>,
        set_cookies: &[String],
    ) -> TokenAnswer {
        let judged = self.judge(answer);
        let verdict = if judged.rule.is_some() {
            judged.verdict
        } else {
            built_in(answer.status, judged.verdict)
        };
        match verdict.outcome {
            Outcome::Ok | Outcome::Empty => tokens.read(answer, set_cookies),
            Outcome::AuthExpired | Outcome::Permanent => TokenAnswer::Refused(verdict),
            Outcome::Throttled | Outcome::QuotaExhausted | Outcome::Maintenance => {
                TokenAnswer::Closed(verdict)
            }
            Outcome::Retryable => TokenAnswer::Again(verdict),
        }
    }
}

/// The header that a token stands in.
#[derive(Debug)]
struct Carried {
    header: String,
    /// Of its value, with the one name `token`.
    templates: Templates,
    value: Compiled,
}

impl Carried {
    fn compile(header: &str, value: &str) -> Result<Self, CompileError> {
        let mut templates = Templates::new(environment());
        Ok(Carried {
            header: header.to_ascii_lowercase(),
            value: compile(&mut templates, value)?,
            templates,
        })
    }

    fn bearer() -> Self {
        Carried {
            header: Auth::authorization(),
            templates: Templates::new(environment()),
            value: Compiled::Name("token".into()),
        }
    }

    fn of(&self, token: &str) -> (String, String) {
        let context = minijinja::context! { token => token };
        // `check` lets no other name in, so it renders.
        let value = self.templates.render(&self.value, &context);
        (self.header.clone(), value.unwrap_or_default())
    }
}

/// RFC 7617: the name before the first colon.
fn basic(user: &str, password: &str) -> Result<String, NotRequestable> {
    if user.contains(':') {
        return Err(NotRequestable(
            "the user of HTTP basic has a colon, which would end it".into(),
        ));
    }
    let both = STANDARD.encode(format!("{user}:{password}"));
    Ok(format!("Basic {both}"))
}

/// Without a rule: a redirect is how forms usually say that they took a log-in; what is in the body is
/// the token's business.
fn built_in(status: u16, verdict: Verdict) -> Verdict {
    let outcome = match status {
        200..=399 => Outcome::Ok,
        _ => verdict.outcome,
    };
    Verdict { outcome, ..verdict }
}

impl TokenTemplates {
    fn read(&self, answer: &Answer<'_>, set_cookies: &[String]) -> TokenAnswer {
        match self.kind {
            Kind::Session { lasts } => self.read_cookies(answer, set_cookies, lasts),
            Kind::ClientCredentials | Kind::RefreshToken => self.read_token(answer),
        }
    }

    fn read_cookies(
        &self,
        answer: &Answer<'_>,
        set_cookies: &[String],
        mut lasts: Duration,
    ) -> TokenAnswer {
        let mut jar = BTreeMap::new();
        for line in set_cookies {
            let Ok(cookie) = cookie::Cookie::parse(line.as_str()) else {
                continue;
            };
            let age = cookie.max_age().map(|age| age.whole_seconds());
            if cookie.value().is_empty() || age.is_some_and(|s| s <= 0) {
                jar.remove(cookie.name());
                continue;
            }
            if let Some(age) = age.and_then(|s| u64::try_from(s).ok()) {
                lasts = lasts.min(Duration::from_secs(age));
            }
            jar.insert(cookie.name().to_owned(), cookie.value().to_owned());
        }
        let pairs: Vec<String> = jar.iter().map(|(n, v)| format!("{n}={v}")).collect();
        let header = pairs.join("; ");
        if header.is_empty() || header.chars().any(char::is_control) {
            return TokenAnswer::Refused(refused(
                answer.status,
                "the log-in's answer sets no cookie",
            ));
        }
        TokenAnswer::Granted(Granted {
            token: Token {
                headers: vec![("cookie".into(), header)],
            },
            lasts,
            renew_after: self.renew_after(lasts),
            rotated: None,
        })
    }

    fn read_token(&self, answer: &Answer<'_>) -> TokenAnswer {
        let again = |reason: &str| {
            TokenAnswer::Again(Verdict {
                outcome: Outcome::Retryable,
                wait: None,
                reason: format!("status {}: {reason}", answer.status),
            })
        };
        let Ok(body) = serde_json::from_slice::<serde_json::Value>(answer.body) else {
            return again("the token request's answer is not JSON");
        };
        let text = |name: &str| {
            let value = body.get(name)?.as_str()?;
            let fits = !value.is_empty() && value.bytes().all(|b| (0x21..0x7f).contains(&b));
            fits.then(|| value.to_owned())
        };
        let Some(token) = text("access_token") else {
            return again("the token request's answer has no access_token");
        };
        // Some say the number as text.
        let lasts = body
            .get("expires_in")
            .map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned))
            .and_then(|text| text.trim().parse::<f64>().ok())
            .filter(|seconds| seconds.is_finite() && *seconds > 0.0)
            .map_or(UNKNOWN_END, |seconds| {
                Duration::from_secs_f64(seconds.min(400.0 * 86_400.0))
            });
        TokenAnswer::Granted(Granted {
            token: Token {
                headers: vec![self.carry(&token)],
            },
            lasts,
            renew_after: self.renew_after(lasts),
            rotated: text(REFRESH).filter(|_| self.rotates()).map(Secret),
        })
    }
}

fn refused(status: u16, reason: &str) -> Verdict {
    Verdict {
        outcome: Outcome::AuthExpired,
        wait: None,
        reason: format!("status {status}: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn templates(kind: Kind, refresh_before: u64) -> TokenTemplates {
        TokenTemplates {
            kind,
            base_url: "http://p.test/external".into(),
            paths: Templates::new(path_environment()),
            path: Compiled::Literal("/v1/token".into()),
            basic: None,
            form: Vec::new(),
            refresh_before: Duration::from_secs(refresh_before),
            carried: Carried::compile("Authorization", "Bearer {{ token }}").expect("compiles"),
            one_time: false,
        }
    }

    fn read(kind: Kind, body: &str, cookies: &[&str]) -> TokenAnswer {
        let none = |_: &str| None;
        let answer = Answer {
            status: 200,
            header: &none,
            body: body.as_bytes(),
            now_us: 0,
        };
        let cookies: Vec<String> = cookies.iter().map(|c| (*c).to_owned()).collect();
        templates(kind, 300).read(&answer, &cookies)
    }

    fn granted(answer: TokenAnswer) -> Granted {
        match answer {
            TokenAnswer::Granted(granted) => granted,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_token_is_renewed_before_its_end() {
        let body = r#"{"access_token":"abc","expires_in":10800,"token_type":"Bearer","refresh_token":"r"}"#;
        let got = granted(read(Kind::ClientCredentials, body, &[]));
        assert_eq!(
            got.token.headers,
            [("authorization".into(), "Bearer abc".into())]
        );
        assert_eq!(got.lasts, Duration::from_secs(10_800));
        assert_eq!(got.renew_after, Duration::from_secs(10_500));
        assert_eq!(got.rotated, None);
        let rotating = granted(read(Kind::RefreshToken, body, &[]));
        assert_eq!(rotating.rotated, Some(Secret("r".into())));
        assert!(!format!("{rotating:?}").contains("abc"));
        let short = granted(read(
            Kind::ClientCredentials,
            r#"{"access_token":"abc","expires_in":"60"}"#,
            &[],
        ));
        assert_eq!(short.renew_after, Duration::from_secs(30));
    }

    #[test]
    fn a_token_goes_into_the_header_that_the_file_names() {
        let own = Carried::compile("X-Amz-Access-Token", "{{ token }}").expect("compiles");
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(own.of("Atza|a"), pair("x-amz-access-token", "Atza|a"));
        let scheme = Carried::compile("authorization", "KakaoAK {{ token }}").expect("compiles");
        assert_eq!(scheme.of("k"), pair("authorization", "KakaoAK k"));
    }

    #[test]
    fn the_sample_of_http_basic() {
        let sample = "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==";
        assert_eq!(basic("Aladdin", "open sesame").expect("encodes"), sample);
        assert!(basic("a:b", "c").is_err());
    }

    #[test]
    fn an_answer_without_a_token_is_asked_again() {
        for body in [
            "<html>busy</html>",
            "",
            "{}",
            r#"{"access_token":""}"#,
            r#"{"access_token":7}"#,
            "{\"access_token\":\"a\\r\\nx: y\"}",
        ] {
            let answer = read(Kind::ClientCredentials, body, &[]);
            assert!(
                matches!(answer, TokenAnswer::Again(_)),
                "{body}: {answer:?}"
            );
        }
    }

    #[test]
    fn the_cookies_of_a_log_in() {
        let session = Kind::Session {
            lasts: Duration::from_secs(1800),
        };
        let cookies = [
            "SID=1; Path=/; HttpOnly",
            "old=x; Max-Age=0",
            "SID=2; Max-Age=600",
            "lang=ko",
        ];
        let got = granted(read(session, "", &cookies));
        assert_eq!(
            got.token.headers,
            [("cookie".into(), "SID=2; lang=ko".into())]
        );
        assert_eq!(got.lasts, Duration::from_secs(600));
        let none = read(session, "<html>wrong password</html>", &["old=; Max-Age=0"]);
        assert!(matches!(none, TokenAnswer::Refused(_)));
    }

    #[test]
    fn a_token_comes_back_from_its_bytes() {
        let token = Token {
            headers: vec![("cookie".into(), "a=b".into())],
        };
        assert_eq!(Token::from_bytes(&token.to_bytes()), Some(token));
        assert_eq!(Token::from_bytes(b"x"), None);
    }
}
