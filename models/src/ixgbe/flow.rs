//! Pause frames both ways (82599 datasheet 3.7.7, 8.2.3.3).

use super::registers::Registers;
use super::table::*;

/// The group that pause frames go to.
const PAUSE_GROUP: [u8; 6] = [0x01, 0x80, 0xc2, 0x00, 0x00, 0x01];
const MAC_CONTROL: [u8; 2] = [0x88, 0x08];
const PAUSE: u16 = 0x0001;
const PRIORITY_PAUSE: u16 = 0x0101;

const MFLCN_PASS: u32 = 1 << 0;
const MFLCN_RPFCE: u32 = 1 << 2;
const MFLCN_RFCE: u32 = 1 << 3;
const FCCFG_LINK: u32 = 1 << 3;
const FCRTL_XON: u32 = 1 << 31;
const FCRTH_ENABLE: u32 = 1 << 31;
const THRESHOLD: u32 = 0x7ffe0;

/// Nanoseconds of a pause quantum, 512 bit times at 10 Gb/s, times ten.
const QUANTUM_TENTHS: u64 = 512;

/// What to do with a received MAC control frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control {
    /// It is none.
    No,
    /// It has been heeded and goes no further.
    Taken,
    /// It goes to the host.
    Pass,
}

/// Flow control's memory.
#[derive(Debug, Default)]
pub(super) struct Flow {
    paused_until: u64,
    sent_off: bool,
    /// When the pause that was last sent has half passed: it is sent again.
    refresh_at: u64,
}

impl Flow {
    /// Whether the transmitter must wait.
    #[inline]
    pub(super) fn paused(&self, now: impl FnOnce() -> u64) -> bool {
        self.paused_until != 0 && now() < self.paused_until
    }

    /// Look at a received frame.
    #[inline]
    pub(super) fn receive(
        &mut self,
        registers: &mut Registers,
        frame: &[u8],
        now: impl FnOnce() -> u64,
    ) -> Control {
        if frame[12..14] != MAC_CONTROL {
            return Control::No;
        }
        self.control(registers, frame, now())
    }

    fn control(&mut self, registers: &mut Registers, frame: &[u8], now: u64) -> Control {
        let mflcn = registers.get(MFLCN);
        let be16 = |at: usize| frame.get(at..at + 2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]));
        let to_us = frame[..6] == PAUSE_GROUP;
        match be16(14) {
            PAUSE if to_us && mflcn & MFLCN_RFCE != 0 => {
                let quanta = be16(16) as u64;
                registers.count(if quanta == 0 { LXONRXCNT } else { LXOFFRXCNT }, 1);
                self.paused_until = if quanta == 0 { 0 } else { now + quanta * QUANTUM_TENTHS / 10 };
            }
            PRIORITY_PAUSE if to_us && mflcn & MFLCN_RPFCE != 0 => {
                for class in 0..8 {
                    if be16(16) >> class & 1 != 0 {
                        let off = be16(18 + 2 * class) != 0;
                        let base = if off { PXOFFRXCNT } else { PXONRXCNT };
                        registers.count(base + 4 * class as u32, 1);
                    }
                }
            }
            _ => {}
        }
        if mflcn & MFLCN_PASS != 0 { Control::Pass } else { Control::Taken }
    }

    /// The packet buffer holds so many bytes: the pause frame to send, if one is due.
    pub(super) fn fill(
        &mut self,
        registers: &mut Registers,
        used: usize,
        now: impl FnOnce() -> u64,
    ) -> Option<[u8; 60]> {
        let high = registers.get(FCRTH);
        if !registers.has(FCCFG, FCCFG_LINK) || high & FCRTH_ENABLE == 0 {
            self.sent_off = false;
            return None;
        }
        let low = registers.get(FCRTL);
        let quanta = registers.get(FCTTV) as u16;
        if used >= (high & THRESHOLD) as usize {
            let now = now();
            if !self.sent_off || now >= self.refresh_at {
                self.sent_off = true;
                self.refresh_at = now + quanta as u64 * QUANTUM_TENTHS / 20;
                registers.count(LXOFFTXC, 1);
                return Some(pause_frame(registers, quanta));
            }
        } else if self.sent_off && used <= (low & THRESHOLD) as usize {
            self.sent_off = false;
            if low & FCRTL_XON != 0 {
                registers.count(LXONTXC, 1);
                return Some(pause_frame(registers, 0));
            }
        }
        None
    }
}

fn pause_frame(registers: &Registers, quanta: u16) -> [u8; 60] {
    let mut frame = [0; 60];
    frame[..6].copy_from_slice(&PAUSE_GROUP);
    frame[6..10].copy_from_slice(&registers.get(RAL).to_le_bytes());
    frame[10..12].copy_from_slice(&registers.get(RAH).to_le_bytes()[..2]);
    frame[12..14].copy_from_slice(&MAC_CONTROL);
    frame[14..16].copy_from_slice(&PAUSE.to_be_bytes());
    frame[16..18].copy_from_slice(&quanta.to_be_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_stops_the_transmitter_for_its_time() {
        let mut registers = Registers::new();
        registers.set(FCTTV, 100);
        let mut flow = Flow::default();
        let frame = pause_frame(&registers, 100);
        assert_eq!(flow.receive(&mut registers, &frame, || 1000), Control::Taken);
        assert!(!flow.paused(|| 1001), "flow control is off");
        registers.set(MFLCN, MFLCN_RFCE | MFLCN_PASS);
        assert_eq!(flow.receive(&mut registers, &frame, || 1000), Control::Pass);
        assert!(flow.paused(|| 1000 + 5119) && !flow.paused(|| 1000 + 5120));
        let xon = pause_frame(&registers, 0);
        flow.receive(&mut registers, &xon, || 1001);
        assert!(!flow.paused(|| 1001));
        assert_eq!((registers.get(LXOFFRXCNT), registers.get(LXONRXCNT)), (1, 1));
        assert_eq!(flow.receive(&mut registers, &[0; 60], || 0), Control::No);
    }

    #[test]
    fn a_full_buffer_asks_for_a_pause_and_takes_it_back() {
        let mut registers = Registers::new();
        registers.set(FCCFG, FCCFG_LINK);
        registers.set(FCRTH, FCRTH_ENABLE | 0x6c400);
        registers.set(FCRTL, FCRTL_XON | 0x2800);
        registers.set(FCTTV, 0x0680_0680);
        let mut flow = Flow::default();
        assert_eq!(flow.fill(&mut registers, 0x6c3ff, || 0), None);
        let off = flow.fill(&mut registers, 0x6c400, || 0).expect("XOFF");
        assert_eq!(off[16..18], [0x06, 0x80]);
        assert_eq!(flow.fill(&mut registers, 0x6c400, || 1), None);
        assert!(flow.fill(&mut registers, 0x6c400, || 0x680 * 52).is_some(), "refreshed");
        assert_eq!(flow.fill(&mut registers, 0x2801, || 2), None);
        assert_eq!(flow.fill(&mut registers, 0x2800, || 2).expect("XON")[16..18], [0, 0]);
        assert_eq!((registers.get(LXOFFTXC), registers.get(LXONTXC)), (2, 1));
    }
}
