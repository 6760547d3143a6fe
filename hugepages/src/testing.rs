//! What the tests share: made-up root directories, turns at the machine's huge pages, child processes.

// Changing the limits and the user of a child process has no safe wrapper in the standard library.
#![allow(unsafe_code)]

use std::{
    env, fs,
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tempfile::TempDir;

use crate::{PageSize, Sysfs};

/// A made-up root directory.
pub(crate) struct Tree(TempDir);

impl Tree {
    /// A root directory with these files: path and text.
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let tree = Tree(TempDir::new().unwrap());
        for (path, text) in files {
            tree.write(path, text);
        }
        tree
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn path(&self) -> &std::path::Path {
        self.0.path()
    }

    pub(crate) fn sysfs(&self) -> Sysfs {
        Sysfs::new(self.path())
    }

    /// The text without this tree's own path, which is another one at every run.
    pub(crate) fn strip(&self, text: impl ToString) -> String {
        text.to_string().replace(self.path().to_str().unwrap(), "")
    }
}

/// Waits for a turn at the machine's huge pages, so that a test that counts free pages is the only one to take any, and
/// makes sure that there are `count` free ones of 2 MiB. A machine without them fails the test.
pub(crate) fn huge_pages(count: u64) -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let free = free_pages();
    assert!(
        free >= count,
        "this test needs {count} free huge pages of 2 MiB and {free} are free: run `echo 64 > /proc/sys/vm/nr_hugepages` \
         as root"
    );
    turn
}

/// Free huge pages of 2 MiB in this machine.
pub(crate) fn free_pages() -> u64 {
    Sysfs::default().counts(PageSize::Size2M, None).unwrap().free
}

const CHILD: &str = "PAGEWIRE_TEST_CHILD";

/// Whether this process was started by [`child`].
pub(crate) fn is_child() -> bool {
    env::var_os(CHILD).is_some()
}

/// A process that runs one test of this program, for what cannot be undone in this one. `test` is its full path.
pub(crate) fn child(test: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(CHILD, "1").stdout(Stdio::piped());
    command
}

/// Runs the calling test, `test`, once more in a child process, where `body` is done, and fails if it fails.
pub(crate) fn in_child(test: &str, body: impl FnOnce()) {
    if is_child() {
        return body();
    }
    let output = child(test).stderr(Stdio::piped()).output().unwrap();
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{test} in a child process: {out}{error}");
}

/// Sets a limit of this process.
pub(crate) fn set_limit(resource: libc::__rlimit_resource_t, bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: the kernel reads one `rlimit`, which outlives the call.
    assert_eq!(unsafe { libc::setrlimit(resource, &limit) }, 0);
}

/// Makes this process an ordinary user's, without any capability.
pub(crate) fn become_nobody() {
    const NOBODY: u32 = 65534;
    // SAFETY: no memory is passed. The last call gives the process its own files in /proc back.
    unsafe {
        assert_eq!(libc::setresgid(NOBODY, NOBODY, NOBODY), 0, "the tests have to run as root");
        assert_eq!(libc::setresuid(NOBODY, NOBODY, NOBODY), 0);
        assert_eq!(libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0), 0);
    }
}
