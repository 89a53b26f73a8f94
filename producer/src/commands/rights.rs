//! `producer rights`

use anyhow::Result;
use paceline_protocol::settings::FleetSettings;

use super::load;
use crate::cli::{RightsArgs, RightsOf};
use crate::context::Context;
use crate::exit::Exit;
use crate::rights::{Touched, elasticsearch, rabbitmq, redis, s3};

/// Prints what is to be applied to one server.
///
/// # Errors
/// When a setting is missing, or a job of the spec folder is wrong.
pub fn run(context: &Context, args: &RightsArgs) -> Result<Exit> {
    let fleet = FleetSettings::read(&context.env)?;
    let folder = load::folder(context)?;
    let mut jobs = Vec::new();
    for name in folder.job_names() {
        let job = folder.job(name);
        jobs.push(job.map_err(|error| load::refused(context, &error))?);
    }
    let touched = Touched::of(&jobs);
    let json = |value| serde_json::to_string_pretty(&value);
    let text = match args.of {
        RightsOf::Redis => redis(&fleet, &touched).trim_end().to_owned(),
        RightsOf::Rabbitmq => json(rabbitmq(&fleet))?,
        RightsOf::S3 => json(s3(&fleet, &touched))?,
        RightsOf::Elasticsearch => json(elasticsearch(&touched))?,
    };
    crate::terminal::data(text);
    Ok(Exit::Done)
}
