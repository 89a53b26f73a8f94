//! The connector, without I/O: building requests, classifying answers, extracting records.
//!
//! A [`Connector`] is compiled once for a run's endpoint. It knows neither time nor sockets: the
//! worker passes the fleet's clock in, sends what [`Connector::request`] built and hands back what came.

mod accounts;
mod body;
mod classify;
mod context;
pub mod cooldown;
mod credential_name;
mod explain;
mod extract;
mod in_environment;
mod learn;
mod pool;
mod request;
mod scope;
mod seal;
mod sign;
mod steps;
mod tokens;
mod trace;
mod wait;

pub use accounts::{Accounts, AccountsError};
pub use body::{Body, MOST_DEPTH, Page, Unreadable, css_selector, is_charset};
pub use classify::{Answer, Judged, MAX_BODY_DEFAULT};
pub use context::{CallContext, Credential, RunNames};
pub use credential_name::{pool_entries, public_name, written_entries};
pub use explain::Matched;
pub use extract::Misfit;
pub use in_environment::{
    in_environment, outputs_in_environment, planned_expression, planned_template,
};
pub use learn::LearnPlaces;
pub use pool::{Pool, PoolError};
pub use request::{HttpRequest, NotRequestable};
pub use scope::{ScopeTemplate, Scopes, is_by_cell};
pub use seal::Sealer;
pub use steps::{Advance, Gathered, Position, Progress, StepAnswer, StepError, digest};
pub use tokens::{Granted, Secret, Token, TokenAnswer, TokenTemplates};
pub use trace::provider_trace;

use std::sync::Arc;

use crate::plan::Plan;
use crate::record::Columns;
use crate::spec::{Endpoint, Provider, Request};
use crate::template::{Compiled, Templates, environment};

/// Why a plan's endpoint cannot be called by this build. `check` finds these before a run starts.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The plan has no such provider or endpoint.
    #[error("the plan has no endpoint {endpoint} at provider {provider}")]
    Missing {
        /// The provider.
        provider: String,
        /// The endpoint.
        endpoint: String,
    },
    /// A template, path or expression that does not compile.
    #[error("{what} does not compile: {why}")]
    Syntax {
        /// The text.
        what: String,
        /// The compiler's message.
        why: String,
    },
    /// Something that the files may say but this build cannot do.
    #[error("this build cannot run {0}")]
    NotBuilt(String),
}

impl CompileError {
    fn syntax(what: &str, why: impl std::fmt::Display) -> Self {
        CompileError::Syntax {
            what: what.to_owned(),
            why: why.to_string(),
        }
    }
}

/// One endpoint of a run, compiled.
#[derive(Debug)]
pub struct Connector {
    provider: String,
    budgets: String,
    endpoint: Arc<str>,
    names: Arc<RunNames>,
    columns: Columns,
    templates: Templates,
    requests: request::RequestTemplates,
    bodies: body::BodyReader,
    rules: classify::Rules,
    records: extract::Extractor,
    steps: steps::Steps,
    scopes: Vec<ScopeTemplate>,
    pick: Option<Compiled>,
    tokens: Option<TokenTemplates>,
}

impl Connector {
    /// Compiles the plan's endpoint at `provider`.
    ///
    /// # Errors
    /// When the plan does not fit this build; nothing that depends on a cell.
    pub fn compile(plan: &Plan, provider: &str) -> Result<Self, CompileError> {
        let endpoint = plan.job.endpoint.clone().unwrap_or_default();
        let (spec, declared) = find(plan, provider, &endpoint)?;
        let mut templates = Templates::new(environment());
        let nothing = Request::nothing();
        let request = match &declared.request {
            Some(request) => request,
            // Cells of such a source are read; nobody asks for a request.
            None if spec.source.is_some() => &nothing,
            None => {
                return Err(CompileError::NotBuilt(
                    "an endpoint without a request".into(),
                ));
            }
        };
        let requests = request::RequestTemplates::compile(spec, request, &mut templates)?;
        let bodies = body::BodyReader::compile(&spec.format)?;
        let records = extract::Extractor::compile(declared, &bodies, &mut templates)?;
        let steps = steps::Steps::compile(spec, &endpoint, declared, &mut templates)?;
        let columns: Columns = plan
            .matrix
            .names()
            .cloned()
            .chain(declared.fields.keys().map(|k| Arc::from(k.as_str())))
            .collect();
        Ok(Connector {
            provider: provider.to_owned(),
            budgets: spec.limiter_name(),
            names: Arc::new(RunNames::of(plan)),
            columns,
            requests,
            rules: classify::Rules::compile(spec, &bodies)?,
            bodies,
            records,
            steps,
            scopes: scope::compile(spec, &mut templates)?,
            pick: compile_pick(spec, &mut templates)?,
            tokens: TokenTemplates::compile(spec, &mut templates)?,
            templates,
            endpoint: endpoint.into(),
        })
    }

    /// The endpoint's name.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The provider's name.
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// The provider as the limiter knows it.
    pub fn budgets(&self) -> &str {
        &self.budgets
    }

    /// The names of a record's values: the cell's dimensions, then the endpoint's fields.
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// Whether `pick:` binds each cell to one credential.
    pub fn picks(&self) -> bool {
        self.pick.is_some()
    }

    /// The name of the credential that serves a cell; `None` when any of the pool may.
    ///
    /// # Errors
    /// When `pick:` cannot be rendered for it.
    pub fn pick(&self, context: &CallContext) -> Option<Result<String, NotRequestable>> {
        let pick = self.pick.as_ref()?;
        let rendered = self.templates.render(pick, &context.clone().value());
        Some(rendered.map_err(|e| NotRequestable(e.to_string())))
    }

    /// The context of one cell, from its values in the order of the plan's names.
    pub fn cell(&self, values: Vec<serde_json::Value>) -> CallContext {
        CallContext::new(self.names.clone(), self.endpoint.clone(), values)
    }
}

fn compile_pick(
    provider: &Provider,
    templates: &mut Templates,
) -> Result<Option<Compiled>, CompileError> {
    let pick = provider
        .credentials
        .as_ref()
        .and_then(|c| c.pick.as_deref());
    pick.map(|source| {
        templates
            .compile(source)
            .map_err(|e| CompileError::syntax(source, e))
    })
    .transpose()
}

fn find<'a>(
    plan: &'a Plan,
    provider: &str,
    endpoint: &str,
) -> Result<(&'a Provider, &'a Endpoint), CompileError> {
    let missing = || CompileError::Missing {
        provider: provider.to_owned(),
        endpoint: endpoint.to_owned(),
    };
    let spec = plan.providers.get(provider).ok_or_else(missing)?;
    let declared = spec.endpoints.get(endpoint).ok_or_else(missing)?;
    Ok((spec, declared))
}
