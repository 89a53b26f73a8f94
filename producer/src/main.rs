//! The command line of Paceline's producer.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    // `producer ... | head` ends as other programs do, without a panic.
    sigpipe::reset();
    paceline_producer::start().await.into()
}
