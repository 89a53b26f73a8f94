//! JOIN: stands for the real `producer::plan`.
#![allow(clippy::todo, missing_docs)]

use jiff::Timestamp;
use jiff::civil::Date;
use paceline_protocol::ids::RunId;
use paceline_protocol::plan::Plan;
use paceline_protocol::settings::Environment;
use serde::Serialize;

use crate::spec_files::LoadedJob;

pub struct PlanRequest {
    pub run: RunId,
    pub date: Option<Date>,
    pub now: Timestamp,
    pub params: Vec<(String, String)>,
    pub only: Vec<(String, String)>,
    pub allow_shrink: bool,
    pub force: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot be planned")]
pub struct PlanError;

#[derive(Serialize)]
pub struct Estimate;

impl std::fmt::Display for Estimate {
    fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        todo!()
    }
}

pub fn plan_run(
    _job: &LoadedJob,
    _request: &PlanRequest,
    _env: &impl Environment,
) -> Result<Plan, PlanError> {
    todo!()
}

pub fn estimate(_plan: &Plan, _env: &impl Environment) -> Estimate {
    todo!()
}
