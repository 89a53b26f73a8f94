//! Reads a curl command line: what it calls, with what, and what in it is a secret.

use url::Url;

use super::provider::{Call, Send};

/// Why a command line cannot be taken over.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CurlError {
    /// A quote that is not closed.
    #[error("the command line cannot be split into words: a quote is not closed")]
    Quotes,
    /// No URL among the words.
    #[error("there is no URL in it")]
    NoUrl,
    /// A URL that is none, or not of HTTP.
    #[error("`{0}` is not an http or https URL")]
    BadUrl(String),
    /// A method that a provider file cannot say.
    #[error("provider files call with GET and POST, not with {0}")]
    Method(String),
    /// An option without its value.
    #[error("`{0}` wants a value")]
    Bare(String),
    /// A body that is neither a JSON object nor a form.
    #[error("the body is neither JSON nor a form; write its `xml:` or `json:` by hand")]
    Body,
    /// What templates would read.
    #[error("`{0}` holds {{{{ or ${{, which provider files read as templates; replace it first")]
    Template(String),
}

/// Options of curl that take a value which does not matter here.
const IGNORED_WITH_VALUE: [&str; 10] = [
    "-o",
    "--output",
    "-m",
    "--max-time",
    "--connect-timeout",
    "--retry",
    "-w",
    "--write-out",
    "-x",
    "--proxy",
];
/// Headers that the client sets by itself.
const OWN_HEADERS: [&str; 6] = [
    "host",
    "content-length",
    "connection",
    "accept-encoding",
    "user-agent",
    "content-type",
];
/// Words in a name that tell a secret.
const SECRET: [&str; 8] = [
    "authorization",
    "key",
    "token",
    "secret",
    "password",
    "signature",
    "cookie",
    "session",
];

/// The call that `command` makes.
///
/// # Errors
/// When it cannot be written as a provider file.
pub fn from_curl(command: &str) -> Result<Call, CurlError> {
    let words = shlex::split(command).ok_or(CurlError::Quotes)?;
    let mut read = Read::default();
    let mut words = words.into_iter().skip_while(|w| w == "$");
    while let Some(word) = words.next() {
        read.word(word, &mut words)?;
    }
    read.call()
}

#[derive(Default)]
struct Read {
    url: Option<String>,
    method: Option<String>,
    headers: Vec<(String, String)>,
    data: Vec<String>,
    json: bool,
    in_query: bool,
}

impl Read {
    fn word(
        &mut self,
        word: String,
        rest: &mut impl Iterator<Item = String>,
    ) -> Result<(), CurlError> {
        let (option, joined) = match word.split_once('=') {
            Some((option, value)) if option.starts_with("--") => {
                (option.to_owned(), Some(value.to_owned()))
            }
            _ => (word, None),
        };
        let mut value = || {
            joined
                .clone()
                .or_else(|| rest.next())
                .ok_or_else(|| CurlError::Bare(option.clone()))
        };
        match option.as_str() {
            "-X" | "--request" => self.method = Some(value()?.to_ascii_uppercase()),
            "-H" | "--header" => self.header(&value()?),
            "-b" | "--cookie" => {
                let cookie = value()?;
                self.headers.push(("cookie".into(), cookie));
            }
            "-u" | "--user" => {
                value()?;
                self.headers
                    .push(("authorization".into(), "Basic secret".into()));
            }
            "-A" | "--user-agent" | "-e" | "--referer" => drop(value()?),
            "-d" | "--data" | "--data-raw" | "--data-binary" | "--data-ascii"
            | "--data-urlencode" => {
                let data = value()?;
                self.data.push(data);
            }
            "--json" => {
                let data = value()?;
                self.json = true;
                self.data.push(data);
            }
            "-G" | "--get" => self.in_query = true,
            "--url" => self.url = Some(value()?),
            ignored if IGNORED_WITH_VALUE.contains(&ignored) => drop(value()?),
            "curl" => {}
            flag if flag.starts_with('-') => {}
            url => self.url = Some(url.to_owned()),
        }
        Ok(())
    }

    fn header(&mut self, text: &str) {
        if let Some((name, value)) = text.split_once(':') {
            self.headers
                .push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    fn call(self) -> Result<Call, CurlError> {
        let typed = self.url.clone().ok_or(CurlError::NoUrl)?;
        let whole = if typed.contains("://") {
            typed.clone()
        } else {
            format!("https://{typed}")
        };
        let bad = || CurlError::BadUrl(typed.clone());
        let url = Url::parse(&whole).map_err(|_| bad())?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(bad());
        }
        let body = if self.in_query { None } else { self.body()? };
        let post = match self.method.as_deref() {
            Some("GET") => false,
            Some("POST") => true,
            Some(other) => return Err(CurlError::Method(other.to_owned())),
            None => body.is_some(),
        };
        let mut call = Call {
            base_url: url.origin().ascii_serialization(),
            path: url.path().to_owned(),
            post,
            body,
            ..Call::default()
        };
        let mut query: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        if self.in_query {
            query.extend(self.data.iter().flat_map(|data| pairs(data)));
        }
        for (name, value) in query {
            if is_secret(&name) {
                call.auth_query.push(name);
            } else {
                call.query.push((name, literal(value)?));
            }
        }
        for (name, value) in self.headers {
            if is_secret(&name) {
                call.auth_headers.push((name, without_secret(&value)));
            } else if !OWN_HEADERS.contains(&name.as_str()) {
                call.headers.push((name, literal(value)?));
            }
        }
        literal(call.path.clone())?;
        Ok(call)
    }

    fn body(&self) -> Result<Option<Send>, CurlError> {
        if self.data.is_empty() {
            return Ok(None);
        }
        let text = self.data.join("&");
        literal(text.clone())?;
        let typed = |part: &str| {
            self.headers
                .iter()
                .any(|(n, v)| n == "content-type" && v.contains(part))
        };
        let json = serde_json::from_str::<serde_json::Value>(&text);
        match json {
            Ok(json) if self.json || typed("json") || json.is_object() => {
                Ok(Some(Send::Json(json)))
            }
            _ if self.json || typed("json") || typed("xml") => Err(CurlError::Body),
            _ => Ok(Some(Send::Form(pairs(&text)))),
        }
    }
}

fn pairs(text: &str) -> Vec<(String, String)> {
    url::form_urlencoded::parse(text.as_bytes())
        .into_owned()
        .collect()
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    // `keyword` is none.
    SECRET.iter().any(|word| name.contains(word)) && !name.contains("keyword")
}

/// `Bearer abc` keeps its first word; the secret never reaches the file.
fn without_secret(value: &str) -> String {
    match value.split_once(' ') {
        Some((scheme, _)) if scheme.chars().all(|c| c.is_ascii_alphanumeric()) => {
            format!("{scheme} {{{{ credential.key }}}}")
        }
        _ => "{{ credential.key }}".to_owned(),
    }
}

fn literal(text: String) -> Result<String, CurlError> {
    match text.contains("{{") || text.contains("${") {
        true => Err(CurlError::Template(text)),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_to_the_environment() {
        let call = from_curl(
            "curl -s 'https://api.example.com/v1/search?q=a%20b&api_key=SECRET1' -H 'Authorization: Bearer SECRET2' -H 'Accept: application/json' -H 'X-Api-Key: SECRET3'",
        )
        .expect("read");
        assert_eq!(call.base_url, "https://api.example.com");
        assert_eq!(call.path, "/v1/search");
        assert_eq!(call.query, [("q".into(), "a b".into())]);
        assert_eq!(call.auth_query, ["api_key"]);
        assert_eq!(call.headers, [("accept".into(), "application/json".into())]);
        assert!(!format!("{call:?}").contains("SECRET"));
        assert_eq!(call.auth_headers[0].1, "Bearer {{ credential.key }}");
        assert_eq!(call.auth_headers[1].1, "{{ credential.key }}");
    }

    #[test]
    fn bodies_are_json_or_forms() {
        let call = from_curl(r#"curl example.com/x -d '{"a": [1, 2]}'"#).expect("read");
        assert!(call.post);
        assert_eq!(
            call.body,
            Some(Send::Json(serde_json::json!({"a": [1, 2]})))
        );
        let call = from_curl("curl --url=http://example.com/x -d a=1 -d b=2").expect("read");
        let form = vec![
            ("a".to_owned(), "1".to_owned()),
            ("b".to_owned(), "2".to_owned()),
        ];
        assert_eq!(call.body, Some(Send::Form(form)));
        let call = from_curl("curl -G http://example.com/x -d a=1").expect("read");
        assert_eq!((call.post, call.query.len()), (false, 1));
    }

    #[test]
    fn what_no_file_can_say_is_refused() {
        assert_eq!(from_curl("curl 'a"), Err(CurlError::Quotes));
        assert_eq!(from_curl("curl -s"), Err(CurlError::NoUrl));
        assert_eq!(from_curl("curl x -X"), Err(CurlError::Bare("-X".into())));
        assert_eq!(
            from_curl("curl -X PUT http://a/"),
            Err(CurlError::Method("PUT".into()))
        );
        assert!(matches!(
            from_curl("curl ftp://a/b"),
            Err(CurlError::BadUrl(_))
        ));
        assert!(matches!(
            from_curl("curl 'http://a/?q=${HOME}'"),
            Err(CurlError::Template(_))
        ));
    }
}
