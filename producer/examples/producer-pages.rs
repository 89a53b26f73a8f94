//! Writes the man pages and shell completions of `producer` below a folder: `make dist`.

use std::io::Error;
use std::path::PathBuf;

use clap::CommandFactory;
use clap_complete::Shell;
use paceline_producer::cli::Cli;

fn main() -> Result<(), Error> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.ok_or_else(|| Error::other("name the folder"))?;
    let (man, completions) = (folder.join("man/man1"), folder.join("completions"));
    std::fs::create_dir_all(&man)?;
    std::fs::create_dir_all(&completions)?;
    clap_mangen::generate_to(Cli::command(), man)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut Cli::command(), "producer", &completions)?;
    }
    Ok(())
}
