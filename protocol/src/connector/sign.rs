//! Signatures over the final request, and tokens that the fleet signs itself. Made for each attempt: all
//! templates of one attempt see the same instant.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use minijinja::value::{Enumerator, Object, Value};
use sha2::{Digest, Sha256};

use super::request::{HttpRequest, JsonTemplate, NotRequestable, compile, compile_json, render};
use super::{CompileError, Connector};
use crate::spec::{Auth, Method};
use crate::template::{Compiled, Templates};

/// One entry of `auth` that signs.
#[derive(Debug)]
pub(super) struct Signer {
    key: Compiled,
    what: Signed,
    header: String,
    value: Compiled,
}

#[derive(Debug)]
enum Signed {
    /// `message`, shown in hex or base64.
    Message { message: Compiled, hex: bool },
    /// A token: fields of its head beside `alg` and `typ`, and its claims.
    Token {
        head: Vec<(String, Compiled)>,
        claims: JsonTemplate,
    },
}

impl Signer {
    pub(super) fn compile_all(
        auth: &[Auth],
        templates: &mut Templates,
    ) -> Result<Vec<Self>, CompileError> {
        let each = auth.iter().map(|auth| Self::compile(auth, templates));
        each.filter_map(Result::transpose).collect()
    }

    fn compile(auth: &Auth, templates: &mut Templates) -> Result<Option<Self>, CompileError> {
        let (key, header, value) = match auth {
            Auth::Sign {
                key, header, value, ..
            }
            | Auth::Jwt {
                key, header, value, ..
            } => (key, header, value),
            _ => return Ok(None),
        };
        let what = match auth {
            Auth::Sign {
                algorithm, message, ..
            } => Signed::Message {
                message: compile(templates, message)?,
                hex: algorithm.ends_with("hex"),
            },
            Auth::Jwt { head, claims, .. } => {
                let mut fields = Vec::new();
                for (name, source) in head {
                    fields.push((name.clone(), compile(templates, source)?));
                }
                let claims = serde_json::Value::Object(claims.clone().into_iter().collect());
                Signed::Token {
                    head: fields,
                    claims: compile_json(&claims, templates)?,
                }
            }
            _ => return Ok(None),
        };
        Ok(Some(Signer {
            key: compile(templates, key)?,
            what,
            header: header.to_ascii_lowercase(),
            value: compile(templates, value)?,
        }))
    }
}

impl Connector {
    /// Adds the headers of `signers` to a request that is final but for them.
    pub(super) fn sign(
        &self,
        signers: &[Signer],
        request: &mut HttpRequest,
        context: &Value,
    ) -> Result<(), NotRequestable> {
        for signer in signers {
            let seen = with(context, "request", request_names(request));
            let key = render(&self.templates, &signer.key, context)?;
            let named = match &signer.what {
                Signed::Message { message, hex } => {
                    let message = render(&self.templates, message, &seen)?;
                    let signature = hmac(key.as_bytes(), message.as_bytes());
                    let shown = if *hex {
                        hex::encode(signature)
                    } else {
                        STANDARD.encode(signature)
                    };
                    with(&seen, "signature", Value::from(shown))
                }
                Signed::Token { head, claims } => {
                    let token = self.token(key.as_bytes(), head, claims, context)?;
                    with(&seen, "token", Value::from(token))
                }
            };
            let value = render(&self.templates, &signer.value, &named)?;
            if value.chars().any(char::is_control) {
                return Err(NotRequestable(format!(
                    "the value of header {} has a control character",
                    signer.header
                )));
            }
            request.headers.push((signer.header.clone(), value));
        }
        Ok(())
    }

    fn token(
        &self,
        key: &[u8],
        head: &[(String, Compiled)],
        claims: &JsonTemplate,
        context: &Value,
    ) -> Result<String, NotRequestable> {
        let mut fields = serde_json::Map::new();
        fields.insert("alg".into(), "HS256".into());
        fields.insert("typ".into(), "JWT".into());
        for (name, template) in head {
            let value = render(&self.templates, template, context)?;
            fields.insert(name.clone(), value.into());
        }
        let head = serde_json::Value::Object(fields).to_string();
        let claims = self.json(claims, context)?.to_string();
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(head),
            URL_SAFE_NO_PAD.encode(claims)
        );
        let signature = URL_SAFE_NO_PAD.encode(hmac(key, signed.as_bytes()));
        Ok(format!("{signed}.{signature}"))
    }
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length is a key");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// `request.method`, `.path` and `.query` as they go over the wire, `.url`, `.body`, `.body_sha256` in hex.
fn request_names(request: &HttpRequest) -> Value {
    let after_scheme = request.url.find("://").map_or(0, |at| at + 3);
    let path_at = request.url[after_scheme..]
        .find(['/', '?'])
        .map_or(request.url.len(), |at| after_scheme + at);
    let (path, query) = match request.url[path_at..].split_once('?') {
        Some((path, query)) => (path, query),
        None => (&request.url[path_at..], ""),
    };
    let body: &[u8] = request
        .body
        .as_ref()
        .map_or(&[], |(_, body)| body.as_slice());
    let method = match request.method {
        Method::Get => "GET",
        Method::Post => "POST",
    };
    let names = [
        ("method", method.to_owned()),
        ("path", if path.is_empty() { "/" } else { path }.to_owned()),
        ("query", query.to_owned()),
        ("url", request.url.clone()),
        ("body", String::from_utf8_lossy(body).into_owned()),
        ("body_sha256", hex::encode(Sha256::digest(body))),
    ];
    Value::from_pairs(names.map(|(name, value)| (name, Value::from(value))))
}

/// `below` with one more name.
fn with(below: &Value, name: &'static str, value: Value) -> Value {
    Value::from_object(OneMore {
        below: below.clone(),
        name,
        value,
    })
}

#[derive(Debug)]
struct OneMore {
    below: Value,
    name: &'static str,
    value: Value,
}

impl Object for OneMore {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        if key == self.name {
            return Some(self.value.clone());
        }
        let found = self.below.get_attr(key).ok()?;
        (!found.is_undefined()).then_some(found)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::NonEnumerable
    }
}
