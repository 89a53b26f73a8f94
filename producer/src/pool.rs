//! The keys of a provider, as far as the producer can see them: how many there are.
//!
//! The workers read them; the producer counts them where it can, to tell "one key is closed" from
//! "every key is closed".

use paceline_protocol::settings::Environment;
use paceline_protocol::spec::{CredentialSource, Provider};

/// How many credentials a provider has; `None` when the producer cannot see them, or there are none.
pub fn size(provider: &Provider, env: &impl Environment) -> Option<usize> {
    match &provider.credentials.as_ref()?.from {
        CredentialSource::Env(name) => {
            let list = env.secret(name).ok().flatten()?;
            let keys = list.split(',').filter(|key| !key.trim().is_empty()).count();
            (keys > 0).then_some(keys)
        }
        // A named credential is picked for each cell: none of them stands for the whole provider.
        CredentialSource::File(_) => None,
    }
}

/// A credential's place in the pool, from its public name (`0-3fa91c`).
pub fn place(public_name: &str) -> Option<usize> {
    public_name.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_name_begins_with_its_place() {
        assert_eq!(place("12-3fa91c"), Some(12));
        assert_eq!(place("default"), None);
    }
}
