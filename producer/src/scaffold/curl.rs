//! Reads a curl command line: what it calls, with what, and what in it is a secret.
//!
//! What a provider file cannot say is refused with its reason: a draft that leaves something out silently
//! would call another thing than the command did.

use url::Url;

use paceline_protocol::spec::is_secret_segment;

use super::command_line;
use super::provider::{Call, Send};
use super::secrets::{Secrets, is_secret};

/// Why a command line cannot be taken over.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CurlError {
    /// A quote that is not closed.
    #[error("the command line cannot be split into words: a quote is not closed")]
    Quotes,
    /// No URL among the words.
    #[error("there is no URL in it")]
    NoUrl,
    /// More than one.
    #[error(
        "`{0}` and `{1}` both look like its URL; a provider's endpoint has one: write one command for each"
    )]
    TwoUrls(String, String),
    /// A URL that is none, or not of HTTP.
    #[error("`{0}` is not an http or https URL")]
    BadUrl(String),
    /// A method that a provider file cannot say.
    #[error("provider files call with GET and POST, not with {0}")]
    Method(String),
    /// An option without its value.
    #[error("`{0}` wants a value")]
    Bare(String),
    /// Something that provider files do not have.
    #[error("`{0}`: {1}")]
    Unsaid(String, &'static str),
    /// A file that only the shell's folder has.
    #[error("`{0}` is read from a file; put the file's text into the command")]
    File(String),
    /// A body that is neither a JSON document nor XML nor a form.
    #[error(
        "the body is neither JSON nor XML nor a form; write it by hand (`json:`, `form:`, `xml:`)"
    )]
    Body,
    /// What templates would read.
    #[error(
        "`{0}` holds {{{{, {{%, {{# or ${{, which provider files read as templates; replace it first"
    )]
    Template(String),
}

/// The path, with its secrets taken out.
fn path(url: &Url, secrets: &mut Secrets) -> Result<String, CurlError> {
    let segment = |segment: &str| match is_secret_segment(segment) {
        true => Ok(secrets.template("key", segment)),
        false => literal(segment.to_owned()),
    };
    let segments: Result<Vec<String>, CurlError> = url.path().split('/').map(segment).collect();
    Ok(segments?.join("/"))
}

/// What is called by a GET of a URL.
///
/// # Errors
/// As [`from_curl`].
pub fn from_url(url: &str) -> Result<Call, CurlError> {
    // A quote cannot be part of a URL.
    match url.contains(['\'', '"', '\\']) || url.split_whitespace().count() != 1 {
        true => Err(CurlError::BadUrl(url.to_owned())),
        false => from_curl(&format!("curl '{}'", url.trim())),
    }
}

/// Letters of short options that take a value.
const WITH_VALUE: &str = "AbcCdDeEFHKmoPQrtTuUwxXyYz";
/// Long options that take a value which does not matter here.
const IGNORED_WITH_VALUE: [&str; 46] = [
    "--alt-svc",
    "--cacert",
    "--capath",
    "--ciphers",
    "--connect-timeout",
    "--connect-to",
    "--continue-at",
    "--cookie-jar",
    "--crlfile",
    "--curves",
    "--dns-interface",
    "--dns-ipv4-addr",
    "--dns-ipv6-addr",
    "--dns-servers",
    "--doh-url",
    "--dump-header",
    "--etag-compare",
    "--etag-save",
    "--expect100-timeout",
    "--happy-eyeballs-timeout-ms",
    "--hsts",
    "--interface",
    "--keepalive-time",
    "--limit-rate",
    "--local-port",
    "--max-filesize",
    "--max-redirs",
    "--max-time",
    "--noproxy",
    "--output",
    "--output-dir",
    "--pinnedpubkey",
    "--preproxy",
    "--proto",
    "--proto-default",
    "--proto-redir",
    "--proxy",
    "--proxy-header",
    "--proxy-user",
    "--resolve",
    "--retry",
    "--retry-delay",
    "--retry-max-time",
    "--speed-limit",
    "--speed-time",
    "--write-out",
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
/// Kinds of body that are sent under this name anyway.
const OWN_TYPES: [&str; 5] = [
    "application/json",
    "application/x-www-form-urlencoded",
    "application/xml",
    "text/xml",
    "text/plain",
];

/// The call that `command` makes.
///
/// # Errors
/// When it cannot be written as a provider file.
pub fn from_curl(command: &str) -> Result<Call, CurlError> {
    let mut words = command_line::words(command).ok_or(CurlError::Quotes)?;
    let curl = words.iter().position(|word| is_curl(word));
    if let Some(place) = curl {
        words.drain(..=place);
    }
    let mut read = Read::default();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        read.word(word, &mut words)?;
    }
    // curl takes any word for a host; without its name the words may be another program's.
    let is_url = read.url.as_ref().is_some_and(|url| url.contains("://"));
    if curl.is_none() && !is_url {
        return Err(CurlError::NoUrl);
    }
    read.call()
}

fn is_curl(word: &str) -> bool {
    let name = word.rsplit(['/', '\\']).next().unwrap_or(word);
    matches!(name, "curl" | "curl.exe")
}

#[derive(Default)]
struct Read {
    url: Option<String>,
    method: Option<String>,
    headers: Vec<(String, String)>,
    user: Option<String>,
    data: Vec<Data>,
    json: bool,
    in_query: bool,
}

/// One piece of data.
enum Data {
    /// As it is sent.
    Raw(String),
    /// A name, which may be empty, and a value that curl encodes.
    Encoded(String, String),
}

impl Read {
    fn word(
        &mut self,
        word: String,
        rest: &mut impl Iterator<Item = String>,
    ) -> Result<(), CurlError> {
        if word.starts_with("--") && word.len() > 2 {
            let (option, joined) = match word.split_once('=') {
                Some((option, value)) => (option.to_owned(), Some(value.to_owned())),
                None => (word, None),
            };
            return self.option(&option, joined, rest);
        }
        match word.strip_prefix('-').filter(|letters| !letters.is_empty()) {
            Some(letters) => self.letters(letters, rest),
            None => self.is_url(word),
        }
    }

    /// `-sXPOST` is `-s -X POST`.
    fn letters(
        &mut self,
        letters: &str,
        rest: &mut impl Iterator<Item = String>,
    ) -> Result<(), CurlError> {
        for (place, letter) in letters.char_indices() {
            let option = format!("-{letter}");
            if !WITH_VALUE.contains(letter) {
                self.option(&option, None, rest)?;
                continue;
            }
            let joined = &letters[place + letter.len_utf8()..];
            let joined = (!joined.is_empty()).then(|| joined.to_owned());
            return self.option(&option, joined, rest);
        }
        Ok(())
    }

    fn option(
        &mut self,
        option: &str,
        joined: Option<String>,
        rest: &mut impl Iterator<Item = String>,
    ) -> Result<(), CurlError> {
        let mut value = || {
            let value = joined.clone().or_else(|| rest.next());
            value.ok_or_else(|| CurlError::Bare(option.to_owned()))
        };
        let unsaid = |why| Err(CurlError::Unsaid(option.to_owned(), why));
        match option {
            "-X" | "--request" => self.method = Some(value()?.to_ascii_uppercase()),
            "-H" | "--header" => self.header(&value()?)?,
            "-b" | "--cookie" => {
                let cookie = value()?;
                if !cookie.contains('=') {
                    return Err(CurlError::File(format!("{option} {cookie}")));
                }
                self.headers.push(("cookie".into(), cookie));
            }
            "-u" | "--user" => self.user = Some(value()?),
            "--oauth2-bearer" => {
                let token = format!("Bearer {}", value()?);
                self.headers.push(("authorization".into(), token));
            }
            "-e" | "--referer" => {
                let referer = value()?;
                self.headers.push(("referer".into(), referer));
            }
            // Said by hand, unlike the one that a browser copies: some providers ask for it.
            "-A" | "--user-agent" => {
                let agent = value()?;
                self.headers.push(("user-agent".into(), agent));
            }
            "-r" | "--range" => {
                let range = format!("bytes={}", value()?);
                self.headers.push(("range".into(), range));
            }
            "-d" | "--data" | "--data-binary" | "--data-ascii" | "--json" => {
                let data = value()?;
                if data.starts_with('@') {
                    return Err(CurlError::File(format!("{option} {data}")));
                }
                self.json |= option == "--json";
                self.data.push(Data::Raw(data));
            }
            "--data-raw" => self.data.push(Data::Raw(value()?)),
            "--data-urlencode" | "--url-query" => {
                let data = encoded(option, value()?)?;
                self.data.push(data);
                self.in_query |= option == "--url-query";
            }
            "-G" | "--get" => self.in_query = true,
            "-I" | "--head" => return Err(CurlError::Method("HEAD".into())),
            "--url" => {
                let url = value()?;
                self.is_url(url)?;
            }
            "-F" | "--form" | "--form-string" => {
                return unsaid("provider files send no multipart forms");
            }
            "-T" | "--upload-file" => return unsaid("provider files send no files"),
            "-K" | "--config" => return Err(CurlError::File(option.to_owned())),
            "-E" | "--cert" | "--key" | "--pass" => {
                return unsaid("provider files have no client certificates");
            }
            "--aws-sigv4" | "--digest" | "--ntlm" | "--negotiate" | "--anyauth" => {
                return unsaid(
                    "provider files do not sign in this way; see `auth` for those that they know",
                );
            }
            "-:" | "--next" => {
                return unsaid("a provider's endpoint is one call: write one command for each");
            }
            ignored if takes_a_value(ignored) => drop(value()?),
            _ => {}
        }
        Ok(())
    }

    fn is_url(&mut self, word: String) -> Result<(), CurlError> {
        match self.url.take() {
            Some(first) => Err(CurlError::TwoUrls(first, word)),
            None => {
                self.url = Some(word);
                Ok(())
            }
        }
    }

    fn header(&mut self, text: &str) -> Result<(), CurlError> {
        if text.starts_with('@') {
            return Err(CurlError::File(format!("-H {text}")));
        }
        // `name:` without a value takes a header of curl's own away; `name;` sends it empty.
        let pair = text
            .split_once(':')
            .map(|(name, value)| (name, value.trim()));
        if let Some((name, value)) = pair.filter(|(_, value)| !value.is_empty()) {
            self.headers
                .push((name.trim().to_ascii_lowercase(), value.to_owned()));
        }
        Ok(())
    }

    fn call(mut self) -> Result<Call, CurlError> {
        let url = self.parsed_url()?;
        let post = self.is_post()?;
        let mut secrets = Secrets::default();
        let mut call = Call {
            base_url: url.origin().ascii_serialization(),
            path: path(&url, &mut secrets)?,
            post,
            ..Call::default()
        };
        let mut query: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        if self.in_query {
            query.extend(self.pairs());
        } else {
            call.body = self.body(&mut secrets)?;
        }
        for (name, value) in query {
            if is_secret(&name, &value) {
                let template = secrets.template(&name, &value);
                call.auth_query.push((name, template));
            } else {
                call.query.push((name, literal(value)?));
            }
        }
        if let Some(user) = self.user.take() {
            let template = secrets.basic(&user);
            call.auth_headers.push(("authorization".into(), template));
        }
        for (name, value) in together(std::mem::take(&mut self.headers)) {
            if is_secret(&name, &value) {
                let template = secrets.header(&name, &value);
                call.auth_headers.push((name, template));
            } else if !OWN_HEADERS.contains(&name.as_str()) || is_odd_type(&name, &value) {
                call.headers.push((name, literal(value)?));
            }
        }
        call.credential_fields(secrets.fields());
        Ok(call)
    }

    /// Without a scheme it is plain HTTP, as for curl.
    fn parsed_url(&mut self) -> Result<Url, CurlError> {
        let typed = self.url.take().ok_or(CurlError::NoUrl)?;
        let whole = match typed.contains("://") {
            true => typed.clone(),
            false => format!("http://{typed}"),
        };
        let bad = || CurlError::BadUrl(typed.clone());
        let url = Url::parse(&whole).map_err(|_| bad())?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(bad());
        }
        if !url.username().is_empty() && self.user.is_none() {
            let decoded = |text: &str| {
                let text = percent_encoding::percent_decode_str(text);
                text.decode_utf8_lossy().into_owned()
            };
            let password = url.password().unwrap_or_default();
            self.user = Some(format!("{}:{}", decoded(url.username()), decoded(password)));
        }
        Ok(url)
    }

    fn is_post(&self) -> Result<bool, CurlError> {
        let sends = !self.data.is_empty() && !self.in_query;
        match self.method.as_deref() {
            Some("GET") if sends => Err(CurlError::Unsaid(
                "-X GET".into(),
                "a GET of a provider file has no body; many such APIs take the same by POST",
            )),
            Some("GET") => Ok(false),
            Some("POST") => Ok(true),
            Some(other) => Err(CurlError::Method(other.to_owned())),
            None => Ok(sends),
        }
    }

    fn pairs(&self) -> Vec<(String, String)> {
        let mut all = Vec::new();
        for data in &self.data {
            match data {
                Data::Raw(text) => all.extend(pairs(text)),
                Data::Encoded(name, value) => all.push((name.clone(), value.clone())),
            }
        }
        all
    }

    fn body(&self, secrets: &mut Secrets) -> Result<Option<Send>, CurlError> {
        if self.data.is_empty() {
            return Ok(None);
        }
        let separator = if self.json { "" } else { "&" };
        let raw: Vec<&str> = self.data.iter().filter_map(Data::raw).collect();
        let text = (raw.len() == self.data.len()).then(|| raw.join(separator));
        let typed = |part: &str| {
            self.headers
                .iter()
                .any(|(n, v)| n == "content-type" && v.contains(part))
        };
        if let Some(text) = &text {
            literal(text.clone()).map_err(|_| CurlError::Template("the body".into()))?;
            match serde_json::from_str::<serde_json::Value>(text) {
                Ok(mut json)
                    if self.json || typed("json") || json.is_object() || json.is_array() =>
                {
                    hide(&mut json, secrets);
                    return Ok(Some(Send::Json(json)));
                }
                _ if self.json || typed("json") => return Err(CurlError::Body),
                _ if typed("xml") && text.trim_start().starts_with('<') => {
                    return Ok(Some(Send::Xml(text.clone())));
                }
                _ if typed("xml") => return Err(CurlError::Body),
                _ => {}
            }
        }
        if text.is_some_and(|text| !text.contains('=')) {
            return Err(CurlError::Body);
        }
        let mut form = Vec::new();
        for (name, value) in self.pairs() {
            let value = match is_secret(&name, &value) {
                true => secrets.template(&name, &value),
                false => literal(value)?,
            };
            form.push((name, value));
        }
        Ok(Some(Send::Form(form)))
    }
}

impl Data {
    fn raw(&self) -> Option<&str> {
        match self {
            Data::Raw(text) => Some(text),
            Data::Encoded(..) => None,
        }
    }
}

fn takes_a_value(option: &str) -> bool {
    let letter = option.strip_prefix('-').filter(|rest| rest.len() == 1);
    letter.is_some_and(|letter| WITH_VALUE.contains(letter)) || IGNORED_WITH_VALUE.contains(&option)
}

/// `content`, `=content`, `name=content`; with an @ it is a file's.
fn encoded(option: &str, text: String) -> Result<Data, CurlError> {
    match text.find(['=', '@']) {
        Some(place) if text[place..].starts_with('@') => {
            Err(CurlError::File(format!("{option} {text}")))
        }
        Some(place) => Ok(Data::Encoded(
            text[..place].to_owned(),
            text[place + 1..].to_owned(),
        )),
        None => Ok(Data::Encoded(text, String::new())),
    }
}

/// Secrets of a JSON body become templates.
fn hide(json: &mut serde_json::Value, secrets: &mut Secrets) {
    match json {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    serde_json::Value::String(text) if is_secret(name, text) => {
                        *value = secrets.template(name, text).into();
                    }
                    below => hide(below, secrets),
                }
            }
        }
        serde_json::Value::Array(list) => list.iter_mut().for_each(|below| hide(below, secrets)),
        _ => {}
    }
}

/// Headers that come twice are one with both values, as HTTP has it.
fn together(headers: Vec<(String, String)>) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    for (name, value) in headers {
        match all.iter_mut().find(|(known, _)| *known == name) {
            Some((name, known)) => {
                *known += if name == "cookie" { "; " } else { ", " };
                *known += &value;
            }
            None => all.push((name, value)),
        }
    }
    all
}

/// A kind of body that the client would not say by itself.
fn is_odd_type(name: &str, value: &str) -> bool {
    let kind = value.split(';').next().unwrap_or_default().trim();
    name == "content-type" && !OWN_TYPES.contains(&kind.to_ascii_lowercase().as_str())
}

fn pairs(text: &str) -> Vec<(String, String)> {
    url::form_urlencoded::parse(text.as_bytes())
        .into_owned()
        .collect()
}

fn literal(text: String) -> Result<String, CurlError> {
    match ["{{", "{%", "{#", "${"]
        .iter()
        .any(|mark| text.contains(mark))
    {
        true => Err(CurlError::Template(text)),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_another_program_are_no_url() {
        assert_eq!(from_curl("ls -la").err(), Some(CurlError::NoUrl));
        assert!(from_curl("https://api.example/v1/items").is_ok());
        assert!(from_curl("curl api.example/v1/items").is_ok());
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[track_caller]
    fn reads(command: &str) -> Call {
        let call = from_curl(command).unwrap_or_else(|error| panic!("{command}: {error}"));
        assert!(!format!("{call:?}").contains("SECRET"), "{call:?}");
        call
    }

    #[track_caller]
    fn refuses(command: &str, says: &str) {
        let error = from_curl(command).expect_err(command).to_string();
        assert!(error.contains(says), "{command}: {error}");
        assert!(!error.contains("SECRET"), "{error}");
    }

    #[test]
    fn secrets_go_to_the_environment() {
        let call = reads(
            "curl -s 'https://api.example.com/v1/search?q=a%20b&api_key=SECRET1' -H 'Authorization: Bearer SECRET2' -H 'Accept: application/json' -H 'X-Api-Key: SECRET1'",
        );
        assert_eq!(call.base_url, "https://api.example.com");
        assert_eq!(call.path, "/v1/search");
        assert_eq!(call.query, [pair("q", "a b")]);
        assert_eq!(call.headers, [pair("accept", "application/json")]);
        assert_eq!(
            call.auth_query,
            [pair("api_key", "{{ credential.api_key }}")]
        );
        let headers = [
            pair("authorization", "Bearer {{ credential.authorization }}"),
            pair("x-api-key", "{{ credential.api_key }}"),
        ];
        assert_eq!(call.auth_headers, headers);
        assert_eq!(call.fields, ["api_key", "authorization"]);
    }

    #[test]
    fn one_secret_is_the_key() {
        let call = reads("curl https://a.test/x -H 'Authorization: KakaoAK SECRET'");
        let header = pair("authorization", "KakaoAK {{ credential.key }}");
        assert_eq!((call.auth_headers, call.fields.len()), (vec![header], 0));
        for command in [
            "curl -u bob:SECRET https://a.test/x",
            "curl -subob:SECRET https://a.test/x",
            "curl https://bob:SECRET@a.test/x",
        ] {
            let header = pair("authorization", "Basic {{ credential.key | base64 }}");
            let call = reads(command);
            assert_eq!(
                (call.base_url.as_str(), call.auth_headers),
                ("https://a.test", vec![header])
            );
        }
        let call = reads("curl --oauth2-bearer SECRET https://a.test/x");
        assert_eq!(
            call.auth_headers,
            [pair("authorization", "Bearer {{ credential.key }}")]
        );
    }

    #[test]
    fn secrets_of_a_body_too() {
        let call = reads(
            r#"curl https://a.test/x --json '{"id": "c", "client_secret": "SECRET1", "of": [{"password": "SECRET2"}]}'"#,
        );
        let json = serde_json::json!({
            "id": "c", "client_secret": "{{ credential.client_secret }}",
            "of": [{"password": "{{ credential.password }}"}]
        });
        assert_eq!(call.body, Some(Send::Json(json)));
        let call = reads("curl https://a.test/x -d grant_type=b -d client_secret=SECRET");
        let form = vec![
            pair("grant_type", "b"),
            pair("client_secret", "{{ credential.key }}"),
        ];
        assert_eq!(call.body, Some(Send::Form(form)));
    }

    #[test]
    fn bodies_are_json_or_forms_or_xml() {
        let call = reads(r#"curl example.com/x -d '{"a": [1, 2]}'"#);
        assert!(call.post);
        assert_eq!(
            call.body,
            Some(Send::Json(serde_json::json!({"a": [1, 2]})))
        );
        let call = reads("curl --url=http://example.com/x -d a=1 -d b=2");
        let form = vec![pair("a", "1"), pair("b", "2")];
        assert_eq!(call.body, Some(Send::Form(form)));
        let call = reads("curl http://example.com/x -H 'content-type: text/xml' -d '<a>1</a>'");
        assert_eq!(call.body, Some(Send::Xml("<a>1</a>".into())));
        let call = reads("curl -G http://example.com/x -d a=1 --data-urlencode 'b=c d+e&f'");
        assert_eq!(call.query, [pair("a", "1"), pair("b", "c d+e&f")]);
        assert!(!call.post && call.body.is_none());
        let call =
            reads("curl http://example.com/x -H 'Content-Type: application/vnd.api+json' -d '{}'");
        assert_eq!(
            call.headers,
            [pair("content-type", "application/vnd.api+json")]
        );
    }

    #[test]
    fn options_as_people_and_browsers_write_them() {
        let call = reads(
            r#"curl -sSL -XPOST -H'X-Odd: 1' -H 'X-Odd: 2' -d'{"a":1}' --max-redirs 3 https://a.test/x --compressed"#,
        );
        assert!(call.post && call.body.is_some());
        assert_eq!(call.headers, [pair("x-odd", "1, 2")]);
        let call = reads(
            "$ LANG=C /usr/bin/curl 'https://a.test/x?t=1&t=2' \\\n -b 'sid=SECRET' -H 'Accept:' | jq . > out.json",
        );
        assert_eq!(call.query, [pair("t", "1"), pair("t", "2")]);
        assert_eq!(call.auth_headers, [pair("cookie", "{{ credential.key }}")]);
        let call = reads("curl 'https://a.test/x' --data-raw $'{\"q\":\"it\\'s\"}'");
        assert_eq!(
            call.body,
            Some(Send::Json(serde_json::json!({"q": "it's"})))
        );
        let call = reads("curl -e https://a.test/ -r 0-9 https://a.test/x");
        assert_eq!(
            call.headers,
            [
                pair("referer", "https://a.test/"),
                pair("range", "bytes=0-9")
            ]
        );
    }

    #[test]
    fn what_no_file_can_say_is_refused() {
        refuses("curl 'a", "quote");
        refuses("curl -s", "no URL");
        refuses("curl x -X", "`-X` wants a value");
        refuses("curl -X PUT http://a/", "not with PUT");
        refuses("curl -sXDELETE http://a/", "not with DELETE");
        refuses("curl -I http://a/", "not with HEAD");
        refuses("curl -XGET http://a/ -d a=1", "no body");
        refuses("curl ftp://a/b", "no");
        refuses("curl http://a/ http://b/", "both");
        refuses("curl http://a/ --next http://b/", "one command for each");
        refuses("curl 'http://a/?q=${HOME}'", "templates");
        refuses("curl 'http://a/?q=%7B%25'", "templates");
        refuses("curl http://a/ -d @body.json", "put the file's text");
        refuses(
            "curl http://a/ --data-urlencode q@file",
            "put the file's text",
        );
        refuses("curl http://a/ -b jar.txt", "put the file's text");
        refuses("curl http://a/ -F a=b", "multipart");
        refuses("curl http://a/ -d hello", "neither JSON");
        refuses("curl http://a/ --json hello", "neither JSON");
        refuses("curl http://a/ --digest -u bob:SECRET", "sign in");
        refuses("curl http://a/ --cert me.pem:SECRET", "certificates");
    }
}
