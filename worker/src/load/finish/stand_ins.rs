//! Objects that did not count: with `max_age` an older one stands in for a newest one that is no good. That is no
//! failure, and yet it must not change a result without a word.
//!
//! What was read is said by whoever read it (`collect/settle.rs`): an object may have been written over since.

use super::super::LoadError;
use super::Finish;
use super::gate::Verdict;

/// How many are named.
const NAMED: usize = 10;

impl Finish<'_> {
    /// Names them in the run's notes.
    pub(super) async fn name_stand_ins(&self, verdict: &mut Verdict) -> Result<(), LoadError> {
        let plan = &self.run.plan;
        let chosen = plan.inputs.objects.values().any(|named| named.len() > 1);
        if !chosen || self.open.rebuild.is_some() {
            return Ok(());
        }
        let stores = &self.loader.stores;
        let mut found: Vec<String> = Vec::new();
        for listed in stores.objects.list(&self.run.layout.stand_ins()).await? {
            let of_part: Option<Vec<String>> = stores.read_json(&listed.key).await?;
            found.extend(of_part.unwrap_or_default());
        }
        let more = found.len().saturating_sub(NAMED);
        verdict.notes.extend(found.into_iter().take(NAMED));
        if more > 0 {
            verdict
                .notes
                .push(format!("and {more} more objects that did not count"));
        }
        Ok(())
    }
}
