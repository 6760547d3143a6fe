//! Where processes serve their statistics: a folder of the user's own, a socket a process.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::process::geteuid;

/// What sockets' names end in. Before it stands the process's id.
const SUFFIX: &str = ".sock";

/// What a process is called: its command and its number.
pub(super) fn id(command: &str, pid: u32) -> String {
    format!("{command}-{pid}")
}

/// The socket of a process.
pub(super) fn socket(folder: &Path, id: &str) -> PathBuf {
    folder.join(format!("{id}{SUFFIX}"))
}

/// The process whose socket has this path.
pub(super) fn id_of(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()?.strip_suffix(SUFFIX)
}

/// The folder in which this process serves, made if there is none.
pub(super) fn own() -> Result<PathBuf> {
    let folder = folders().into_iter().next().context("there is no place for sockets")?;
    match std::fs::DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("making the folder {}", folder.display()))?;
        }
        _ => check(&folder)?,
    }
    Ok(folder)
}

/// The folder in which this user's processes serve, with what keeps them from it; `root` is `/`, except in tests.
pub(crate) fn preflight(root: &Path) -> Result<PathBuf, (PathBuf, anyhow::Error)> {
    let folder = folders().into_iter().next().unwrap_or_default();
    let place = folder.strip_prefix("/").map_or(folder.clone(), |below| root.join(below));
    match place.symlink_metadata().map(|_| check(&place)) {
        // It will be made.
        Err(_) | Ok(Ok(())) => Ok(folder),
        Ok(Err(error)) => Err((folder, error)),
    }
}

/// Every folder in which processes of this user may serve, the one for this process first. They may differ in their
/// environment: what a service has started has no `XDG_RUNTIME_DIR`.
pub(super) fn folders() -> Vec<PathBuf> {
    let own = geteuid().as_raw();
    // Somebody else's is in the environment of who became another user.
    let ours = |path: &Path| std::fs::metadata(path).is_ok_and(|about| about.is_dir() && about.uid() == own);
    candidates(std::env::var_os("XDG_RUNTIME_DIR").as_deref(), own, ours)
}

fn candidates(xdg: Option<&OsStr>, user: u32, ours: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let xdg = xdg.map(Path::new).filter(|path| path.is_absolute() && ours(path));
    let general = match user {
        0 => PathBuf::from("/run/pagewire"),
        user => PathBuf::from(format!("/tmp/pagewire-{user}")),
    };
    xdg.map(|path| path.join("pagewire")).into_iter().chain([general]).collect()
}

/// Whether nobody else can put anything into a folder: in /tmp anybody could have made it.
pub(super) fn check(folder: &Path) -> Result<()> {
    let about = std::fs::symlink_metadata(folder).with_context(|| folder.display().to_string())?;
    let (own, mode) = (geteuid().as_raw(), about.mode() & 0o7777);
    if !about.is_dir() || about.uid() != own {
        let what = if about.is_dir() { "folder" } else { "file" };
        bail!(
            "{} has to be a folder of user {own} and is a {what} of user {}: remove it, as root",
            folder.display(),
            about.uid()
        );
    }
    if mode & 0o077 != 0 {
        bail!(
            "the folder {0} is open to others (mode {mode:04o}): close it with `chmod 700 {0}`",
            folder.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_runtime_directory_of_ones_own_comes_first() {
        let paths = |xdg: Option<&str>, user, ours: bool| -> Vec<String> {
            let found = candidates(xdg.map(OsStr::new), user, |_| ours);
            found.iter().map(|path| path.display().to_string()).collect()
        };
        let xdg = Some("/run/user/7");
        assert_eq!(paths(xdg, 7, true), ["/run/user/7/pagewire", "/tmp/pagewire-7"]);
        assert_eq!(paths(xdg, 0, false), ["/run/pagewire"]);
        assert_eq!(paths(Some("relative"), 7, true), ["/tmp/pagewire-7"]);
        assert_eq!(paths(None, 7, true), ["/tmp/pagewire-7"]);
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let mode = |mode| std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(mode));
        mode(0o700).expect("it is ours");
        check(folder.path()).expect("a closed one");
        mode(0o770).expect("it is ours");
        let refused = check(folder.path()).expect_err("an open one").to_string();
        assert!(refused.contains("mode 0770") && refused.contains("chmod 700"), "{refused}");
        mode(0o700).expect("it is ours");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).expect("a link");
        assert!(check(&link).expect_err("a link").to_string().contains("has to be a folder"));
    }

    #[test]
    fn ids_come_back_from_paths() {
        assert_eq!(id_of(&socket(Path::new("/run/pagewire"), &id("l2fwd", 12))), Some("l2fwd-12"));
        assert_eq!(id_of(Path::new("/run/pagewire/other")), None);
    }
}
