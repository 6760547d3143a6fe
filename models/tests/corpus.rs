//! What the fuzzer found worth keeping, once more. Alone in its program: open descriptors are counted for all of it.

#[path = "../fuzz/src/lib.rs"]
#[allow(unreachable_pub)]
mod fuzz;

use std::path::Path;

/// Runs every input of a target; all of them, and at least some.
fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut count = 0;
    for file in files {
        let path = file.unwrap().path();
        println!("{}", path.display());
        run(&std::fs::read(&path).unwrap());
        count += 1;
    }
    assert!(count >= 10, "{}: {count} inputs are not what is kept", folder.display());
}

#[test]
fn neither_end_of_vfio_user_minds_what_the_other_says() {
    replay("server", fuzz::server::run);
    replay("client", fuzz::client::run);
}
