//! Objects that did not count: with `max_age` an older one stands in for a newest one that is no good. That is no
//! failure, and yet it must not change a result without a word.

use paceline_protocol::connector::Connector;

use super::super::LoadError;
use super::Finish;
use super::gate::Verdict;
use crate::collect::source::ObjectsRead;

/// How many are named.
const NAMED: usize = 10;
/// How many cells are looked at.
const LOOKED_AT: usize = 1_000;

impl Finish<'_> {
    /// Names them in the run's notes.
    pub(super) async fn name_stand_ins(&self, verdict: &mut Verdict) -> Result<(), LoadError> {
        let plan = &self.run.plan;
        let chosen = plan.inputs.objects.values().any(|named| named.len() > 1);
        // What a rebuild would read may be gone by now.
        if !chosen || self.open.rebuild.is_some() {
            return Ok(());
        }
        let mut found = Vec::new();
        for segment in &plan.segments {
            let provider = plan.providers.get(&segment.provider);
            let Some(s3) = provider.and_then(|p| p.source.as_ref()?.get("s3")) else {
                continue;
            };
            let connector = Connector::compile(plan, &segment.provider)
                .map_err(|error| LoadError::Unsupported(error.to_string()))?;
            let objects = ObjectsRead::new(plan, &self.loader.stores.objects, s3);
            let cells = segment.first_cell..segment.first_cell + segment.cells;
            for cell in cells.take(LOOKED_AT) {
                // What cannot be read now was read by whoever collected it.
                if let Ok(Some(stand_in)) = objects.stand_in(plan, &connector, cell).await {
                    found.push(stand_in);
                }
            }
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
