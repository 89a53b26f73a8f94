//! Building one request. Everything that a template produces is encoded where it lands.

use minijinja::value::Value;
use minijinja::{Error, ErrorKind};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::sign::Signer;
use super::steps::Asked;
use super::{CallContext, CompileError, Connector};
use crate::spec::{Auth, Method, Provider, Request, RequestBody, json_parameter};
use crate::template::{
    Compiled, Templates, as_text, environment, said, value_of, whole_expression,
};

/// Unreserved characters of RFC 3986 stay, everything else is encoded.
pub(super) const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A request, ready to be sent. Holds secrets: never shown as it is.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// GET or POST.
    pub method: Method,
    /// The whole URL.
    pub url: String,
    /// Lower-case names and their values.
    pub headers: Vec<(String, String)>,
    /// Content type and bytes.
    pub body: Option<(&'static str, Vec<u8>)>,
}

/// Why a cell has no request: a value that does not fit where it lands. Asking again gives the same.
#[derive(Debug, thiserror::Error)]
#[error("no request can be built: {0}")]
pub struct NotRequestable(pub(super) String);

/// The templates of an endpoint's request.
#[derive(Debug)]
pub(super) struct RequestTemplates {
    method: Method,
    base_url: String,
    /// In an environment of its own, whose output is encoded for a path.
    paths: Templates,
    path: Compiled,
    query: Vec<(String, Compiled)>,
    /// From this place on, `query` is what authorises.
    own_query: usize,
    headers: Vec<(String, Compiled)>,
    body: Option<Body>,
    signers: Vec<Signer>,
}

#[derive(Debug)]
enum Body {
    Json(JsonTemplate),
    Form(Vec<(String, Compiled)>),
    /// In an environment of its own, whose output is encoded for XML.
    Xml(Box<Templates>, Compiled),
}

/// A JSON value whose texts are templates; a text that is one whole `{{ }}` keeps its type.
#[derive(Debug)]
pub(super) enum JsonTemplate {
    Fixed(serde_json::Value),
    Name(String),
    /// Anything else in one `{{ }}`.
    Expression(String),
    Text(Compiled),
    List(Vec<JsonTemplate>),
    Object(Vec<(String, JsonTemplate)>),
}

impl RequestTemplates {
    pub(super) fn compile(
        provider: &Provider,
        request: &Request,
        templates: &mut Templates,
    ) -> Result<Self, CompileError> {
        let base_url = provider.base_url.clone().unwrap_or_default();
        let mut paths = Templates::new(path_environment());
        let path = compile(&mut paths, &request.path)?;
        let mut query = compile_pairs(templates, &request.query)?;
        let mut headers = Vec::new();
        for (name, value) in &request.headers {
            headers.push((name.to_ascii_lowercase(), compile(templates, value)?));
        }
        let own_query = query.len();
        for auth in &provider.auth {
            compile_auth(auth, templates, &mut query, &mut headers)?;
        }
        Ok(RequestTemplates {
            method: request.method,
            base_url: base_url.trim_end_matches('/').to_owned(),
            paths,
            path,
            query,
            own_query,
            headers,
            body: compile_body(request, templates)?,
            signers: Signer::compile_all(&provider.auth, templates)?,
        })
    }
}

pub(super) fn compile(templates: &mut Templates, source: &str) -> Result<Compiled, CompileError> {
    templates
        .compile(source)
        .map_err(|e| CompileError::syntax(source, e))
}

fn compile_auth(
    auth: &Auth,
    templates: &mut Templates,
    query: &mut Vec<(String, Compiled)>,
    headers: &mut Vec<(String, Compiled)>,
) -> Result<(), CompileError> {
    match auth {
        Auth::Header { header, value } => {
            headers.push((header.clone(), compile(templates, value)?))
        }
        Auth::Query { query: name, value } => {
            query.push((name.clone(), compile(templates, value)?))
        }
        // Signers need the final request; tokens and sessions come with the call.
        Auth::Sign { .. } | Auth::Jwt { .. } | Auth::Oauth2 { .. } | Auth::Session { .. } => {}
    }
    Ok(())
}

/// Parameters in order; a list gives the parameter once for each of its values.
fn compile_pairs(
    templates: &mut Templates,
    pairs: &indexmap::IndexMap<String, serde_json::Value>,
) -> Result<Vec<(String, Compiled)>, CompileError> {
    let mut compiled = Vec::new();
    for (name, value) in pairs {
        let values = match value {
            serde_json::Value::Array(values) => values.as_slice(),
            one => std::slice::from_ref(one),
        };
        for value in values {
            let template = match value {
                serde_json::Value::String(source) => compile(templates, source)?,
                fixed => Compiled::Literal(as_text(&value_of(fixed))),
            };
            compiled.push((name.clone(), template));
        }
    }
    Ok(compiled)
}

fn compile_body(
    request: &Request,
    templates: &mut Templates,
) -> Result<Option<Body>, CompileError> {
    Ok(match &request.body {
        None => None,
        Some(RequestBody::Json(json)) => Some(Body::Json(compile_json(json, templates)?)),
        Some(RequestBody::Form(form)) => Some(Body::Form(compile_pairs(templates, form)?)),
        Some(RequestBody::Xml(source)) => {
            let mut documents = Templates::new(xml_environment());
            let document = compile(&mut documents, source)?;
            Some(Body::Xml(Box::new(documents), document))
        }
    })
}

pub(super) fn compile_json(
    json: &serde_json::Value,
    templates: &mut Templates,
) -> Result<JsonTemplate, CompileError> {
    Ok(match json {
        serde_json::Value::String(source) => match compile(templates, source)? {
            Compiled::Name(name) => JsonTemplate::Name(name),
            other => match whole_expression(source) {
                Some(expression) => JsonTemplate::Expression(expression.to_owned()),
                None => JsonTemplate::Text(other),
            },
        },
        serde_json::Value::Array(items) => JsonTemplate::List(
            items
                .iter()
                .map(|item| compile_json(item, templates))
                .collect::<Result<_, _>>()?,
        ),
        serde_json::Value::Object(fields) => JsonTemplate::Object(
            fields
                .iter()
                .map(|(name, value)| Ok((name.clone(), compile_json(value, templates)?)))
                .collect::<Result<_, CompileError>>()?,
        ),
        fixed => JsonTemplate::Fixed(fixed.clone()),
    })
}

/// An environment whose values are encoded as one segment of a path. A value that is `.` or `..` would
/// change which path is meant, however it is encoded, and is refused.
pub(super) fn path_environment() -> minijinja::Environment<'static> {
    let mut env = environment();
    env.set_formatter(|out, _, value| {
        let text = as_text(value);
        if value.is_undefined() {
            return Err(Error::from(ErrorKind::UndefinedError));
        }
        if text == "." || text == ".." {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                "a value in a path may not be . or ..",
            ));
        }
        out.write_str(&encode(&text)).map_err(Error::from)
    });
    env
}

/// An environment whose values are encoded as text or attributes of XML.
fn xml_environment() -> minijinja::Environment<'static> {
    let mut env = environment();
    env.set_formatter(|out, _, value| {
        if value.is_undefined() {
            return Err(Error::from(ErrorKind::UndefinedError));
        }
        let text = xml_text(&as_text(value))
            .map_err(|why| Error::new(ErrorKind::InvalidOperation, why))?;
        out.write_str(&text).map_err(Error::from)
    });
    env
}

/// Text that is only text in XML; most control characters cannot stand there in any way.
fn xml_text(text: &str) -> Result<String, &'static str> {
    let legal = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    if !text.chars().all(legal) {
        return Err("a value in XML has a character that XML cannot hold");
    }
    // In an attribute they would be read as spaces, and a carriage return anywhere as a line end.
    let escaped = quick_xml::escape::escape(text);
    let escaped = escaped.replace('\n', "&#10;").replace('\t', "&#9;");
    Ok(escaped.replace('\r', "&#13;"))
}

pub(super) fn encode(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

impl Connector {
    /// The request of one attempt; `context` holds the cell, the credential and the instant.
    ///
    /// # Errors
    /// When a value cannot stand where its template puts it.
    pub fn request(&self, context: CallContext) -> Result<HttpRequest, NotRequestable> {
        let (token, asked) = (context.token.clone(), context.asked().clone());
        let context = context.value();
        let parts = match self.steps.detail() {
            Some(detail) if asked.detail => &detail.requests,
            _ => &self.requests,
        };
        let mut url = match &asked.url {
            Some(url) => url.clone(),
            None => format!("{}{}", parts.base_url, self.render_path(parts, &context)?),
        };
        self.push_query(parts, &asked, &mut url, &context)?;
        let mut request = HttpRequest {
            method: parts.method,
            url,
            headers: self.headers(parts, &context)?,
            body: self.body(parts, &asked, &context)?,
        };
        if let Some(token) = token {
            request.headers.extend(token.headers.iter().cloned());
        }
        self.sign(&parts.signers, &mut request, &context)?;
        Ok(request)
    }

    /// The URL of the endpoint without its query, which a relative next URL begins from.
    pub(super) fn first_url(&self, context: &CallContext) -> String {
        let parts = &self.requests;
        let path = self.render_path(parts, &context.clone().value());
        format!("{}{}", parts.base_url, path.unwrap_or_default())
    }

    /// The value of a parameter of the endpoint, of its query or its body.
    pub(super) fn parameter(
        &self,
        name: &str,
        context: &CallContext,
    ) -> Result<String, NotRequestable> {
        let parts = &self.requests;
        let context = context.clone().value();
        let named = |pairs: &[(String, Compiled)]| {
            let (_, template) = pairs.iter().find(|(known, _)| known == name)?;
            Some(render(&self.templates, template, &context))
        };
        let found = match (named(&parts.query), &parts.body) {
            (Some(found), _) => Some(found?),
            (None, Some(Body::Form(pairs))) => named(pairs).transpose()?,
            (None, Some(Body::Json(template))) => {
                json_parameter(&self.json(template, &context)?, name).map(shown)
            }
            (None, Some(Body::Xml(..)) | None) => None,
        };
        found.ok_or_else(|| NotRequestable(format!("the request has no {name}")))
    }

    fn render_path(
        &self,
        parts: &RequestTemplates,
        context: &Value,
    ) -> Result<String, NotRequestable> {
        let rendered = match &parts.path {
            // A lone name is looked up without the formatter.
            Compiled::Name(_) => encode(&render(&parts.paths, &parts.path, context)?),
            other => render(&parts.paths, other, context)?,
        };
        // Each value was looked at, but two of them can make one segment.
        if rendered.split('/').any(|part| part == "." || part == "..") {
            return Err(NotRequestable("a part of the path would be . or ..".into()));
        }
        Ok(if rendered.starts_with('/') {
            rendered
        } else {
            format!("/{rendered}")
        })
    }

    /// The query, with the step's parameters in the place of the file's. A URL that an answer gave has its
    /// own query already: only what authorises is added.
    fn push_query(
        &self,
        parts: &RequestTemplates,
        asked: &Asked,
        url: &mut String,
        context: &Value,
    ) -> Result<(), NotRequestable> {
        let mut separator = if url.contains('?') { '&' } else { '?' };
        let mut push = |name: &str, value: &str| {
            url.push(separator);
            separator = '&';
            url.extend(utf8_percent_encode(name, ENCODED));
            url.push('=');
            url.extend(utf8_percent_encode(value, ENCODED));
        };
        if asked.url.is_some() {
            for (name, template) in &parts.query[parts.own_query..] {
                push(name, &render(&self.templates, template, context)?);
            }
            return Ok(());
        }
        for (name, template) in &parts.query {
            if !asked.set.iter().any(|(known, _)| known == name) {
                push(name, &render(&self.templates, template, context)?);
            }
        }
        for (name, value) in &asked.set {
            if !parts.is_in_body(name) {
                push(name, &shown(value));
            }
        }
        Ok(())
    }

    fn headers(
        &self,
        parts: &RequestTemplates,
        context: &Value,
    ) -> Result<Vec<(String, String)>, NotRequestable> {
        let mut headers = Vec::with_capacity(parts.headers.len());
        for (name, template) in &parts.headers {
            let value = render(&self.templates, template, context)?;
            if value.chars().any(char::is_control) {
                return Err(NotRequestable(format!(
                    "the value of header {name} has a control character"
                )));
            }
            headers.push((name.clone(), value));
        }
        Ok(headers)
    }

    fn body(
        &self,
        parts: &RequestTemplates,
        asked: &Asked,
        context: &Value,
    ) -> Result<Option<(&'static str, Vec<u8>)>, NotRequestable> {
        let set = asked.set.iter().filter(|(name, _)| parts.is_in_body(name));
        match &parts.body {
            None => Ok(None),
            Some(Body::Json(template)) => {
                let mut json = self.json(template, context)?;
                for (name, value) in set {
                    put(&mut json, name, value.clone());
                }
                Ok(Some(("application/json", json.to_string().into_bytes())))
            }
            Some(Body::Xml(documents, document)) => {
                let text = render(documents, document, context)?;
                let text = match document {
                    // A lone name is looked up without the formatter.
                    Compiled::Name(_) => {
                        xml_text(&text).map_err(|why| NotRequestable(why.to_owned()))?
                    }
                    _ => text,
                };
                Ok(Some(("application/xml; charset=utf-8", text.into_bytes())))
            }
            Some(Body::Form(pairs)) => {
                let mut form = String::new();
                let mut push = |name: &str, value: &str| {
                    if !form.is_empty() {
                        form.push('&');
                    }
                    form.extend(utf8_percent_encode(name, ENCODED));
                    form.push('=');
                    form.extend(utf8_percent_encode(value, ENCODED));
                };
                for (name, template) in pairs {
                    if !asked.set.iter().any(|(known, _)| known == name) {
                        push(name, &render(&self.templates, template, context)?);
                    }
                }
                for (name, value) in set {
                    push(name, &shown(value));
                }
                Ok(Some((
                    "application/x-www-form-urlencoded",
                    form.into_bytes(),
                )))
            }
        }
    }

    pub(super) fn json(
        &self,
        template: &JsonTemplate,
        context: &Value,
    ) -> Result<serde_json::Value, NotRequestable> {
        Ok(match template {
            JsonTemplate::Fixed(value) => value.clone(),
            JsonTemplate::Text(text) => render(&self.templates, text, context)?.into(),
            JsonTemplate::Name(name) => {
                let value = context
                    .get_attr(name)
                    .map_err(|e| NotRequestable(e.to_string()))?;
                if value.is_undefined() {
                    return Err(NotRequestable(format!("{name} is not defined")));
                }
                serde_json::to_value(&value).map_err(|e| NotRequestable(e.to_string()))?
            }
            JsonTemplate::Expression(expression) => {
                let value = self.templates.evaluate(expression, context);
                let value = value.map_err(|e| NotRequestable(said(&e)))?;
                serde_json::to_value(&value).map_err(|e| NotRequestable(e.to_string()))?
            }
            JsonTemplate::List(items) => items
                .iter()
                .map(|item| self.json(item, context))
                .collect::<Result<Vec<_>, _>>()?
                .into(),
            JsonTemplate::Object(fields) => serde_json::Value::Object(
                fields
                    .iter()
                    .map(|(name, value)| Ok((name.clone(), self.json(value, context)?)))
                    .collect::<Result<_, NotRequestable>>()?,
            ),
        })
    }
}

impl RequestTemplates {
    /// Whether the step's parameter `name` goes into the body: a POST's does, unless its query names it.
    fn is_in_body(&self, name: &str) -> bool {
        self.body.is_some() && !self.query.iter().any(|(known, _)| known == name)
    }
}

/// Puts a step's parameter into a JSON body; `variables.after` goes below what is there as `variables`.
fn put(json: &mut serde_json::Value, name: &str, value: serde_json::Value) {
    let Some(fields) = json.as_object_mut() else {
        return;
    };
    if let Some((outer, inner)) = name.split_once('.')
        && !fields.contains_key(name)
        && let Some(below) = fields.get_mut(outer).filter(|below| below.is_object())
    {
        return put(below, inner, value);
    }
    fields.insert(name.to_owned(), value);
}

fn shown(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

pub(super) fn render(
    templates: &Templates,
    template: &Compiled,
    context: &Value,
) -> Result<String, NotRequestable> {
    templates
        .render(template, context)
        .map_err(|e| NotRequestable(said(&e)))
}
