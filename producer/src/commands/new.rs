//! `producer new`

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use paceline_protocol::ids::is_name;

use super::load;
use crate::check::check;
use crate::cli::{NewArgs, NewJobArgs, NewProviderArgs, NewWhat};
use crate::context::Context;
use crate::exit::{Exit, Refusal};
use crate::scaffold::{Draft, from_curl, from_openapi, job_text, provider_text};

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
    let call = match args.from_curl.as_deref() {
        Some("-") => Some(read_stdin()?),
        Some(command) => Some(command.to_owned()),
        None => None,
    };
    let call = call
        .map(|command| from_curl(&command))
        .transpose()
        .map_err(|error| Refusal::usage(format!("--from-curl: {error}")))?;
    let name = named(&args.name)?.to_owned();
    let draft = match (&args.from_openapi, &args.operation) {
        (Some(file), Some(operation)) => openapi(&name, file, operation)?,
        _ => Draft {
            name,
            call,
            reading: None,
        },
    };
    let path = put(context, "providers", &args.name, &provider_text(&draft))?;
    let next = format!(
        "next: correct its limits, `records` and `fields`, then `producer new job NAME --provider {}`",
        args.name
    );
    checked(context, &path, &next)
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
    let provider = folder
        .provider(&args.provider)
        .map_err(|error| load::refused(context, &error))?;
    let known: Vec<&str> = provider.endpoints.keys().map(String::as_str).collect();
    let endpoint = match (&args.endpoint, known.as_slice()) {
        (Some(endpoint), _) => endpoint.as_str(),
        (None, [only]) => only,
        (None, several) => {
            return Err(Refusal::usage(format!(
                "{} has several endpoints; choose one by --endpoint: {}",
                provider.name,
                several.join(", ")
            )));
        }
    };
    let Some(declared) = provider.endpoints.get(endpoint) else {
        return Err(Refusal::usage(format!(
            "{} has no endpoint {endpoint}, but {}",
            provider.name,
            known.join(", ")
        )));
    };
    let name = named(&args.name)?;
    let text = job_text(
        name,
        &provider,
        endpoint,
        declared,
        &folder.wanted(&provider.name, endpoint),
    );
    let path = put(context, "jobs", name, &text)?;
    let next = format!("next: fill its `split`, then `producer plan {name}`");
    checked(context, &path, &next)
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
