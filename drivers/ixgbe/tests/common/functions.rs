//! A card with virtual functions: the physical one driven by a thread that answers, each function in a space of its own.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use pagewire_ethdev::{
    Error, FunctionConfig, MacAddr, Packet, Pool, Port, PortConfig, RxQueue, RxQueueConfig, TxQueue,
    TxQueueConfig,
};
use pagewire_ixgbe::{Ixgbe, IxgbeRx, IxgbeTx, IxgbeVf, IxgbeVfTx};
use pagewire_models::Function;
use pagewire_models::ixgbe::{Config, Control, Ixgbe as Model, Kind, Vf};
use pagewire_models::server::{Counters, Server, ServerOptions, Stopper, run_together};
use pagewire_models::wire::{Pair, Wire, pair};
use pagewire_pci::AddressSpace;
use pagewire_pool::{PageSize, PoolConfig};
use tempfile::TempDir;

use super::bench::{End, Side, receive, send};
use super::liar::{Liar, Lied};
use super::{config, eventually, pool, space};

/// The physical function's address.
pub(crate) const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
/// One that is somewhere on the wire.
pub(crate) const OUTSIDE: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xee]);

/// Two functions with nothing of their own.
pub(crate) const TWO: [FunctionConfig; 2] = [FunctionConfig { mac: None, trusted: false }; 2];

/// The card as it is served: itself first, then its functions.
pub(crate) struct Served {
    pub(crate) paths: Vec<PathBuf>,
    pub(crate) controls: Vec<Arc<Control>>,
    pub(crate) counters: Vec<Arc<Counters>>,
    /// The cable's other end.
    pub(crate) wire: Pair,
    /// Whether a function's liar is asked.
    pub(crate) lying: Vec<Arc<AtomicBool>>,
    stopper: Stopper,
    thread: Option<JoinHandle<()>>,
    _folder: TempDir,
}

/// Serve a card with so many virtual functions.
pub(crate) fn serve(functions: u16) -> Served {
    serve_kind(Kind::I82599, functions)
}

/// The same of another card of the family.
pub(crate) fn serve_kind(kind: Kind, functions: u16) -> Served {
    serve_lied(kind, functions, |_| Box::new(()))
}

/// The same with somebody between each function and its driver.
pub(crate) fn serve_lied(kind: Kind, functions: u16, liar: impl Fn(usize) -> Box<dyn Liar>) -> Served {
    let (inner, mut wire) = pair();
    wire.light(true);
    let mut served = serve_on(kind, functions, Box::new(inner), liar);
    served.wire = wire;
    served
}

/// The same on a wire, with somebody between each function and its driver.
pub(crate) fn serve_on(
    kind: Kind,
    functions: u16,
    wire: Box<dyn Wire>,
    liar: impl Fn(usize) -> Box<dyn Liar>,
) -> Served {
    let folder = TempDir::new().unwrap();
    let config = Config { kind, mac: OWN.0, functions, ..Config::default() };
    let mut card = Model::new(config, wire);
    let vfs = card.take_functions();
    let controls = [card.control()].into_iter().chain(vfs.iter().map(|vf| vf.control())).collect();
    let lying: Vec<Arc<AtomicBool>> = vfs.iter().map(|_| Arc::default()).collect();
    let lied = |(n, vf)| Lied::new(vf, 0x2000, liar(n), lying[n].clone());
    let mut vfs: Vec<Lied<Vf>> = vfs.into_iter().enumerate().map(lied).collect();
    let names = (0..=functions).map(|n| if n == 0 { "card".into() } else { format!("card.vf{}", n - 1) });
    let paths: Vec<PathBuf> = names.map(|name| folder.path().join(name)).collect();
    let options = ServerOptions { mappable: false, timeout: Duration::from_secs(5) };
    let servers: Vec<Server> =
        paths.iter().map(|path| Server::bind(path, options.clone()).unwrap()).collect();
    let counters = servers.iter().map(Server::counters).collect();
    let stopper = servers[0].stopper();
    let thread = std::thread::spawn(move || {
        let all = [&mut card as &mut dyn Function].into_iter();
        let all = all.chain(vfs.iter_mut().map(|vf| vf as &mut dyn Function));
        run_together(servers.iter().zip(all).collect()).unwrap();
    });
    let wire = pair().0;
    Served { paths, controls, counters, wire, lying, stopper, thread: Some(thread), _folder: folder }
}

impl Served {
    /// A frame comes in.
    pub(crate) fn give(&mut self, frame: &[u8]) {
        assert!(self.wire.send(frame));
    }

    /// The next frame that goes out.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let mut frame = Vec::new();
        eventually("a frame on the wire", || self.wire.receive(&mut frame).is_some());
        frame
    }

    /// No frame goes out, for as long as one would take a hundred times over.
    pub(crate) fn assert_nothing(&mut self) {
        std::thread::sleep(Duration::from_millis(30));
        let mut frame = Vec::new();
        assert!(self.wire.receive(&mut frame).is_none(), "{frame:02x?}");
    }

    /// No function has touched a register that is none, or memory that is not its own.
    pub(crate) fn assert_clean(&self) {
        for (control, counters) in self.controls.iter().zip(&self.counters) {
            let refused = counters.refused_dma.load(Relaxed);
            assert_eq!((control.unknown(), control.refused(), control.malformed(), refused), (0, 0, 0, 0));
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stopper.stop();
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

/// The physical function, started, with a thread that answers its virtual functions.
pub(crate) struct Physical {
    port: Arc<Mutex<Ixgbe>>,
    pub(crate) rx: Vec<IxgbeRx>,
    pub(crate) tx: Vec<IxgbeTx>,
    pub(crate) pool: Pool,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Physical {
    /// Start it. Only frames for itself come in.
    pub(crate) fn start(
        served: &Served,
        functions: &[FunctionConfig],
        change: impl FnOnce(&AddressSpace, &mut PortConfig),
    ) -> Physical {
        let physical = Physical::start_before_the_link(served, functions, change);
        eventually("the link", || physical.port().link().is_up());
        physical
    }

    /// The same on a wire that has nobody at its other end yet.
    fn start_before_the_link(
        served: &Served,
        functions: &[FunctionConfig],
        change: impl FnOnce(&AddressSpace, &mut PortConfig),
    ) -> Physical {
        let space = space();
        let mut port = Ixgbe::with_function(&space, space.open_vfio_user(&served.paths[0]).unwrap()).unwrap();
        let mut config = PortConfig { promiscuous: false, ..beside(&space, functions) };
        change(&space, &mut config);
        let (rx, tx) = port.start(config).unwrap();
        let (port, stop) = (Arc::new(Mutex::new(port)), Arc::<AtomicBool>::default());
        let (shared, told) = (port.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while !told.load(Relaxed) {
                shared.lock().unwrap_or_else(PoisonError::into_inner).serve_functions().unwrap();
                std::thread::sleep(Duration::from_micros(500));
            }
        });
        let pool = pool(&space, 512);
        Physical { port, rx, tx, pool, stop, thread: Some(thread) }
    }

    pub(crate) fn port(&self) -> MutexGuard<'_, Ixgbe> {
        self.port.lock().unwrap()
    }

    fn stop_answering(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.unwrap();
            }
        }
    }

    /// Stop it: its virtual functions have no one to talk to any more.
    pub(crate) fn stop(mut self) {
        self.stop_answering();
        self.rx.clear();
        self.tx.clear();
        self.port().stop().unwrap();
    }
}

impl Drop for Physical {
    fn drop(&mut self) {
        self.stop_answering();
    }
}

/// A virtual function, started.
pub(crate) struct Virtual {
    pub(crate) port: IxgbeVf,
    pub(crate) rx: Vec<IxgbeRx>,
    pub(crate) tx: Vec<IxgbeVfTx>,
    pub(crate) pool: Pool,
    pub(crate) mac: MacAddr,
    pub(crate) space: AddressSpace,
}

/// A card with virtual functions, and one queue pair of its own with rings of 64.
pub(crate) fn beside(space: &AddressSpace, functions: &[FunctionConfig]) -> PortConfig {
    let mut config = PortConfig { functions: functions.to_vec(), ..config(space) };
    config.rx[0] = RxQueueConfig::new(wide_pool(space, 512), 64);
    config
}

/// A pool whose buffers hold any ordinary frame in whole KiB.
pub(crate) fn wide_pool(space: &AddressSpace, fragments: usize) -> Pool {
    let config =
        PoolConfig { fragments, fragment_size: 4096, backing: PageSize::Size4K, ..PoolConfig::default() };
    Pool::new(&config, space).unwrap()
}

/// So many queues of 64 descriptors, frames for itself only.
pub(crate) fn vf_config(space: &AddressSpace, queues: usize) -> PortConfig {
    PortConfig {
        rx: (0..queues).map(|_| RxQueueConfig::new(wide_pool(space, 512), 64)).collect(),
        tx: (0..queues).map(|_| TxQueueConfig { descriptors: 64 }).collect(),
        promiscuous: false,
        ..PortConfig::default()
    }
}

/// Open function `number` in a space.
pub(crate) fn open_vf(served: &Served, number: usize, space: &AddressSpace) -> Result<IxgbeVf, Error> {
    IxgbeVf::with_function(space, space.open_vfio_user(&served.paths[number + 1]).unwrap())
}

/// A card whose first function is a port of a [`Bench`](super::bench::Bench), and what drives it itself.
pub(crate) struct Behind {
    served: Served,
    physical: Physical,
}

impl Side for IxgbeVf {
    type Running = Behind;

    fn assert_clean(running: Behind) {
        running.served.assert_clean();
        running.physical.stop();
    }
}

/// Start the first function of a card on a wire, with this address, and the driver of the card itself with what `own` changes.
pub(crate) fn function_at(
    wire: Box<dyn Wire>,
    liar: impl Fn() -> Box<dyn Liar>,
    mac: MacAddr,
    space: &AddressSpace,
    own: impl FnOnce(&mut PortConfig),
    config: PortConfig,
) -> End<IxgbeVf> {
    let served = serve_on(Kind::I82599, 1, wire, |_| liar());
    served.lying[0].store(true, Relaxed);
    let given = [FunctionConfig { mac: Some(mac), trusted: true }];
    let physical = Physical::start_before_the_link(&served, &given, |_, config| own(config));
    let mut port = open_vf(&served, 0, space).unwrap();
    let (rx, tx) = port.start(PortConfig { promiscuous: false, ..config }).unwrap();
    End { rx, tx, port, running: Behind { served, physical } }
}

impl Virtual {
    /// Start function `number` in a space of its own.
    pub(crate) fn start(served: &Served, number: usize) -> Virtual {
        Virtual::start_in(served, number, &space(), 1)
    }

    pub(crate) fn start_in(served: &Served, number: usize, space: &AddressSpace, queues: usize) -> Virtual {
        let mut port = open_vf(served, number, space).unwrap();
        let (rx, tx) = port.start(vf_config(space, queues)).unwrap();
        eventually("the function's link", || port.link().is_up());
        let (mac, pool) = (port.info().mac, pool(space, 512));
        Virtual { port, rx, tx, pool, mac, space: space.clone() }
    }

    /// Send a frame, in its own name.
    pub(crate) fn send(&mut self, to: MacAddr, data: &[u8]) -> Vec<u8> {
        let frame = addressed(to, self.mac, data);
        let packet = packet(&mut self.pool, &frame);
        send(&mut self.tx[0], vec![packet]);
        frame
    }

    /// What comes, one packet, on whichever queue.
    pub(crate) fn receive(&mut self) -> Packet {
        receive(&mut self.rx, 1).into_iter().flatten().next().unwrap()
    }

    /// All back, and nothing left anywhere.
    pub(crate) fn stop(mut self) {
        for queue in &mut self.tx {
            eventually("reports of all that was sent", || {
                queue.reclaim();
                queue.pending() == 0
            });
        }
        let mut monitors: Vec<_> = self.rx.iter_mut().map(|queue| queue.pool().monitor()).collect();
        monitors.push(self.pool.monitor());
        drop((self.rx, self.tx));
        self.port.stop().unwrap();
        self.pool.trim();
        assert!(monitors.iter().all(|pool| pool.stats().inflight() == 0));
    }
}

pub(crate) fn packet(pool: &mut Pool, frame: &[u8]) -> Packet {
    let mut packet = pool.alloc_packet().unwrap();
    packet.extend_from_slice(frame).unwrap();
    packet
}

/// A frame from one to another, of an experimental EtherType.
pub(crate) fn addressed(to: MacAddr, from: MacAddr, data: &[u8]) -> Vec<u8> {
    let mut frame = [&to.0[..], &from.0[..], &[0x88, 0xb5], data].concat();
    frame.resize(frame.len().max(60), 0x5a);
    frame
}

/// The same in a VLAN.
pub(crate) fn tagged(to: MacAddr, from: MacAddr, vlan: u16, data: &[u8]) -> Vec<u8> {
    let mut frame = addressed(to, from, data);
    let [high, low] = vlan.to_be_bytes();
    frame.splice(12..12, [0x81, 0, high, low]);
    frame
}
