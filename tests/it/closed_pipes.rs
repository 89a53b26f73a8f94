//! A pipe or a socket that the other side closes must not kill the producer.

use std::io::Read;
use std::process::{Command, Stdio};

use harness::Binaries;

fn producer() -> Command {
    Command::new(Binaries::find().expect("built").path("producer"))
}

/// A server that cuts its connection sends the signal that a closed pipe sends. While it was let
/// through, a run under `enqueue --wait` lost its watcher with the first connection that broke.
#[test]
fn a_server_that_cuts_its_connection_does_not_kill_the_producer() {
    const SIGPIPE: u32 = 13;
    let mut command = producer();
    // Nobody answers there, and the producer asks for up to 30 s.
    let mut child = command
        .args(["runs"])
        .env_clear()
        .envs([
            ("REDIS_URL", "redis://127.0.0.1:1/"),
            ("AMQP_URL", "amqp://127.0.0.1:1/"),
            ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "a"),
            ("AWS_SECRET_ACCESS_KEY", "b"),
            ("PACELINE_BUCKET", "none"),
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut first = [0];
    let mut stderr = child.stderr.take().expect("piped");
    stderr
        .read_exact(&mut first)
        .expect("it says that it waits");
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).expect("it lives");
    child.kill().expect("killed");
    child.wait().expect("reaped");
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .expect("Linux says which signals are ignored");
    let ignored = u64::from_str_radix(ignored.trim(), 16).expect("a mask");
    assert_ne!(ignored & 1 << (SIGPIPE - 1), 0, "SigIgn: {ignored:x}");
}

#[test]
fn a_reader_that_goes_away_ends_the_producer_quietly() {
    let mut child = producer()
        .args(["schema", "job"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    drop(child.stdout.take());
    let ended = child.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
    // A pipe may have taken all of it before it was closed.
    assert!(
        matches!(ended.status.code(), Some(0 | 141)),
        "{}",
        ended.status
    );
}
