//! `producer test`

use std::path::PathBuf;

use anyhow::Result;
use serde_json::json;

use super::load;
use crate::cli::TestArgs;
use crate::context::Context;
use crate::exit::{Exit, Refusal};
use crate::trying::{KeptCase, find};

/// Replays kept cases offline and shows what differs.
///
/// # Errors
/// When there are none, or the spec folder cannot be read.
pub fn run(context: &Context, args: &TestArgs) -> Result<Exit> {
    let spec = load::folder(context)?;
    let default = context.spec.join("cases");
    let mut cases = Vec::new();
    let mut folder: PathBuf = default.clone();
    match &args.what {
        Some(what) if !std::path::Path::new(what).is_dir() => {
            let job = load::job(context, what)?;
            cases.extend(find(&default)?.cases);
            cases.retain(|kept| {
                let Ok(case) = &kept.case else { return true };
                let same = job.job.endpoint.as_deref() == Some(case.endpoint.as_str());
                same && job.providers.contains_key(&case.provider)
            });
        }
        Some(dir) => {
            folder = dir.into();
            cases.extend(find(&folder)?.cases);
        }
        None if default.is_dir() => cases.extend(find(&default)?.cases),
        None => {}
    }
    if cases.is_empty() {
        return Err(Refusal::usage(format!(
            "no kept case in {}; `producer try JOB --record {}` keeps one",
            folder.display(),
            default.display()
        )));
    }
    let mut shown = Vec::new();
    let mut differing = 0;
    for kept in &mut cases {
        let differences = match args.update {
            true => update(kept, &spec)?,
            false => kept.differences(&spec),
        };
        differing += usize::from(!differences.is_empty());
        if context.json {
            shown.push(json!({"file": kept.path, "differences": differences}));
            continue;
        }
        let mark = if differences.is_empty() {
            "same   "
        } else {
            "differs"
        };
        crate::terminal::data(format!("{mark} {}", kept.path.display()));
        for difference in &differences {
            crate::terminal::data(format!("        {difference}"));
        }
    }
    if context.json {
        crate::terminal::data(serde_json::to_string_pretty(&shown)?);
    }
    context.say(format!("{} cases, {differing} differ", cases.len()));
    Ok(match differing {
        0 => Exit::Done,
        _ => Exit::Error,
    })
}

/// Keeps what comes of a case now as what is expected of it.
fn update(kept: &mut KeptCase, spec: &paceline_protocol::spec::SpecFolder) -> Result<Vec<String>> {
    let Ok(case) = &mut kept.case else {
        return Ok(kept.differences(spec));
    };
    let Ok(provider) = spec.provider(&case.provider) else {
        return Ok(kept.differences(spec));
    };
    case.expected = case.replay(&provider)?;
    std::fs::write(&kept.path, serde_json::to_string_pretty(case)? + "\n")?;
    Ok(Vec::new())
}
