//! An opened PCI function.

use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};

use crate::backend::{CONFIG_REGION, InterruptKind};
use crate::config::{Capabilities, ConfigSpace};
use crate::interrupt::Interrupt;
use crate::space::Opened;
use crate::sysfs::FunctionInfo;
use crate::{Bar, Error};

/// Command register: the function decodes its memory BARs.
const COMMAND_MEMORY: u16 = 1 << 1;
/// Command register: the function may read and write memory, and so send messages too.
const COMMAND_BUS_MASTER: u16 = 1 << 2;

/// A PCI function that this program owns.
///
/// It is opened with bus mastering off, so that nothing left in its registers reaches memory: a driver resets it, fills
/// its rings and then calls [`set_bus_master`](Function::set_bus_master).
///
/// Dropping it turns bus mastering and interrupts off and resets it; then it is closed, once no [`Bar`] or [`Interrupt`]
/// of it is left. After the first step it can reach no memory, whatever the reset was worth.
pub struct Function {
    info: FunctionInfo,
    config: ConfigSpace,
    capabilities: Capabilities,
    /// The kind of interrupt that is on. Also held while that changes.
    enabled: Mutex<Option<InterruptKind>>,
    opened: Arc<Opened>,
}

impl Function {
    pub(crate) fn new(info: FunctionInfo, opened: Opened) -> Result<Function, Error> {
        let address = info.address;
        let opened = Arc::new(opened);
        let region = opened
            .device()
            .region(CONFIG_REGION)
            .map_err(Error::io(format!("asking for the configuration space of {address}")))?;
        let config = ConfigSpace::new(address, region, opened.clone());
        let capabilities = config.capabilities()?;
        let function = Function { info, config, capabilities, enabled: Mutex::new(None), opened };
        // VFIO opens a device with bus mastering off; a BAR that is mapped but not decoded is a bus error away.
        function.config.change_command(COMMAND_MEMORY, COMMAND_BUS_MASTER)?;
        Ok(function)
    }

    /// What was known of it when it was opened.
    pub fn info(&self) -> &FunctionInfo {
        &self.info
    }

    /// Its configuration space.
    pub fn config(&self) -> &ConfigSpace {
        &self.config
    }

    /// A BAR, its pages mapped, less those of the MSI-X table. Every call maps anew: keep the [`Bar`], and clone it.
    pub fn bar(&self, index: u8) -> Result<Bar, Error> {
        let table = self.capabilities.msix.filter(|msix| msix.table_bar == index);
        Bar::open(self.info.address, index, table.map(|msix| msix.table()), &self.opened)
    }

    /// Lets the function read and write memory and send message-signalled interrupts, or stops it.
    pub fn set_bus_master(&self, on: bool) -> Result<(), Error> {
        if on {
            self.config.change_command(COMMAND_BUS_MASTER, 0)
        } else {
            self.config.change_command(0, COMMAND_BUS_MASTER)
        }
    }

    /// Asks the kernel to reset the function by the best means it knows: FLR, power management, the bus. Configuration
    /// space is as before afterwards.
    ///
    /// Success proves that the kernel tried, not that a register was cleared: the 82574L (e1000e) takes a
    /// power-management reset, answers with success and keeps every register. Reset it through its own registers too,
    /// and look at one of them.
    pub fn reset(&self) -> Result<(), Error> {
        let address = self.info.address;
        if !self.opened.device().can_reset() {
            return Err(Error::ResetUnsupported { address });
        }
        self.opened.device().reset().map_err(Error::io(format!("resetting {address}")))
    }

    /// Turns the first `vectors` MSI-X vectors on, each with an eventfd of its own. What was on before, of any kind, is
    /// turned off.
    pub fn enable_msix(&self, vectors: u16) -> Result<Vec<Interrupt>, Error> {
        self.enable(InterruptKind::Msix, vectors)
    }

    /// Turns the first `vectors` MSI vectors on; 1 is what nearly every function has. What was on before, of any kind, is
    /// turned off.
    pub fn enable_msi(&self, vectors: u16) -> Result<Vec<Interrupt>, Error> {
        self.enable(InterruptKind::Msi, vectors)
    }

    /// Turns the interrupt line on. It is level-triggered: the kernel masks it each time it fires, until
    /// [`Interrupt::unmask`]. What was on before, of any kind, is turned off.
    pub fn enable_intx(&self) -> Result<Interrupt, Error> {
        let mut line = self.enable(InterruptKind::Intx, 1)?;
        Ok(line.remove(0))
    }

    /// Turns interrupts off. The [`Interrupt`]s of before stay quiet from now on.
    pub fn disable_interrupts(&self) -> Result<(), Error> {
        let mut enabled = self.enabled.lock().unwrap_or_else(PoisonError::into_inner);
        self.disable(&mut enabled)
    }

    fn enable(&self, kind: InterruptKind, vectors: u16) -> Result<Vec<Interrupt>, Error> {
        let address = self.info.address;
        let mut enabled = self.enabled.lock().unwrap_or_else(PoisonError::into_inner);
        let device = self.opened.device();
        let available = device
            .interrupts(kind)
            .map_err(Error::io(format!("asking how many {kind} interrupts {address} has")))?;
        if vectors == 0 || u32::from(vectors) > available {
            return Err(Error::TooFewInterrupts { address, kind, wanted: vectors, available });
        }
        // The kernel has one kind on at a time.
        self.disable(&mut enabled)?;
        let events = (0..vectors)
            .map(|_| Interrupt::new(address, kind, &self.opened))
            .collect::<Result<Vec<Interrupt>, Error>>()?;
        let descriptors: Vec<_> = events.iter().map(AsFd::as_fd).collect();
        device
            .set_interrupts(kind, &descriptors)
            .map_err(Error::io(format!("turning {vectors} {kind} interrupts of {address} on")))?;
        *enabled = Some(kind);
        Ok(events)
    }

    fn disable(&self, enabled: &mut Option<InterruptKind>) -> Result<(), Error> {
        if let Some(kind) = *enabled {
            let off = self.opened.device().set_interrupts(kind, &[]);
            off.map_err(Error::io(format!("turning the {kind} interrupts of {} off", self.info.address)))?;
            *enabled = None;
        }
        Ok(())
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        // Each step is tried whatever became of the one before; after a hot removal all of them fail, which whoever noticed it has
        // said already.
        let is_there = self.config().is_there();
        let steps = [self.set_bus_master(false), self.disable_interrupts(), self.reset()];
        for error in steps.into_iter().filter_map(Result::err) {
            match error {
                Error::ResetUnsupported { .. } => log::debug!("{error}"),
                error if !is_there => log::debug!("closing {}: {error}", self.info.address),
                error => log::warn!("closing {}: {error}", self.info.address),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::backend::fake::{FakeDevice, FakeDomain, Log, open, space};

    fn function(device: FakeDevice) -> (Function, Log) {
        let log = device.log.clone();
        (open(&space(), device, FakeDomain::new(vec![0..=u64::MAX])).unwrap(), log)
    }

    fn writes(log: &Log) -> Vec<String> {
        log.lock().unwrap().drain(..).filter(|step| !step.starts_with("read")).collect()
    }

    #[test]
    fn opens_with_memory_on_and_bus_mastering_off() {
        let mut config = [0; 64];
        config[4] = 0x04;
        config[5] = 0x01;
        let (function, _) = function(FakeDevice::new(&config));
        assert_eq!(function.config().read16(4).unwrap(), 0x0102, "and nothing else is changed");
        function.set_bus_master(true).unwrap();
        assert_eq!(function.config().read16(4).unwrap(), 0x0106);
        function.set_bus_master(false).unwrap();
        assert_eq!(function.config().read16(4).unwrap(), 0x0102);
    }

    #[test]
    fn is_quiet_before_it_is_closed() {
        let (function, log) = function(FakeDevice::new(&[]));
        let _vectors = function.enable_msix(2).unwrap();
        let bar = function.bar(0).unwrap();
        function.set_bus_master(true).unwrap();
        writes(&log);
        drop(function);
        assert_eq!(writes(&log), ["write 7 at 0x4: [2, 0]", "MSI-X: 0 on", "reset"]);
        drop(bar);
        assert!(writes(&log).is_empty(), "a vector is left");
        drop(_vectors);
        assert_eq!(writes(&log), ["closed"]);
    }

    #[test]
    fn interrupts_arrive_at_their_vector() {
        let device = FakeDevice::new(&[]);
        let events = device.events.clone();
        let (function, log) = function(device);
        writes(&log);
        let vectors = function.enable_msix(3).unwrap();
        let fire = |vector: usize| {
            let event = events.lock().unwrap()[vector].try_clone().unwrap();
            std::io::Write::write_all(&mut std::fs::File::from(event), &1u64.to_ne_bytes()).unwrap();
        };
        assert_eq!(vectors[1].try_read().unwrap(), None);
        assert_eq!(vectors[1].wait(Some(Duration::from_millis(5))).unwrap(), None);
        fire(1);
        fire(1);
        assert_eq!(vectors[1].wait(None).unwrap(), Some(2));
        assert_eq!(vectors[1].try_read().unwrap(), None);
        assert_eq!(vectors[0].try_read().unwrap(), None);

        let waiter = std::thread::scope(|scope| {
            let waiter = scope.spawn(|| vectors[2].wait(Some(Duration::from_secs(60))).unwrap());
            fire(2);
            waiter.join().unwrap()
        });
        assert_eq!(waiter, Some(1));

        let line = function.enable_intx().unwrap();
        line.unmask().unwrap();
        assert_eq!(
            writes(&log),
            ["MSI-X: 3 on", "MSI-X: 0 on", "INTx: 1 on", "unmask"],
            "one kind at a time"
        );
        function.disable_interrupts().unwrap();
        function.disable_interrupts().unwrap();
        assert_eq!(writes(&log), ["INTx: 0 on"]);
    }

    #[test]
    fn refuses_what_the_function_has_not_got() {
        let mut device = FakeDevice::new(&[]);
        device.can_reset = false;
        let (function, log) = function(device);
        writes(&log);
        assert!(matches!(function.reset(), Err(Error::ResetUnsupported { .. })));
        assert!(matches!(function.enable_msix(6), Err(Error::TooFewInterrupts { available: 5, .. })));
        assert!(matches!(function.enable_msix(0), Err(Error::TooFewInterrupts { .. })));
        assert!(matches!(function.enable_msi(2), Err(Error::TooFewInterrupts { available: 1, .. })));
        for index in [1, 6, 7, 255] {
            assert!(matches!(function.bar(index), Err(Error::NoBar { .. })), "{index}");
        }
        for (offset, fits) in [(0xfc, true), (0x100, false), (0xfe, false), (3, false)] {
            assert_eq!(function.config().read32(offset).is_ok(), fits, "{offset:#x}");
        }
        assert!(writes(&log).is_empty());
    }
}
