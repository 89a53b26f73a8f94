//! The end of a rebuild: what it came to is said beside the manifest, which stays as it is, and nobody is told
//! that the run ended once more.

use std::collections::BTreeMap;

use jiff::Timestamp;
use paceline_protocol::layout;
use paceline_protocol::rebuild::{Rebuild, Rebuilt};

use super::super::LoadError;
use super::gate::Verdict;
use super::{Finish, REMEMBERED, to_json};
use crate::crash;

impl Finish<'_> {
    /// Says what the rebuild came to, and takes it out of the list. The entry goes last: until then its
    /// receipts start the same once more.
    pub(super) async fn end_rebuild(
        &self,
        rebuild: &Rebuild,
        verdict: &Verdict,
        documents: u64,
        sets: BTreeMap<String, u64>,
    ) -> Result<(), LoadError> {
        let (stores, run) = (&self.loader.stores, &self.run.run);
        let index = match self.run.output() {
            Some(output) => Some(self.run.index_name(output).await?),
            None => None,
        };
        let rebuilt = Rebuilt {
            id: rebuild.id,
            at: Timestamp::now(),
            passed: verdict.passed,
            documents,
            index,
            sets,
            notes: verdict.notes.clone(),
        };
        let objects = &stores.objects;
        crash::point("rebuild-before-said");
        objects
            .put(&self.run.layout.rebuilt(), to_json(&rebuilt), &[])
            .await?;
        if verdict.publish {
            self.remove_old_indices().await?;
        }
        stores.state.expire_run(run, REMEMBERED).await?;
        crash::point("rebuild-before-end");
        objects
            .delete(&layout::rebuild(&stores.fleet.prefix, run))
            .await?;
        self.loader.close(self.run);
        tracing::info!(
            run.id = %run, passed = rebuilt.passed, documents, sets = rebuilt.sets.len(),
            notes = ?rebuilt.notes, "made again from its parts",
        );
        Ok(())
    }
}
