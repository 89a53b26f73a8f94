//! `stack up` as people use it: it prints what leads to the servers, and leaves nothing behind.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

struct Up {
    child: Child,
    redis: String,
}

/// Starts `stack up --only redis` with a desk of its own below `state`.
fn up(state: &Path, arguments: &[&str]) -> Up {
    let mut child = Command::new(env!("CARGO_BIN_EXE_stack"))
        .args(["up", "--only", "redis"])
        .args(arguments)
        .env("PACELINE_STACK_STATE", state)
        .env("TMPDIR", state.parent().expect("in a folder"))
        .env_remove("REDIS_URL")
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("piped");
    BufReader::new(stdout).read_line(&mut line).expect("a line");
    let redis = line
        .trim()
        .strip_prefix("export REDIS_URL='redis://")
        .and_then(|rest| rest.strip_suffix("/'"))
        .unwrap_or_else(|| panic!("no environment but {line:?}"));
    Up {
        redis: redis.to_owned(),
        child,
    }
}

fn answers(address: &str) -> bool {
    TcpStream::connect(address).is_ok()
}

/// Waits for something that happens soon.
fn eventually(what: &str, happened: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !happened() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The throwaway folders of servers.
fn folders(temporary: &Path) -> usize {
    let entries = std::fs::read_dir(temporary).expect("a folder");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    names
        .filter(|name| name.to_string_lossy().starts_with("paceline-"))
        .count()
}

#[test]
fn after_kill_9_neither_server_nor_folder_stays() {
    let temporary = tempfile::tempdir().expect("a folder");
    let mut up = up(&temporary.path().join("desk"), &[]);
    assert!(answers(&up.redis));
    assert_eq!(folders(temporary.path()), 1);
    up.child.kill().expect("killed");
    up.child.wait().expect("ended");
    eventually("Redis outlives its owner", || !answers(&up.redis));
    eventually("the folder stays", || folders(temporary.path()) == 0);
}

#[test]
fn sigterm_ends_it_in_order_and_a_named_folder_stays() {
    let temporary = tempfile::tempdir().expect("a folder");
    let data = temporary.path().join("data");
    let arguments = ["--dir", data.to_str().expect("text")];
    let mut up = up(&temporary.path().join("desk"), &arguments);
    let pid = Pid::from_raw(i32::try_from(up.child.id()).expect("small"));
    kill(pid, Signal::SIGTERM).expect("sent");
    assert!(up.child.wait().expect("ended").success());
    assert!(!answers(&up.redis));
    assert!(data.join("redis/appendonlydir").is_dir());
}

#[test]
fn a_second_one_is_refused_while_the_first_is_up() {
    let temporary = tempfile::tempdir().expect("a folder");
    let desk = temporary.path().join("desk");
    let mut first = up(&desk, &[]);
    let second = Command::new(env!("CARGO_BIN_EXE_stack"))
        .args(["up", "--only", "redis"])
        .env("PACELINE_STACK_STATE", &desk)
        .output()
        .expect("it runs");
    assert!(!second.status.success());
    let words = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(words.contains("stack down"), "{words}");
    first.child.kill().expect("killed");
    first.child.wait().expect("ended");
}
