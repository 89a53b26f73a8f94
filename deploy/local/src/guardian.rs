//! A small shell process that outlives us by a moment: it ends our children when we are gone.
//!
//! It reads from a pipe of which only this process holds the other end. When this process ends, in
//! whatever way, the pipe closes, and the guardian kills every process group and removes every folder
//! that it was told of and not told to forget. (`PR_SET_PDEATHSIG` would not do: it fires when the
//! *thread* that started the child ends, reaches no grandchildren, and needs unsafe code.)

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Commands, one a line: `join GROUP`, `leave GROUP`, `sweep FOLDER`, `keep FOLDER`.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
groups=' '
set --
while read -r word what; do
  case $word in
    join) groups="$groups$what " ;;
    leave) groups=$(printf '%s' "$groups" | sed "s/ $what / /") ;;
    sweep) set -- "$@" "$what" ;;
    keep)
      for folder in "$@"; do
        shift
        [ "$folder" = "$what" ] || set -- "$@" "$folder"
      done ;;
  esac
done
for group in $groups; do kill -s KILL -- "-$group" 2>/dev/null; done
for folder in "$@"; do
  rm -rf -- "$folder" 2>/dev/null || { sleep 1; rm -rf -- "$folder"; }
done
"#;

static GUARDIAN: OnceLock<Mutex<ChildStdin>> = OnceLock::new();

/// From now on, the process group `leader` dies with us.
///
/// # Errors
/// When there is no guardian and none can be started.
pub fn join(leader: i32) -> io::Result<()> {
    tell("join", &leader.to_string())
}

/// The process group has ended and been waited for: its number may be another's now.
pub fn leave(leader: i32) {
    // Without a guardian there is nobody to forget it.
    let _ = tell("leave", &leader.to_string());
}

/// From now on, `folder` is removed when we are gone.
///
/// # Errors
/// When its name holds a line end, or no guardian can be started.
pub fn sweep(folder: &Path) -> io::Result<()> {
    let name = folder.to_string_lossy();
    if name.contains('\n') || !folder.is_absolute() {
        return Err(io::Error::other("the folder's name is not fit to be swept"));
    }
    tell("sweep", &name)
}

/// `folder` is gone, or to be kept after all.
pub fn keep(folder: &Path) {
    let _ = tell("keep", &folder.to_string_lossy());
}

fn tell(word: &str, what: &str) -> io::Result<()> {
    let mut pipe = guardian()?.lock().unwrap_or_else(PoisonError::into_inner);
    writeln!(pipe, "{word} {what}")?;
    pipe.flush()
}

fn guardian() -> io::Result<&'static Mutex<ChildStdin>> {
    if let Some(pipe) = GUARDIAN.get() {
        return Ok(pipe);
    }
    let mut child = Command::new("sh")
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // A group of its own, so that Ctrl-C on the terminal does not reach it.
        .process_group(0)
        .spawn()?;
    let pipe = child.stdin.take().expect("its standard input is piped");
    // Of two that race, the loser's pipe closes and its guardian ends with nothing to do.
    Ok(GUARDIAN.get_or_init(|| Mutex::new(pipe)))
}
