//! The pool of a provider's credentials, read from a process' own environment. Nothing of it ever
//! leaves the process but each credential's public name.

use std::collections::BTreeMap;

use super::{Accounts, AccountsError, Credential, pool_entries, public_name};
use crate::settings::{Environment, SettingError};
use crate::spec::{CredentialSource, Credentials, PoolUse, Provider};

/// A provider's credentials in the order of their list.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    /// Empty when the provider needs none.
    pub credentials: Vec<Credential>,
    /// How it is used up.
    pub use_: PoolUse,
    /// Where `pick` finds the credential of a name.
    pub places: BTreeMap<String, usize>,
}

/// Why a process cannot call a provider.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The list is missing or empty.
    #[error(
        "provider {provider}: {name} holds no credentials; set it to a comma-separated list, or {name}_FILE to a file with one"
    )]
    Empty {
        /// The provider.
        provider: String,
        /// The variable.
        name: String,
    },
    /// An entry has the wrong number of fields. Its text is not shown.
    #[error(
        "provider {provider}: entry {place} of {name} has {found} fields, not {wanted} ({fields}), separated by `:`"
    )]
    Fields {
        /// The provider.
        provider: String,
        /// The variable.
        name: String,
        /// Which entry, from 1.
        place: usize,
        /// How many it has.
        found: usize,
        /// How many it should have.
        wanted: usize,
        /// Their names.
        fields: String,
    },
    /// A file of names that cannot be used.
    #[error(transparent)]
    Accounts(#[from] AccountsError),
    /// A file that cannot be read.
    #[error(transparent)]
    Setting(#[from] SettingError),
}

impl Pool {
    /// Reads the pool that `provider` declares.
    ///
    /// # Errors
    /// When it is missing, empty or malformed; no message holds a secret.
    pub fn read(provider: &Provider, env: &(impl Environment + ?Sized)) -> Result<Self, PoolError> {
        let Some(declared) = &provider.credentials else {
            return Ok(Pool::default());
        };
        let name = match &declared.from {
            CredentialSource::Env(name) => name,
            CredentialSource::File(path) => {
                let accounts = Accounts::read(&provider.name, path, env)?;
                return Ok(Pool {
                    credentials: accounts.credentials,
                    places: accounts.places,
                    use_: declared.use_,
                });
            }
        };
        let list = env.secret(name)?.unwrap_or_default();
        let entries = pool_entries(&list);
        if entries.is_empty() {
            return Err(PoolError::Empty {
                provider: provider.name.clone(),
                name: name.clone(),
            });
        }
        let credentials = entries
            .iter()
            .enumerate()
            .map(|(place, entry)| read_entry(&provider.name, name, declared, place, entry))
            .collect::<Result<_, _>>()?;
        Ok(Pool {
            credentials,
            use_: declared.use_,
            places: BTreeMap::new(),
        })
    }

    /// The credential of a public name.
    pub fn named(&self, name: &str) -> Option<&Credential> {
        self.credentials.iter().find(|c| c.name() == name)
    }
}

fn read_entry(
    provider: &str,
    name: &str,
    declared: &Credentials,
    place: usize,
    entry: &str,
) -> Result<Credential, PoolError> {
    let names: Vec<&str> = declared.fields.iter().map(String::as_str).collect();
    // The last field may hold the separator.
    let values: Vec<&str> = entry.splitn(names.len().max(1), ':').collect();
    if values.len() != names.len() {
        return Err(PoolError::Fields {
            provider: provider.to_owned(),
            name: name.to_owned(),
            place: place + 1,
            found: values.len(),
            wanted: names.len(),
            fields: names.join(":"),
        });
    }
    let fields: BTreeMap<String, String> = names
        .iter()
        .zip(values)
        .map(|(name, value)| ((*name).to_owned(), value.to_owned()))
        .collect();
    Ok(Credential::new(
        &public_name(provider, place, entry),
        fields,
    ))
}
