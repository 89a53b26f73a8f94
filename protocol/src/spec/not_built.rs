//! What the files rightly say but this build cannot run yet: `check` passes it, a run is refused.

use super::diagnostic::Diagnostic;
use super::folder::LoadedJob;
use super::model::*;
use super::source::Source;

/// Collects what is not built, with its place.
struct Found<'s> {
    source: &'s Source,
    list: Vec<Diagnostic>,
}

impl Found<'_> {
    fn when(&mut self, holds: bool, path: &str, what: &str) {
        if holds {
            let found = self
                .source
                .key_fault(path, format!("{what} cannot be run by this version yet"));
            self.list
                .push(found.hint("the file is right; a later version runs it"));
        }
    }
}

/// Everything in `loaded` that this build cannot run; empty when it can run the job.
pub fn not_built(loaded: &LoadedJob) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for (name, provider) in &loaded.providers {
        if let Some(source) = loaded.provider_sources.get(name) {
            let endpoint = loaded.job.endpoint.as_deref().unwrap_or_default();
            found.extend(of_provider(source, provider, endpoint));
        }
    }
    found
}

fn of_provider(source: &Source, provider: &Provider, endpoint: &str) -> Vec<Diagnostic> {
    let mut found = Found {
        source,
        list: Vec::new(),
    };
    found.when(
        provider.source.is_some() && !provider.limits.is_empty(),
        "limits",
        "a limit of a source that is no HTTP API",
    );
    of_credentials(&mut found, provider);
    if let Some(used) = provider.endpoints.get(endpoint) {
        of_endpoint(&mut found, &format!("endpoints.{endpoint}"), used);
    }
    found.list
}

fn of_credentials(found: &mut Found, provider: &Provider) {
    for (i, auth) in provider.auth.iter().enumerate() {
        let kept = matches!(auth, Auth::Oauth2 { .. } | Auth::Session { .. });
        // What is kept is sealed by the credential's own secrets.
        found.when(
            kept && provider.credentials.is_none(),
            &format!("auth[{i}]"),
            "signing in by a token request or a log-in without `credentials`",
        );
    }
}

fn of_endpoint(found: &mut Found, path: &str, endpoint: &Endpoint) {
    if let Some(detail) = &endpoint.detail {
        let css = matches!(detail.records, BodyPlace::Css(_));
        found.when(css, &format!("{path}.detail.records"), "a CSS selector");
    }
}
