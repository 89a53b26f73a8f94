//! Who started a run, as far as its plan and its id tell.

use paceline_protocol::plan::Plan;

use crate::serve::calendar::planned_in;

/// In a few words.
pub(super) fn cause(plan: &Plan) -> String {
    let id = plan.run.as_str();
    match (&plan.inputs.parent, planned_in(&plan.run)) {
        (Some(parent), _) if plan.job.after.is_some() => {
            format!("the end of {}/{}", parent.job, parent.id)
        }
        (_, Some(_)) => "its schedule".to_owned(),
        _ if id.starts_with("m-") => "a message".to_owned(),
        _ if plan.job.trigger.is_some() => "new objects, or hand".to_owned(),
        _ => "hand (command line, API or page)".to_owned(),
    }
}
