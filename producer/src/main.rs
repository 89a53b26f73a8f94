//! The command line of Paceline's producer.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    paceline_producer::start().await.into()
}
