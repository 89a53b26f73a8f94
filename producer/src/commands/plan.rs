//! `producer plan`

use anyhow::Result;

use super::load::{self, Asked};
use crate::cli::PlanArgs;
use crate::context::Context;
use crate::exit::Exit;
use crate::plan::estimate::{Estimate, estimate, estimate_with};
use crate::plan::past;

/// Plans a run that is not made, and prints what it would take.
///
/// # Errors
/// When the job is unknown or wrong, or cannot be planned.
pub async fn run(context: &Context, args: &PlanArgs) -> Result<Exit> {
    let job = load::job(context, &args.job)?;
    let asked = Asked {
        narrowing: &args.narrowing,
        known: None,
        parent: None,
        archive: None,
        allow_shrink: false,
        force: false,
    };
    let plan = load::plan(context, &job, load::new_run_id(), &asked).await?;
    let expected = past::expected(&context.env, &plan.job.name).await;
    let told = estimate_with(&plan, &context.env, expected);
    print(context, &told)?;
    if args.require_fit && !told.misfits.is_empty() {
        return Ok(Exit::StoppedByProvider);
    }
    Ok(Exit::Done)
}

/// Prints a plan's estimate to stdout.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn print_estimate(context: &Context, plan: &paceline_protocol::plan::Plan) -> Result<()> {
    print(context, &estimate(plan, &context.env))
}

fn print(context: &Context, estimate: &Estimate) -> Result<()> {
    if context.json {
        crate::terminal::data(serde_json::to_string_pretty(estimate)?);
    } else {
        crate::terminal::text(estimate.to_text());
    }
    Ok(())
}
