//! What the calls of a provider's endpoint take from the job that makes them.

use super::across::concerns;
use super::folder::SpecFolder;
use super::scope::is_reserved;

/// Names that a job has to give, each list in the order of the alphabet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Dimensions.
    pub dimensions: Vec<String>,
    /// `params`
    pub params: Vec<String>,
}

impl SpecFolder {
    /// What calls of `endpoint` at `provider` want: their request, and whatever signs it, limits it or
    /// chooses its credential.
    pub fn wanted(&self, provider: &str, endpoint: &str) -> Wanted {
        let uses = self.provider_source(provider).map(|source| &source.uses);
        let mut wanted = Wanted::default();
        let concerned = uses.into_iter().flatten();
        for used in concerned.filter(|used| concerns(&used.spot, endpoint)) {
            for name in &used.names {
                match name.split_once('.') {
                    Some(("params", param)) => wanted.params.push(param.to_owned()),
                    Some(_) => {}
                    None if is_reserved(name) => {}
                    None => wanted.dimensions.push(name.clone()),
                }
            }
        }
        for names in [&mut wanted.dimensions, &mut wanted.params] {
            names.sort();
            names.dedup();
        }
        wanted
    }
}
