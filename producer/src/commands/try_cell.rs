//! `producer try`

use anyhow::Result;

use super::load::{self, Asked};
use crate::calling::Fleet;
use crate::cli::TryArgs;
use crate::context::Context;
use crate::exit::Exit;
use crate::stores::Archive;
use crate::trying::{Trying, keep};

/// Makes the calls of one cell under the fleet's limits and shows everything of them.
///
/// # Errors
/// When a server is away, the job is wrong, there is no such cell, or a limit stays closed.
pub async fn run(context: &Context, args: &TryArgs) -> Result<Exit> {
    let job = load::job(context, &args.job)?;
    let archive = Archive::connect(&context.env).await?;
    let asked = Asked {
        narrowing: &args.narrowing,
        known: None,
        parent: None,
        archive: Some(&archive),
        allow_shrink: false,
        force: false,
    };
    let plan = load::plan(context, &job, load::new_run_id(), &asked).await?;
    let (state, limiter) = (
        archive.state(&context.env).await?,
        archive.limiter(&context.env).await?,
    );
    let fleet = Fleet {
        archive: &archive,
        limiter: &limiter,
        state: &state,
    };
    let trying = Trying::new(fleet, &plan, args.cell.unwrap_or(0), &context.env)?;
    let (tried, mut case) = trying.run(args.calls).await?;
    if context.json {
        crate::terminal::data(serde_json::to_string_pretty(&tried)?);
    } else {
        crate::terminal::text(tried.to_text());
    }
    if let Some(dir) = &args.record {
        let provider = load::folder(context)?
            .provider(&case.provider)
            .map_err(|error| load::refused(context, &error))?;
        case.expected = case.replay(&provider)?;
        let path = keep(dir, &case)?;
        context.say(format!("kept as {}", path.display()));
    }
    Ok(match (tried.is_good(), tried.closed) {
        (true, _) => Exit::Done,
        (false, true) => Exit::StoppedByProvider,
        (false, false) => Exit::OutsideGate,
    })
}
