//! `producer new`

mod questions;

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use paceline_protocol::ids::is_name;
use paceline_protocol::spec::check_rate;

use super::load;
use crate::check::check;
use crate::cli::{NewArgs, NewJobArgs, NewProviderArgs, NewWhat};
use crate::context::Context;
use crate::exit::{Exit, Refusal};
use crate::scaffold::{Call, Draft, from_curl, from_openapi, from_url, job_text, provider_text};

/// Writes a first draft and says what `check` thinks of it.
///
/// # Errors
/// When the name is taken or none, or what it is made from cannot be read.
pub fn run(context: &Context, args: &NewArgs) -> Result<Exit> {
    match &args.what {
        NewWhat::Provider(args) => provider(context, args),
        NewWhat::Job(args) => job(context, args),
    }
}

fn provider(context: &Context, args: &NewProviderArgs) -> Result<Exit> {
    if let Some(rate) = &args.rate {
        check_rate(rate)
            .map_err(|right| Refusal::usage(format!("--rate: `{rate}` is no rate; {right}")))?;
    }
    let name = asked_name(args.name.as_deref(), "Name of the provider")?;
    let draft = match (&args.from_openapi, &args.operation) {
        (Some(file), Some(operation)) => Draft {
            rate: args.rate.clone(),
            ..openapi(&name, file, operation)?
        },
        _ => Draft {
            call: called(args)?,
            rate: args.rate.clone(),
            records: args.records.clone(),
            reading: None,
            name: name.clone(),
        },
    };
    let nothing_said = draft.call.is_none() && draft.rate.is_none() && draft.records.is_none();
    let draft = match nothing_said && questions::can_be_asked() {
        true => questions::about_a_provider(draft)?,
        false => draft,
    };
    let path = put(context, "providers", &name, &provider_text(&draft))?;
    let next = format!(
        "next: correct its limits, `records` and `fields`, then `producer new job NAME --provider {name}`"
    );
    checked(context, &path, &next)
}

/// What a curl command or a URL calls.
fn called(args: &NewProviderArgs) -> Result<Option<Call>> {
    let (flag, call) = match (&args.from_curl, &args.url) {
        (Some(command), _) if command == "-" => ("--from-curl", from_curl(&read_stdin()?)),
        (Some(command), _) => ("--from-curl", from_curl(command)),
        (None, Some(url)) => ("--url", from_url(url)),
        (None, None) => return Ok(None),
    };
    let call = call.map_err(|error| Refusal::usage(format!("{flag}: {error}")))?;
    Ok(Some(call))
}

/// A name as it was given, or as a person says it.
fn asked_name(given: Option<&str>, what: &str) -> Result<String> {
    match given {
        Some(name) => named(name).map(str::to_owned),
        None if questions::can_be_asked() => questions::name(what),
        None => Err(Refusal::usage(
            "a name is missing: `producer new provider NAME` or `producer new job NAME --provider NAME`; on a terminal one is asked for",
        )),
    }
}

fn openapi(name: &str, file: &Path, operation: &str) -> Result<Draft> {
    let shown = file.display();
    let text = std::fs::read_to_string(file)
        .map_err(|error| Refusal::usage(format!("--from-openapi {shown}: {error}")))?;
    from_openapi(name, &text, operation)
        .map_err(|error| Refusal::usage(format!("--from-openapi {shown}: {error}")))
}

fn job(context: &Context, args: &NewJobArgs) -> Result<Exit> {
    let folder = load::folder(context)?;
    let name = asked_name(args.name.as_deref(), "Name of the job")?;
    let provider = match &args.provider {
        Some(provider) => provider.clone(),
        None => chosen(
            "its provider (--provider)",
            names(folder.provider_names()),
            "the spec folder has no provider yet: `producer new provider`",
        )?,
    };
    let provider = folder
        .provider(&provider)
        .map_err(|error| load::refused(context, &error))?;
    let known: Vec<&str> = provider.endpoints.keys().map(String::as_str).collect();
    let endpoint = match (&args.endpoint, known.as_slice()) {
        (Some(endpoint), _) => endpoint.clone(),
        (None, several) => chosen(
            "one of its endpoints (--endpoint)",
            names(several.to_vec()),
            "it has no endpoint",
        )?,
    };
    let endpoint = endpoint.as_str();
    let Some(declared) = provider.endpoints.get(endpoint) else {
        return Err(Refusal::usage(format!(
            "{} has no endpoint {endpoint}, but {}",
            provider.name,
            known.join(", ")
        )));
    };
    let text = job_text(
        &name,
        &provider,
        endpoint,
        declared,
        &folder.wanted(&provider.name, endpoint),
    );
    let path = put(context, "jobs", &name, &text)?;
    let next = format!("next: fill its `split`, then `producer plan {name}`");
    checked(context, &path, &next)
}

fn names(names: Vec<&str>) -> Vec<String> {
    names.into_iter().map(str::to_owned).collect()
}

/// The only one, or the one that a person chooses.
fn chosen(what: &str, mut among: Vec<String>, none: &str) -> Result<String> {
    match among.len() {
        0 => Err(Refusal::usage(none)),
        1 => Ok(among.remove(0)),
        _ if questions::can_be_asked() => questions::choice(what, among),
        _ => Err(Refusal::usage(format!(
            "choose {what}: {}",
            among.join(", ")
        ))),
    }
}

fn named(name: &str) -> Result<&str> {
    if is_name(name) {
        return Ok(name);
    }
    Err(Refusal::usage(format!(
        "`{name}` is no name: a to z, 0 to 9 and hyphens, a letter first"
    )))
}

fn read_stdin() -> Result<String> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .context("reading the command line from stdin")?;
    Ok(text)
}

/// Writes a new file; one that is there stays.
fn put(context: &Context, folder: &str, name: &str, text: &str) -> Result<PathBuf> {
    let folder = context.spec.join(folder);
    let path = folder.join(format!("{name}.yaml"));
    let shown = path.display();
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let file = OpenOptions::new().write(true).create_new(true).open(&path);
    let mut file = match file {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return Err(Refusal::usage(format!(
                "{shown} is there already; nothing was written"
            )));
        }
        file => file.with_context(|| format!("writing {shown}"))?,
    };
    file.write_all(text.as_bytes())
        .with_context(|| format!("writing {shown}"))?;
    Ok(path)
}

/// Prints the file's path, and tells what `check` says and what comes next.
fn checked(context: &Context, path: &Path, next: &str) -> Result<Exit> {
    let report = check(&[path.to_owned()], &context.spec, &context.env)?;
    crate::terminal::data(path.display());
    context.say(report.to_text().trim_end());
    context.say(next);
    Ok(if report.exit_code() == 0 {
        Exit::Done
    } else {
        Exit::WrongFile
    })
}
