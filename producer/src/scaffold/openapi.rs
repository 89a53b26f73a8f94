//! Reads one operation of an OpenAPI 3 document: what it calls, how it signs in, and what its answer's schema promises.
//!
//! References may go in circles, and do: a schema is followed only so deep, and no reference twice on one way down.

use std::cell::Cell;

use paceline_protocol::spec::{choose, is_identifier, is_reserved, yaml_value};
use serde_json::{Map, Value};

use super::provider::{Call, Draft, FieldDraft, Reading, Send};
use super::secrets::Secrets;

/// Why an operation cannot be taken over.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OpenApiError {
    /// Neither YAML nor JSON.
    #[error("it is neither YAML nor JSON: {0}")]
    Syntax(String),
    /// Something else, or another version.
    #[error("it is no OpenAPI 3 document: {0}")]
    Version(String),
    /// No such operation.
    #[error("it has no operation `{name}`: {hint}")]
    Unknown {
        /// As given.
        name: String,
        /// What there is.
        hint: String,
    },
    /// A method that a provider file cannot say.
    #[error("operation `{0}` is called by {1}; provider files call with GET and POST")]
    Method(String, String),
    /// A reference that leads nowhere, out of the document, or only to itself.
    #[error("the reference `{0}` {1}")]
    Reference(String, &'static str),
}

/// Schemas are followed so deep.
const DEEPEST: usize = 6;
/// A reference may lead to another one so often.
const HOPS: usize = 32;
/// So many schemas are looked at: what is written in a few lines can unfold into millions.
const SCHEMAS: u32 = 50_000;
/// So many fields are drafted.
const FIELDS: usize = 40;
/// Properties that usually hold the records, in the order of preference.
const LISTS: [&str; 9] = [
    "data", "items", "results", "records", "content", "rows", "list", "value", "values",
];
const METHODS: [&str; 8] = [
    "get", "post", "put", "patch", "delete", "head", "options", "trace",
];

/// A provider called `name` with the operation `wanted` (its id, or `GET /path`) of the document `text`.
///
/// # Errors
/// When it cannot be written as a provider file.
pub fn from_openapi(name: &str, text: &str, wanted: &str) -> Result<Draft, OpenApiError> {
    let document = match text.trim_start().starts_with('{') {
        true => serde_json::from_str(text).map_err(|error| error.to_string()),
        false => yaml_value(text),
    };
    let document = Document {
        root: document.map_err(OpenApiError::Syntax)?,
        left: Cell::new(SCHEMAS),
    };
    let version = document.root.get("openapi").and_then(text_of);
    match version {
        Some(version) if version.starts_with("3.") => {}
        Some(version) => return Err(OpenApiError::Version(format!("`openapi: {version}`"))),
        None => return Err(OpenApiError::Version("it has no `openapi`".into())),
    }
    let operation = document.operation(wanted)?;
    let mut drafting = Drafting {
        document: &document,
        call: Call::default(),
        reading: Reading {
            endpoint: endpoint_name(&operation),
            ..Reading::default()
        },
        names: Vec::new(),
    };
    drafting.read(&operation)?;
    if document.left.get() == 0 {
        drafting.note("its schemas unfold into too many others: some of them are left out");
    }
    Ok(Draft {
        rate: None,
        records: None,
        name: name.to_owned(),
        call: Some(drafting.call),
        reading: Some(drafting.reading),
    })
}

struct Document {
    root: Value,
    /// How many schemas may still be looked at.
    left: Cell<u32>,
}

/// One operation with where it stands.
struct Operation<'d> {
    method: String,
    path: String,
    shared: &'d Value,
    own: &'d Value,
}

impl Operation<'_> {
    fn id(&self) -> String {
        let id = self.own.get("operationId").and_then(text_of);
        id.unwrap_or_else(|| format!("{} {}", self.method.to_ascii_uppercase(), self.path))
    }
}

impl Document {
    fn operation(&self, wanted: &str) -> Result<Operation<'_>, OpenApiError> {
        let mut known = Vec::new();
        let paths = self.root.get("paths").and_then(Value::as_object);
        for (path, shared) in paths.into_iter().flatten() {
            let shared = self.resolve(shared)?;
            for method in METHODS {
                let Some(own) = shared.get(method) else {
                    continue;
                };
                let operation = Operation {
                    method: method.to_owned(),
                    path: path.clone(),
                    shared,
                    own,
                };
                let by_path = format!("{} {path}", method.to_ascii_uppercase());
                let id = operation.id();
                if id == wanted || by_path == wanted {
                    return match method {
                        "get" | "post" => Ok(operation),
                        other => Err(OpenApiError::Method(id, other.to_ascii_uppercase())),
                    };
                }
                known.push(id);
            }
        }
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        Err(OpenApiError::Unknown {
            name: wanted.to_owned(),
            hint: choose(wanted, &known, "its operations"),
        })
    }

    /// What a reference leads to; anything else as it is.
    fn resolve<'d>(&'d self, value: &'d Value) -> Result<&'d Value, OpenApiError> {
        let mut value = value;
        for _ in 0..HOPS {
            let Some(reference) = value.get("$ref").and_then(Value::as_str) else {
                return Ok(value);
            };
            let broken = |why| OpenApiError::Reference(reference.to_owned(), why);
            let pointer = reference
                .strip_prefix('#')
                .ok_or_else(|| broken("leads out of the document; put both into one first"))?;
            value = self
                .root
                .pointer(pointer)
                .ok_or_else(|| broken("leads nowhere"))?;
        }
        let reference = value.get("$ref").and_then(Value::as_str).unwrap_or("");
        Err(OpenApiError::Reference(
            reference.to_owned(),
            "leads to itself",
        ))
    }

    /// A schema with `allOf` put together, and the first of what may stand for it.
    fn schema(&self, schema: &Value, depth: usize) -> Result<Value, OpenApiError> {
        let Some(left) = self.left.get().checked_sub(1) else {
            return Ok(Value::Object(Map::new()));
        };
        self.left.set(left);
        let schema = self.resolve(schema)?;
        let Some(parts) = schema.get("allOf").and_then(Value::as_array) else {
            for one_of in ["oneOf", "anyOf"] {
                let first = schema.get(one_of).and_then(|list| list.get(0));
                if let Some(first) = first.filter(|_| depth < DEEPEST) {
                    return self.schema(first, depth + 1);
                }
            }
            return Ok(schema.clone());
        };
        let mut all = schema.as_object().cloned().unwrap_or_default();
        all.remove("allOf");
        if depth >= DEEPEST {
            return Ok(Value::Object(all));
        }
        for part in parts {
            let part = self.schema(part, depth + 1)?;
            merge(&mut all, part);
        }
        Ok(Value::Object(all))
    }
}

fn merge(all: &mut Map<String, Value>, part: Value) {
    let Value::Object(part) = part else { return };
    for (key, value) in part {
        match (all.get_mut(&key), value) {
            (Some(Value::Object(known)), Value::Object(more)) => known.extend(more),
            (Some(Value::Array(known)), Value::Array(more)) => known.extend(more),
            (Some(_), _) => {}
            (None, value) => {
                all.insert(key, value);
            }
        }
    }
}

struct Drafting<'d> {
    document: &'d Document,
    call: Call,
    reading: Reading,
    /// Names of the document with the variables of templates that stand for them.
    names: Vec<(String, String)>,
}

impl Drafting<'_> {
    fn read(&mut self, operation: &Operation<'_>) -> Result<(), OpenApiError> {
        self.call.post = operation.method == "post";
        self.server(operation);
        let mut path = operation.path.clone();
        let lists = [operation.shared, operation.own];
        let lists = lists.map(|of| of.get("parameters").and_then(Value::as_array));
        let mut parameters: Vec<Value> = Vec::new();
        for parameter in lists.into_iter().flatten().flatten() {
            let parameter = self.document.resolve(parameter)?.clone();
            let same = |known: &Value| {
                known.get("name") == parameter.get("name") && known.get("in") == parameter.get("in")
            };
            parameters.retain(|known| !same(known));
            parameters.push(parameter);
        }
        // Fields first: a variable may not have the name of one.
        self.answer(operation)?;
        for parameter in &parameters {
            self.parameter(parameter, &mut path)?;
        }
        let path = self.undeclared(&path);
        self.call.path = format!("{}{path}", self.call.path);
        self.security(operation)?;
        self.body(operation)
    }

    /// The template of the variable that stands for `name`, which a job's dimension can have.
    fn template(&mut self, name: &str) -> String {
        if let Some((_, variable)) = self.names.iter().find(|(known, _)| known == name) {
            return format!("{{{{ {variable} }}}}");
        }
        let taken = |variable: &str| {
            is_reserved(variable)
                || self.reading.fields.iter().any(|f| f.name == variable)
                || self.names.iter().any(|(_, known)| known == variable)
        };
        let mut variable = identifier(name);
        if taken(&variable) {
            variable = format!("by_{variable}");
        }
        let stem = variable.clone();
        let mut next = 2;
        while taken(&variable) {
            variable = format!("{stem}_{next}");
            next += 1;
        }
        self.names.push((name.to_owned(), variable.clone()));
        format!("{{{{ {variable} }}}}")
    }

    /// Names of a path that the document forgot to declare.
    fn undeclared(&mut self, path: &str) -> String {
        let mut whole = String::new();
        let mut rest = path;
        while let Some(place) = rest.find('{') {
            whole += &rest[..place];
            rest = &rest[place..];
            if let Some(end) = rest.strip_prefix("{{").and_then(|inner| inner.find("}}")) {
                whole += &rest[..end + 4];
                rest = &rest[end + 4..];
                continue;
            }
            let Some(end) = rest.find('}') else { break };
            whole += &self.template(&rest[1..end]);
            rest = &rest[end + 1..];
        }
        whole + rest
    }

    fn server(&mut self, operation: &Operation<'_>) {
        let of = [operation.own, operation.shared, &self.document.root];
        let mut servers = of.into_iter().filter_map(|of| of.get("servers")?.get(0));
        let Some(server) = servers.next() else { return };
        let mut url = server.get("url").and_then(text_of).unwrap_or_default();
        let variables = server.get("variables").and_then(Value::as_object);
        for (name, variable) in variables.into_iter().flatten() {
            let default = variable.get("default").and_then(text_of);
            url = url.replace(&format!("{{{name}}}"), &default.unwrap_or_default());
        }
        match url::Url::parse(&url) {
            Ok(whole) if matches!(whole.scheme(), "http" | "https") && whole.has_host() => {
                self.call.base_url = whole.origin().ascii_serialization();
                self.call.path = whole.path().trim_end_matches('/').to_owned();
            }
            // Relative: nobody knows to what.
            _ if url.starts_with('/') => {
                self.call.path = url.trim_end_matches('/').to_owned();
            }
            _ => {}
        }
    }

    fn parameter(&mut self, parameter: &Value, path: &mut String) -> Result<(), OpenApiError> {
        let Some(name) = parameter.get("name").and_then(text_of) else {
            return Ok(());
        };
        let schema = match parameter.get("schema") {
            Some(schema) => self.document.schema(schema, 0)?,
            None => Value::Null,
        };
        let given = ["example", "default"];
        let fixed = schema.get("default").or_else(|| parameter.get("default"));
        let example = given
            .iter()
            .find_map(|key| parameter.get(key).or_else(|| schema.get(key)));
        let required = parameter.get("required") == Some(&Value::Bool(true));
        let place = parameter.get("in").and_then(Value::as_str);
        let sent = match place {
            Some("path") => true,
            Some("query") => required || fixed.is_some(),
            Some("header") => required && !own_header(&name),
            _ => false,
        };
        let literal = fixed.and_then(text_of).filter(|fixed| is_literal(fixed));
        let template = match &literal {
            Some(_) if place != Some("path") => String::new(),
            _ if sent => self.template(&name),
            _ => String::new(),
        };
        if let Some(example) = example.and_then(text_of).filter(|_| fixed.is_none()) {
            let shown = template.trim_matches(['{', '}', ' ']);
            let shown = if shown.is_empty() {
                name.as_str()
            } else {
                shown
            };
            self.note(&format!("{shown}: for example {example}"));
        }
        let value = literal.unwrap_or_else(|| template.clone());
        match place {
            Some("path") => *path = path.replace(&format!("{{{name}}}"), &template),
            Some("query") if required || fixed.is_some() => self.call.query.push((name, value)),
            Some("header") if required && !own_header(&name) => {
                self.call.headers.push((name.to_ascii_lowercase(), value));
            }
            Some("query") => self.reading.optional.push(name),
            Some("cookie") if required => {
                self.note(&format!(
                    "it wants the cookie {name}: write it under `headers`"
                ));
            }
            _ => {}
        }
        Ok(())
    }

    fn security(&mut self, operation: &Operation<'_>) -> Result<(), OpenApiError> {
        let asked = operation.own.get("security");
        let asked = asked.or_else(|| self.document.root.get("security"));
        // Any one of the list is enough; one without a name says that none is needed.
        let Some(all) = asked
            .and_then(|list| list.get(0))
            .and_then(Value::as_object)
        else {
            return Ok(());
        };
        if all.is_empty() {
            self.note("it may be called without signing in; its document knows other ways too");
        }
        let mut secrets = Secrets::default();
        for name in all.keys() {
            let pointer = format!("/components/securitySchemes/{}", escaped(name));
            let Some(scheme) = self.document.root.pointer(&pointer) else {
                self.note(&format!(
                    "its document does not say what `{name}` is; see `auth`"
                ));
                continue;
            };
            let scheme = self.document.resolve(scheme)?;
            self.scheme(name, scheme, &mut secrets);
        }
        self.call.credential_fields(secrets.fields());
        Ok(())
    }

    fn scheme(&mut self, name: &str, scheme: &Value, secrets: &mut Secrets) {
        let text = |key: &str| scheme.get(key).and_then(text_of).unwrap_or_default();
        let (kind, place, called) = (text("type"), text("in"), text("name"));
        let http = text("scheme").to_ascii_lowercase();
        match (kind.as_str(), place.as_str(), http.as_str()) {
            ("apiKey", "query", _) => {
                let value = secrets.template(&called, name);
                self.call.auth_query.push((called, value));
            }
            ("apiKey", "header", _) => {
                let value = secrets.template(&called, name);
                self.sign(&called.to_ascii_lowercase(), value);
            }
            ("apiKey", "cookie", _) => {
                let value = secrets.template(&called, name);
                self.sign("cookie", format!("{called}={value}"));
            }
            ("http", _, "basic") => {
                let value = secrets.basic(name);
                self.sign("authorization", value);
            }
            ("http", _, "bearer") => {
                let value = secrets.template("token", name);
                self.sign("authorization", format!("Bearer {value}"));
            }
            ("oauth2" | "openIdConnect", _, _) => {
                self.note("its tokens end: see `oauth2` of `auth` for the fleet to renew them");
                let value = secrets.template("token", name);
                self.sign("authorization", format!("Bearer {value}"));
            }
            _ => self.note("a way to sign in that is not drafted; see `auth`"),
        }
    }

    fn sign(&mut self, header: &str, value: String) {
        self.call.auth_headers.push((header.to_owned(), value));
    }

    fn note(&mut self, text: &str) {
        self.reading.notes.push(text.to_owned());
    }

    fn body(&mut self, operation: &Operation<'_>) -> Result<(), OpenApiError> {
        let Some(body) = operation.own.get("requestBody") else {
            return Ok(());
        };
        let body = self.document.resolve(body)?;
        let content = body.get("content").and_then(Value::as_object);
        for (kind, media) in content.into_iter().flatten() {
            let Some(schema) = media.get("schema") else {
                continue;
            };
            let example = self.sample(schema, "value", &mut Vec::new())?;
            if kind.contains("json") {
                self.call.body = Some(Send::Json(example));
                return Ok(());
            }
            if kind.contains("form-urlencoded") {
                let fields = example.as_object().cloned().unwrap_or_default();
                let fields = fields
                    .iter()
                    .filter_map(|(k, v)| Some((k.clone(), text_of(v)?)));
                self.call.body = Some(Send::Form(fields.collect()));
                return Ok(());
            }
        }
        self.note("its request body is neither JSON nor a form: write it by hand");
        Ok(())
    }

    /// A value of a schema that stands under `name`, its scalars as templates of their own names. `way` has the
    /// references that led here.
    fn sample(
        &mut self,
        schema: &Value,
        name: &str,
        way: &mut Vec<String>,
    ) -> Result<Value, OpenApiError> {
        let reference = schema.get("$ref").and_then(Value::as_str);
        let reference = reference.map(str::to_owned);
        let again = reference.as_ref().is_some_and(|r| way.contains(r));
        if again || way.len() >= DEEPEST {
            return Ok(Value::Null);
        }
        let schema = self.document.schema(schema, 0)?;
        if let Some(fixed) = schema.get("default").or_else(|| schema.get("const")) {
            return Ok(fixed.clone());
        }
        way.push(reference.unwrap_or_default());
        let value = self.sample_of(&schema, name, way);
        way.pop();
        value
    }

    fn sample_of(
        &mut self,
        schema: &Value,
        name: &str,
        way: &mut Vec<String>,
    ) -> Result<Value, OpenApiError> {
        if let Some(items) = schema.get("items") {
            return Ok(Value::Array(vec![self.sample(items, name, way)?]));
        }
        let properties = schema.get("properties").and_then(Value::as_object);
        if properties.is_none() && schema.get("type") != Some(&"object".into()) {
            return Ok(Value::String(self.template(name)));
        }
        let required: Vec<&str> = required(schema);
        let mut object = Map::new();
        for (name, of) in properties.into_iter().flatten() {
            if required.contains(&name.as_str()) {
                let below = self.sample(of, name, way)?;
                object.insert(name.clone(), below);
            }
        }
        Ok(Value::Object(object))
    }

    fn answer(&mut self, operation: &Operation<'_>) -> Result<(), OpenApiError> {
        let responses = operation.own.get("responses").and_then(Value::as_object);
        let mut schema = None;
        for (status, response) in responses.into_iter().flatten() {
            let good = status.starts_with('2') || status.eq_ignore_ascii_case("default");
            if !good || schema.is_some() {
                continue;
            }
            let response = self.document.resolve(response)?;
            let content = response.get("content").and_then(Value::as_object);
            let mut content = content.into_iter().flatten();
            let json = content.find(|(kind, _)| kind.contains("json"));
            schema = json.and_then(|(_, media)| media.get("schema"));
        }
        let Some(schema) = schema else {
            self.note("no schema of a JSON answer was found: `records` and `fields` are guesses");
            return Ok(());
        };
        let schema = self.document.schema(schema, 0)?;
        let (path, record) = match self.records("$", &schema, 0)? {
            Some(found) => found,
            None => ("$".to_owned(), schema),
        };
        self.reading.records = path;
        if let Some(kind) = kind(&record).filter(|_| record.get("properties").is_none()) {
            // A list of bare values: each is a record of one field.
            self.field("value".into(), "$".into(), kind, is_nullable(&record));
        }
        self.fields("", "$", &record, true, 0)
    }

    /// Adds a field; one whose name is taken gets a number.
    fn field(&mut self, name: String, path: String, kind: &'static str, optional: bool) {
        let taken = |name: &str| self.reading.fields.iter().any(|f| f.name == name);
        let mut free = name.clone();
        let mut next = 2;
        while taken(&free) {
            free = format!("{name}_{next}");
            next += 1;
        }
        self.reading.fields.push(FieldDraft {
            name: free,
            path,
            kind,
            optional,
        });
    }

    /// The list of objects in an answer: its path and the schema of one of them.
    fn records(
        &self,
        path: &str,
        schema: &Value,
        depth: usize,
    ) -> Result<Option<(String, Value)>, OpenApiError> {
        if let Some(items) = schema.get("items") {
            let items = self.document.schema(items, 0)?;
            return Ok(Some((format!("{path}[*]"), items)));
        }
        if depth >= 3 {
            return Ok(None);
        }
        let properties = schema.get("properties").and_then(Value::as_object);
        let mut all: Vec<(&String, &Value)> = properties.into_iter().flatten().collect();
        let rank = |name: &str| LISTS.iter().position(|known| *known == name);
        all.sort_by_key(|(name, _)| rank(name).unwrap_or(LISTS.len()));
        let mut below = Vec::new();
        for (name, of) in all {
            let of = self.document.schema(of, 0)?;
            let path = format!("{path}{}", step(name));
            if let Some(items) = of.get("items") {
                let items = self.document.schema(items, 0)?;
                if items.get("properties").is_some() {
                    return Ok(Some((format!("{path}[*]"), items)));
                }
            }
            below.push((path, of));
        }
        for (path, of) in below
            .iter()
            .filter(|(_, of)| of.get("properties").is_some())
        {
            if let Some(found) = self.records(path, of, depth + 1)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The scalars of a record, those of its objects too.
    fn fields(
        &mut self,
        prefix: &str,
        path: &str,
        schema: &Value,
        sure: bool,
        depth: usize,
    ) -> Result<(), OpenApiError> {
        let required = required(schema);
        let properties = schema.get("properties").and_then(Value::as_object);
        for (name, of) in properties.into_iter().flatten() {
            let of = self.document.schema(of, 0)?;
            let path = format!("{path}{}", step(name));
            let sure = sure && required.contains(&name.as_str()) && !is_nullable(&of);
            let field = format!("{prefix}{}", identifier(name));
            if of.get("properties").is_some() {
                if depth < 2 {
                    self.fields(&format!("{field}_"), &path, &of, sure, depth + 1)?;
                }
                continue;
            }
            let Some(kind) = kind(&of) else { continue };
            if self.reading.fields.len() >= FIELDS {
                return Ok(());
            }
            self.field(field, path, kind, !sure);
        }
        Ok(())
    }
}

/// What `as:` says for a schema; `None` where it is no scalar.
fn kind(schema: &Value) -> Option<&'static str> {
    let declared = match schema.get("type") {
        Some(Value::Array(several)) => several.iter().find(|t| *t != "null")?.as_str()?,
        Some(Value::String(one)) => one.as_str(),
        _ if schema.get("enum").is_some() => "string",
        _ => return None,
    };
    let format = schema.get("format").and_then(Value::as_str);
    Some(match (declared, format) {
        ("integer", _) => "integer",
        ("number", Some("float" | "double")) => "float",
        ("number", _) => "decimal",
        ("boolean", _) => "boolean",
        ("string", Some("date-time")) => "datetime",
        ("string", Some("date")) => "date",
        ("string", _) => "string",
        _ => return None,
    })
}

fn is_nullable(schema: &Value) -> bool {
    let several = schema.get("type").and_then(Value::as_array);
    schema.get("nullable") == Some(&Value::Bool(true))
        || several.is_some_and(|types| types.iter().any(|t| t == "null"))
}

fn required(schema: &Value) -> Vec<&str> {
    let list = schema.get("required").and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

fn is_literal(text: &str) -> bool {
    ["{{", "{%", "{#", "${"]
        .iter()
        .all(|mark| !text.contains(mark))
}

fn own_header(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    matches!(
        name.as_str(),
        "accept" | "content-type" | "authorization" | "user-agent" | "host" | "cookie"
    )
}

/// One name as a step of a path.
fn step(name: &str) -> String {
    match is_identifier(name) {
        true => format!(".{name}"),
        false => format!("[{}]", serde_json::Value::from(name)),
    }
}

/// A name that templates and records can have.
fn identifier(name: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let text: String = name.chars().map(legal).collect();
    if !text.contains(|c: char| c.is_ascii_alphanumeric()) {
        // Nothing of it can be said: Korean, for one.
        return "other".to_owned();
    }
    match text.starts_with(|c: char| c.is_ascii_digit()) || text.is_empty() {
        true => format!("n{text}"),
        false => text,
    }
}

fn endpoint_name(operation: &Operation<'_>) -> String {
    let mut name = String::new();
    let mut lower = false;
    for c in operation.id().chars() {
        let between = c.is_ascii_uppercase() && lower;
        lower = c.is_ascii_lowercase();
        match c {
            c if c.is_ascii_uppercase() => {
                name.extend(between.then_some('-'));
                name.push(c.to_ascii_lowercase());
            }
            c if c.is_ascii_alphanumeric() => name.push(c),
            _ if !name.is_empty() && !name.ends_with('-') => name.push('-'),
            _ => {}
        }
    }
    let name = name.trim_matches('-');
    match name.starts_with(|c: char| c.is_ascii_lowercase()) {
        true => name.to_owned(),
        false => format!("op-{name}").trim_matches('-').to_owned(),
    }
}

/// As a step of a JSON pointer.
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOP: &str = r##"
openapi: 3.0.3
info: {title: Shop, version: "1"}
servers: [{url: "https://{region}.shop.test/api/", variables: {region: {default: eu}}}]
security: [{token: []}]
paths:
  /shops/{shopId}/orders:
    parameters: [{$ref: "#/components/parameters/shop"}]
    get:
      operationId: listOrders
      parameters:
        - {name: since, in: query, required: true, schema: {type: string, format: date}, example: "2026-11-21"}
        - {name: size, in: query, schema: {type: integer, default: 50}}
        - {name: q, in: query, schema: {type: string}}
        - {name: X-Trace, in: header, required: true, schema: {type: string}}
      responses:
        "200": {content: {application/json: {schema: {$ref: "#/components/schemas/Page"}}}}
    delete: {operationId: dropOrders, responses: {}}
components:
  parameters:
    shop: {name: shopId, in: path, required: true, schema: {type: string}}
  securitySchemes: {token: {type: http, scheme: bearer}}
  schemas:
    Page:
      type: object
      properties:
        links: {type: array, items: {type: string}}
        page: {type: object, properties: {orders: {type: array, items: {$ref: "#/components/schemas/Order"}}}}
    Base: {type: object, required: [id], properties: {id: {type: integer}}}
    Order:
      allOf:
        - $ref: "#/components/schemas/Base"
        - required: [total, parent]
          properties:
            total: {type: object, required: [amount], properties: {amount: {type: number}, "odd name": {type: string}}}
            placed_at: {type: string, format: date-time}
            parent: {$ref: "#/components/schemas/Order"}
            lines: {type: array, items: {$ref: "#/components/schemas/Order"}}
    Loop: {$ref: "#/components/schemas/Pool"}
    Pool: {$ref: "#/components/schemas/Loop"}
"##;

    #[test]
    fn an_operation_becomes_a_call_and_what_is_read() {
        let draft = from_openapi("shop", SHOP, "listOrders").expect("reads");
        let (call, reading) = (draft.call.expect("a call"), draft.reading.expect("read"));
        assert_eq!(call.base_url, "https://eu.shop.test");
        assert_eq!(call.path, "/api/shops/{{ shopId }}/orders");
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            call.query,
            [pair("since", "{{ since }}"), pair("size", "50")]
        );
        assert_eq!(call.headers, [pair("x-trace", "{{ X_Trace }}")]);
        assert_eq!(
            call.auth_headers,
            [pair("authorization", "Bearer {{ credential.key }}")]
        );
        assert_eq!(reading.endpoint, "list-orders");
        assert_eq!(reading.records, "$.page.orders[*]");
        assert_eq!(reading.optional, ["q"]);
        let fields: Vec<String> = reading
            .fields
            .iter()
            .map(|f| format!("{} {} {} {}", f.name, f.path, f.kind, f.optional))
            .collect();
        assert!(
            fields.contains(&"id $.id integer false".to_owned()),
            "{fields:?}"
        );
        let amount = "total_amount $.total.amount decimal false".to_owned();
        assert!(fields.contains(&amount), "{fields:?}");
        let odd = "total_odd_name $.total[\"odd name\"] string true".to_owned();
        assert!(fields.contains(&odd), "{fields:?}");
        let nested = fields.iter().filter(|f| f.starts_with("parent_parent_"));
        assert!(nested.count() < 10, "a loop of references ends: {fields:?}");
    }

    #[test]
    fn what_cannot_be_taken_over_says_why() {
        let why = |text: &str, id: &str| {
            let error = from_openapi("shop", text, id).expect_err("refused");
            error.to_string()
        };
        assert!(why(SHOP, "listOrder").contains("did you mean `listOrders`?"));
        assert!(why(SHOP, "dropOrders").contains("DELETE"));
        assert!(why("swagger: '2.0'", "x").contains("no `openapi`"));
        assert!(why("openapi: 2.1", "x").contains("openapi: 2.1"));
        assert!(why("{\"openapi\": ", "x").contains("neither"));
        let looped = SHOP.replace("schemas/Page\"", "schemas/Loop\"");
        assert!(why(&looped, "listOrders").contains("leads to itself"));
        let nowhere = SHOP.replace("schemas/Page\"", "schemas/Gone\"");
        assert!(why(&nowhere, "listOrders").contains("leads nowhere"));
        let outside = SHOP.replace("#/components/schemas/Page\"", "other.yaml#/Page\"");
        assert!(why(&outside, "listOrders").contains("out of the document"));
    }

    fn document(paths: Value, schemas: Value) -> String {
        let document = serde_json::json!({
            "openapi": "3.0.3", "servers": [{"url": "https://a.test"}], "paths": paths,
            "components": {"schemas": schemas, "securitySchemes": {
                "id": {"type": "apiKey", "in": "header", "name": "X-Client-Id"},
                "key": {"type": "apiKey", "in": "query", "name": "key"},
                "sid": {"type": "apiKey", "in": "cookie", "name": "SID"},
                "basic": {"type": "http", "scheme": "basic"},
                "digest": {"type": "http", "scheme": "digest"},
            }}
        });
        document.to_string()
    }

    fn answers(schema: Value) -> Value {
        serde_json::json!({"200": {"content": {"application/json": {"schema": schema}}}})
    }

    /// What unfolds into millions of schemas is cut off, and what leads to itself ends.
    #[test]
    fn loops_and_wide_schemas_end() {
        let own = serde_json::json!({"$ref": "#/components/schemas/A"});
        let all = serde_json::json!({"A": {"allOf": vec![own.clone(); 40], "properties": {"id": {"type": "string"}}}});
        let names: Vec<String> = (0..30).map(|i| format!("p{i}")).collect();
        let below: Map<String, Value> = names.iter().map(|n| (n.clone(), own.clone())).collect();
        let wide =
            serde_json::json!({"A": {"type": "object", "required": names, "properties": below}});
        for schemas in [all, wide] {
            let body = serde_json::json!({"content": {"application/json": {"schema": own}}});
            let post = serde_json::json!({"operationId": "o", "requestBody": body, "responses": answers(own.clone())});
            let text = document(serde_json::json!({"/a": {"post": post}}), schemas);
            let reading = from_openapi("w", &text, "o").expect("it ends").reading;
            let notes = reading.expect("read").notes;
            assert!(
                notes.iter().any(|note| note.contains("unfold")),
                "{notes:?}"
            );
        }
    }

    #[test]
    fn names_are_free_for_a_job() {
        let text = |name: &str| serde_json::json!({"name": name, "in": "query", "required": true, "schema": {"type": "string"}});
        let string = serde_json::json!({"type": "string"});
        let record = serde_json::json!({"type": "object", "properties": {"id": string, "a-b": string, "a_b": string, "이름": string, "주소": string}});
        let get = serde_json::json!({
            "operationId": "o", "parameters": [text("status"), text("item"), text("x-y"), text("x_y")],
            "responses": answers(serde_json::json!({"type": "array", "items": record})),
        });
        let drafted = from_openapi(
            "w",
            &document(
                serde_json::json!({"/a/{id}/{b.c}": {"get": get}}),
                Value::Null,
            ),
            "o",
        );
        let drafted = drafted.expect("reads");
        let (call, reading) = (
            drafted.call.expect("a call"),
            drafted.reading.expect("read"),
        );
        assert_eq!(call.path, "/a/{{ by_id }}/{{ b_c }}");
        let values: Vec<&str> = call.query.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(
            values,
            [
                "{{ by_status }}",
                "{{ by_item }}",
                "{{ x_y }}",
                "{{ by_x_y }}"
            ]
        );
        let mut names: Vec<&str> = reading.fields.iter().map(|f| f.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["a_b", "a_b_2", "id", "other", "other_2"]);
    }

    #[test]
    fn ways_to_sign_in() {
        let signs = |security: Value| {
            let get =
                serde_json::json!({"operationId": "o", "security": security, "responses": {}});
            let text = document(serde_json::json!({"/a": {"get": get}}), Value::Null);
            let draft = from_openapi("w", &text, "o").expect("reads");
            let (call, reading) = (draft.call.expect("a call"), draft.reading.expect("read"));
            (
                call.auth_headers,
                call.auth_query,
                call.fields,
                reading.notes,
            )
        };
        let (headers, query, fields, _) = signs(serde_json::json!([{"id": [], "key": []}]));
        assert_eq!(headers[0].1, "{{ credential.x_client_id }}");
        assert_eq!(query[0].1, "{{ credential.key }}");
        assert_eq!(fields, ["x_client_id", "key"]);
        let (headers, _, _, _) = signs(serde_json::json!([{"sid": []}]));
        assert_eq!(
            headers,
            [("cookie".to_owned(), "SID={{ credential.key }}".to_owned())]
        );
        let (headers, _, _, _) = signs(serde_json::json!([{"basic": []}]));
        assert_eq!(headers[0].1, "Basic {{ credential.key | base64 }}");
        for none in [
            serde_json::json!([{"digest": []}]),
            serde_json::json!([{"gone": []}]),
            serde_json::json!([{}]),
        ] {
            let (headers, _, _, notes) = signs(none);
            assert!(headers.is_empty() && !notes.is_empty(), "{notes:?}");
        }
    }

    #[test]
    fn bodies_of_lists_and_bare_answers() {
        let string = serde_json::json!({"type": "string"});
        let list = serde_json::json!({"type": "array", "items": string});
        let body = serde_json::json!({"content": {"application/json": {"schema": {
            "type": "object", "required": ["ids", "of"], "properties": {
                "ids": list, "of": {"type": "object", "required": ["a"], "properties": {"a": string}}
            }
        }}}});
        let mut responses = answers(list);
        responses["100"] = Value::Null;
        let post = serde_json::json!({"operationId": "GET /o", "requestBody": body, "responses": responses});
        let text = document(serde_json::json!({"/a": {"post": post}}), Value::Null);
        let draft = from_openapi("w", &text, "POST /a").expect("reads");
        let json = serde_json::json!({"ids": ["{{ by_ids }}"], "of": {"a": "{{ a }}"}});
        assert_eq!(draft.call.expect("a call").body, Some(Send::Json(json)));
        let reading = draft.reading.expect("read");
        assert_eq!(reading.endpoint, "get-o");
        assert_eq!(
            (reading.records.as_str(), reading.fields[0].path.as_str()),
            ("$[*]", "$")
        );
    }
}
