//! `pcap:IN[,OUT][,repeat=N]`, a port between two capture files.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pagewire_captures::{CaptureFile, MIN_FRAME, PcapError, PcapOptions, PcapReport, Player};
use pagewire_ethdev::{
    Burst, Error, Link, MacAddr, Packet, Pool, Port, PortConfig, PortInfo, QueueCounters, QueueStats, Queues,
    RxQueue, TxQueue, TxRefused,
};

use crate::Started;

/// A port that receives the frames of a capture, as fast as they are taken, and writes those that are sent to another.
///
/// A capture is received as often as asked, and again from its first frame after each start of the port; when it is over nothing more
/// is received, and the link stays up. Frames shorter than Ethernet's minimum are padded. Files are written by whoever sends: a slow
/// disk holds its core up. The one that is written is made by the first start of the port, and goes on with the next.
pub struct Pcap {
    info: PortInfo,
    player: Arc<Mutex<Player>>,
    /// Made by the first start.
    output: Arc<Mutex<Option<CaptureFile>>>,
    output_path: Option<PathBuf>,
    report: Arc<PcapReport>,
    longest: usize,
    started: Started,
    rx_counters: Arc<QueueCounters>,
    tx_counters: Arc<QueueCounters>,
}

/// Locked by one queue at a time, once a burst.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pcap {
    /// The `number`th port of this kind of the process. The capture is read as a whole: what is wrong with it is known now.
    ///
    /// # Errors
    ///
    /// [`PcapError`], with the file and the place in it.
    pub fn new(number: u8, options: &PcapOptions) -> Result<Pcap, PcapError> {
        let player = pagewire_captures::read(options)?;
        let mac = MacAddr([0x02, 0, 0, 0, 3, number]);
        Ok(Pcap {
            info: crate::info(format!("pcap:{options}"), "net_pcap", mac),
            report: player.report(),
            longest: player.longest(),
            player: Arc::new(Mutex::new(player)),
            output: Arc::default(),
            output_path: options.output.clone(),
            started: Started::default(),
            rx_counters: Arc::default(),
            tx_counters: Arc::default(),
        })
    }

    /// Make the file that is written, if that has not been done.
    fn create(&self) -> Result<(), PcapError> {
        let mut output = lock(&self.output);
        if let (None, Some(path)) = (&*output, &self.output_path) {
            *output = Some(CaptureFile::create(path, self.report())?);
        }
        Ok(())
    }

    /// What becomes of the frames, to be looked at at any time.
    pub fn report(&self) -> Arc<PcapReport> {
        self.report.clone()
    }
}

/// The receive queue of [`Pcap`].
pub struct PcapRx {
    player: Arc<Mutex<Player>>,
    pool: Pool,
    counters: Arc<QueueCounters>,
}

impl RxQueue for PcapRx {
    fn rx_burst(&mut self, out: &mut Burst) -> usize {
        let mut player = lock(&self.player);
        let (mut packets, mut bytes) = (0, 0);
        while out.room() > 0 && !player.is_exhausted() {
            // First, so that a frame for which there is no fragment waits in its file.
            let Some(mut packet) = self.pool.alloc_packet() else {
                self.counters.count_nombuf();
                break;
            };
            let Some(frame) = player.take() else { break };
            const PADDING: [u8; MIN_FRAME] = [0; MIN_FRAME];
            let padding = &PADDING[frame.len().min(MIN_FRAME)..];
            // `start` has made sure that it fits.
            let written = packet.extend_from_slice(frame).and_then(|()| packet.extend_from_slice(padding));
            bytes += packet.len() as u64;
            if written.is_err() || out.push(packet).is_err() {
                self.counters.count_errors(1);
                break;
            }
            packets += 1;
        }
        if packets > 0 {
            self.counters.count(packets, bytes);
        }
        packets
    }

    fn pool(&mut self) -> &mut Pool {
        &mut self.pool
    }

    fn posted(&self) -> usize {
        0
    }
}

/// The transmit queue of [`Pcap`].
pub struct PcapTx {
    output: Arc<Mutex<Option<CaptureFile>>>,
    /// A packet of several segments.
    whole: Vec<u8>,
    counters: Arc<QueueCounters>,
}

impl TxQueue for PcapTx {
    fn tx_burst(&mut self, packets: &mut Burst) -> usize {
        let count = packets.len();
        let (mut sent, mut bytes) = (0, 0);
        let mut output = lock(&self.output);
        for packet in packets.iter() {
            let frame = match packet.as_slice() {
                Some(frame) if frame.len() == packet.len() => Ok(frame),
                _ => packet.copy_to(&mut self.whole).map(|()| &self.whole[..]),
            };
            match frame {
                Ok(frame) if crate::check(packet).is_ok() => {
                    output.iter_mut().for_each(|output| output.write(frame));
                    (sent, bytes) = (sent + 1, bytes + frame.len() as u64);
                }
                _ => self.counters.count_errors(1),
            }
        }
        packets.clear();
        self.counters.count(sent, bytes);
        count
    }

    fn check(&self, packet: &Packet) -> Result<(), TxRefused> {
        crate::check(packet)
    }

    /// Writes what has waited for a while.
    fn reclaim(&mut self) -> usize {
        lock(&self.output).iter_mut().for_each(CaptureFile::flush_when_due);
        0
    }

    fn pending(&self) -> usize {
        0
    }
}

impl Port for Pcap {
    type Rx = PcapRx;
    type Tx = PcapTx;

    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn start(&mut self, config: PortConfig) -> Result<Queues<PcapRx, PcapTx>, Error> {
        config.check(&self.info)?;
        for queue in &config.rx {
            let room = queue.pool.fragment_size() - usize::from(queue.pool.headroom());
            if self.longest.max(MIN_FRAME) > room {
                let limit = format!("{room} bytes in a fragment of its pool");
                return Err(self.info.unsupported("the capture's longest frame of", self.longest, limit));
            }
        }
        self.started.set(&self.info.name, true)?;
        if let Err(error) = self.create() {
            self.started.set(&self.info.name, false)?;
            return Err(Error::Other(error.into()));
        }
        lock(&self.player).rewind();
        let rx = config.rx.into_iter().map(|queue| PcapRx {
            player: self.player.clone(),
            pool: queue.pool,
            counters: self.rx_counters.clone(),
        });
        let tx = config.tx.iter().map(|_| PcapTx {
            output: self.output.clone(),
            whole: Vec::new(),
            counters: self.tx_counters.clone(),
        });
        Ok((rx.collect(), tx.collect()))
    }

    fn stop(&mut self) -> Result<(), Error> {
        self.started.set(&self.info.name, false)
    }

    fn link(&mut self) -> Link {
        Link::Up { mbps: 10_000, full_duplex: true }
    }

    fn set_mac(&mut self, mac: MacAddr) -> Result<(), Error> {
        self.info.mac = mac;
        Ok(())
    }

    fn rx_queue_stats(&self) -> Vec<QueueStats> {
        vec![self.rx_counters.stats()]
    }

    fn tx_queue_stats(&self) -> Vec<QueueStats> {
        vec![self.tx_counters.stats()]
    }
}
