//! Processes that end without a word, at either end.

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{ANSWER, Card, DOORBELL, ECHO, FAR, IOVA, LEN, SCRATCH, eventually, serve, space};
use pagewire_models::server::{Server, ServerOptions};

const CHILD: &str = "PAGEWIRE_TEST_SOCKET";

/// A process that is killed when it is dropped, should a test fail before.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the calling test in a process of its own, with a socket, until it says that it is ready.
fn child(test: &str, socket: &Path) -> Process {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(CHILD, socket).stdout(Stdio::piped());
    let mut child = Process(command.spawn().unwrap());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "ready"));
    child
}

/// The socket, in such a process.
fn socket() -> Option<std::path::PathBuf> {
    std::env::var_os(CHILD).map(Into::into)
}

#[test]
fn a_server_that_is_killed_is_an_error_and_then_all_ones() {
    const NAME: &str = "a_server_that_is_killed_is_an_error_and_then_all_ones";
    if let Some(path) = socket() {
        let server = Server::bind(&path, ServerOptions::default()).unwrap();
        println!("\nready");
        return server.run(&mut Card::new()).unwrap();
    }
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("card");
    for round in 0..3 {
        // The socket of the one before is there still.
        let server = child(NAME, &path);
        let space = space();
        let function = space.open_vfio_user(&path).unwrap();
        let bar = function.bar(0).unwrap();
        let (doorbell, far) = (bar.doorbell(DOORBELL).unwrap(), bar.doorbell(FAR).unwrap());
        let vectors = function.enable_msix(4).unwrap();
        function.set_bus_master(true).unwrap();
        let ring = space.allocate_dma(4096, 64).unwrap();
        bar.write32(SCRATCH, 5);
        assert_eq!(bar.read32(SCRATCH), 5);
        drop(server);

        let start = Instant::now();
        if round != 0 {
            let error = function.reset().unwrap_err().to_string();
            assert!(error.contains(path.to_str().unwrap()) && error.contains("DEVICE_RESET"), "{error}");
            assert!(error.contains("closed"), "{error}");
        }
        assert_eq!((bar.read32(SCRATCH), bar.read32(FAR)), (u32::MAX, u32::MAX));
        bar.write32(SCRATCH, 6);
        far.ring(1);
        doorbell.ring(1);
        assert_eq!(bar.read32(ANSWER), 0, "memory is still there, and nobody behind it");
        assert!(function.config().read32(0).is_err());
        assert_eq!(vectors[0].try_read().unwrap(), None);
        // Nothing of the space's is in the way of what goes on.
        drop((ring, space.allocate_dma(3 << 20, 64).unwrap()));
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        drop((function, bar, doorbell, far, vectors));
        assert!(space.open_vfio_user(&path).is_err(), "nobody is there");
    }
}

#[test]
fn a_client_that_is_killed_makes_way_for_the_next() {
    const NAME: &str = "a_client_that_is_killed_makes_way_for_the_next";
    if let Some(path) = socket() {
        let space = space();
        let function = space.open_vfio_user(&path).unwrap();
        let bar = function.bar(0).unwrap();
        let ring = space.allocate_dma(1 << 20, 64).unwrap();
        let _vectors = function.enable_msix(20).unwrap();
        function.set_bus_master(true).unwrap();
        bar.write32(IOVA, ring.iova() as u32);
        bar.write32(IOVA + 4, (ring.iova() >> 32) as u32);
        bar.write32(LEN, 1 << 18);
        println!("\nready");
        // Ends with the server, should the test be gone.
        while bar.read32(SCRATCH) != u32::MAX {
            bar.write32(ECHO, 1);
            bar.write32(DOORBELL, bar.read32(DOORBELL).wrapping_add(1));
        }
        return;
    }
    let running = serve(true);
    for round in 1..4 {
        let client = child(NAME, &running.path);
        std::thread::sleep(Duration::from_millis(7 * round));
        drop(client);
        let start = Instant::now();
        let function = space().open_vfio_user(&running.path).unwrap();
        let bar = function.bar(0).unwrap();
        assert_eq!((bar.read32(SCRATCH), bar.read32(DOORBELL), bar.read32(LEN)), (0, 0, 0));
        bar.write32(DOORBELL, 4);
        eventually("an answer", || bar.read32(ANSWER) == 5);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }
    assert_eq!(running.count(|counters| &counters.refused_dma), 0);
}
