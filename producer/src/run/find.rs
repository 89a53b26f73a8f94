//! From what a person types (`<run>` or `<job>/<run>`) to the run.

use anyhow::{Context as _, Result};
use paceline_protocol::ids::{RunId, RunRef, is_name};
use paceline_protocol::layout::RunLayout;

use crate::exit::Refusal;
use crate::stores::Archive;

/// Finds the run that `text` names. The open runs come first, then every job's folder is asked.
///
/// # Errors
/// With [`crate::exit::Exit::Usage`] when there is none, or several; else when S3 does not answer.
pub async fn find(archive: &Archive, text: &str) -> Result<RunRef> {
    let (job, run) = parse(text)?;
    let jobs = match job {
        Some(job) => vec![job],
        None => jobs(archive).await?,
    };
    let mut found = Vec::new();
    for job in jobs {
        let run = RunRef {
            job,
            run: run.clone(),
        };
        if is_there(archive, &run).await? {
            found.push(run);
        }
    }
    only_one(text, found)
}

/// The jobs that have a folder below the prefix.
///
/// # Errors
/// When S3 does not answer.
pub async fn jobs(archive: &Archive) -> Result<Vec<String>> {
    let root = format!("{}/", archive.fleet.prefix.trim_matches('/'));
    let folders = archive.objects.folders(&root).await?;
    let mut names: Vec<String> = folders
        .iter()
        .map(|folder| folder.trim_matches('/').to_owned())
        .filter(|name| is_name(name) && !OURS.contains(&name.as_str()))
        .collect();
    names.sort();
    Ok(names)
}

/// Folders below the prefix that belong to no job.
const OURS: [&str; 4] = ["open-runs", "rebuilds", "limits", "credentials"];

fn parse(text: &str) -> Result<(Option<String>, RunId)> {
    let (job, run) = match text.split_once('/') {
        Some((job, run)) => (Some(job.to_owned()), run),
        None => (None, text),
    };
    let run = run
        .parse::<RunId>()
        .map_err(|e| Refusal::usage(e.to_string()))?;
    if let Some(bad) = job.as_deref().filter(|job| !is_name(job)) {
        return Err(Refusal::usage(format!(
            "`{bad}` is not a job's name; write <run> or <job>/<run>"
        )));
    }
    Ok((job, run))
}

async fn is_there(archive: &Archive, run: &RunRef) -> Result<bool> {
    let plan = RunLayout::new(&archive.fleet.prefix, run).plan();
    let head = archive.objects.head(&plan).await;
    Ok(head
        .with_context(|| format!("looking for run {run}"))?
        .is_some())
}

fn only_one(text: &str, mut found: Vec<RunRef>) -> Result<RunRef> {
    match (found.pop(), found.is_empty()) {
        (Some(run), true) => Ok(run),
        (Some(last), false) => {
            let names: Vec<String> = found.iter().chain([&last]).map(RunRef::to_string).collect();
            Err(Refusal::usage(format!(
                "several jobs have a run {text}: say {}",
                names.join(" or ")
            )))
        }
        (None, _) => Err(Refusal::usage(format!(
            "there is no run {text}; `producer runs` lists them"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_named_alone_or_behind_its_job() {
        let parsed = |text| parse(text).map(|(job, run)| (job, run.to_string()));
        assert_eq!(
            parsed("2026-11-21").expect("good"),
            (None, "2026-11-21".into())
        );
        assert_eq!(
            parsed("fares/x").expect("good"),
            (Some("fares".into()), "x".into())
        );
        assert!(parsed("../x").is_err());
        assert!(parsed("a/b/c").is_err());
    }

    #[test]
    fn a_name_that_fits_several_jobs_is_asked_back() {
        let run = |job: &str| RunRef {
            job: job.into(),
            run: "x".parse().expect("a run id"),
        };
        let error = only_one("x", vec![run("a"), run("b")]).expect_err("ambiguous");
        assert_eq!(
            error.to_string(),
            "several jobs have a run x: say a/x or b/x"
        );
    }
}
