//! Folders, chance, and finding programs.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Bytes of the system's chance: names of folders, passwords of servers that live for a test.
pub fn chance<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .context("/dev/urandom")?;
    Ok(bytes)
}

/// 32 hex digits of chance.
pub fn secret() -> anyhow::Result<String> {
    Ok(format!("{:032x}", u128::from_le_bytes(chance()?)))
}

/// Makes `folder`, open to other accounts: Elasticsearch does not run as root.
pub fn make_folder(folder: &Path) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| format!("the folder {}", folder.display()))?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("rights of {}", folder.display()))?;
    folder
        .canonicalize()
        .with_context(|| format!("the folder {}", folder.display()))
}

/// Writes `text` to `folder/name`.
pub fn write(folder: &Path, name: &str, text: &str) -> anyhow::Result<PathBuf> {
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

/// The first of `candidates` (absolute, or a name looked up in `PATH`) that is there.
pub fn program(candidates: &[&str]) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    // Joining an absolute path to a folder gives the absolute path.
    let found = candidates
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
        .find(|path| path.is_file());
    match found {
        Some(path) => Ok(path),
        None => bail!(
            "`{}` is not installed; deploy/local/install.sh installs it",
            candidates[0]
        ),
    }
}

/// Where the installer puts what is no Debian package: `/var/cache/paceline` for root (another account
/// must be able to read it), else below the user's own cache folder.
pub fn cache() -> PathBuf {
    if nix::unistd::Uid::effective().is_root() {
        return "/var/cache/paceline".into();
    }
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache");
    std::env::var_os("XDG_CACHE_HOME")
        .filter(|folder| !folder.is_empty())
        .map_or_else(home, PathBuf::from)
        .join("paceline")
}
