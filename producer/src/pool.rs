//! The keys of a provider by their public names, where the producer's environment holds the pool.
//!
//! The workers read the keys to use them; the producer counts them, to tell "one key is closed" from
//! "every key is closed".

use paceline_protocol::connector::{Accounts, Credential, pool_entries, public_name};
use paceline_protocol::settings::Environment;
use paceline_protocol::spec::{CredentialSource, Provider};

/// The public names of a provider's pool; `None` when the producer cannot see it, or there is none.
pub fn names(provider: &Provider, env: &(impl Environment + ?Sized)) -> Option<Vec<String>> {
    let variable = match &provider.credentials.as_ref()?.from {
        CredentialSource::Env(variable) => variable,
        CredentialSource::File(path) => return of_file(provider, path, env),
    };
    let list = env.secret(variable).ok().flatten()?;
    let entries = pool_entries(&list);
    let named = entries
        .iter()
        .enumerate()
        .map(|(place, entry)| public_name(&provider.name, place, entry));
    (!entries.is_empty()).then(|| named.collect())
}

fn of_file(
    provider: &Provider,
    path: &str,
    env: &(impl Environment + ?Sized),
) -> Option<Vec<String>> {
    let accounts = Accounts::read(&provider.name, path, env).ok()?;
    let names = accounts.credentials.iter().map(Credential::name);
    Some(names.map(str::to_owned).collect())
}
