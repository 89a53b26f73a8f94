//! Job and provider files: what they may say ([`Job`], [`Provider`]) and how they are read, with everything
//! that is wrong reported at once with its place.
//!
//! A file becomes a tree that knows its places, hand-written readers make the model of it, and a
//! [`SpecFolder`] looks at what files need from each other. Reading a file is pure; only the folder and
//! the lists beside a job touch the disk.

mod across;
mod auth;
mod body_places;
mod diagnostic;
mod dimension;
mod endpoint;
mod environment;
mod fields;
mod folder;
mod jinja;
mod job;
mod limits;
mod lists;
mod model;
mod names;
mod not_built;
mod outcomes;
mod outputs;
mod provider;
mod reader;
mod schema;
mod scope;
mod secrets;
mod sense;
mod shared;
mod source;
mod tree;
mod wanted;
mod words;

pub use across::TOO_MANY_CELLS;
pub use diagnostic::{Diagnostic, Position, Severity, any_error, choose};
pub use environment::{MissingNames, expand_env, names_in};
pub use fields::{NamedFields, mapping_of_fields};
pub use folder::{LoadError, LoadedJob, SpecFolder, Unreadable};
pub use jinja::{
    Fault as TemplateFault, expression as expression_names, template as template_names,
};
pub use limits::{check_rate, limit_numbers};
pub use lists::{ListError, Table};
pub use model::*;
pub use not_built::not_built;
pub use reader::is_identifier;
pub use schema::{JOB_SCHEMA, PROVIDER_SCHEMA};
pub use scope::{NOTICE_NAMES, is_reserved};
pub use secrets::{is_secret_name, is_secret_segment, is_signed_token};
pub use source::{Source, Sourced, SpecFile, VariableUse, read};
pub use tree::{plain_scalar, yaml_value};
pub use wanted::Wanted;
pub use words::{Day, day, span};
