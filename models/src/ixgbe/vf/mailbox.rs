//! A virtual function's mailbox: 16 words that both sides read and write, and bits that say whose turn it is (82599 datasheet
//! 7.10.2, 8.2.3.27, 8.3.5).

/// Words of the mailbox.
pub(in super::super) const WORDS: usize = 16;

// VFMAILBOX.
const REQ: u32 = 1 << 0;
const ACK: u32 = 1 << 1;
const VFU: u32 = 1 << 2;
const PFU: u32 = 1 << 3;
const PFSTS: u32 = 1 << 4;
const PFACK: u32 = 1 << 5;
const RSTI: u32 = 1 << 6;
const RSTD: u32 = 1 << 7;
/// PFMAILBOX: take the mailbox from a virtual function. Its other bits are those of VFMAILBOX, seen from the other side.
const RVFU: u32 = 1 << 4;

/// The mailbox.
#[derive(Debug, Default)]
pub(in super::super) struct Mailbox {
    pub(in super::super) words: [u32; WORDS],
    /// VFU, PFU, PFSTS, PFACK, RSTI and RSTD as the virtual function sees them.
    state: u32,
    /// It has written a message, or acknowledged one: the card has yet to be told.
    pub(in super::super) request: bool,
    pub(in super::super) acknowledged: bool,
    /// The other way round.
    pub(in super::super) signal: bool,
}

impl Mailbox {
    /// VFMAILBOX is read: what happened since the last time is cleared by that.
    pub(super) fn read(&mut self) -> u32 {
        let value = self.state;
        self.state &= !(PFSTS | PFACK | RSTD);
        value
    }

    /// VFMAILBOX is written. VFU is given only while the card does not have the mailbox.
    pub(super) fn write(&mut self, value: u32) {
        self.take(VFU, PFU, value);
        self.request |= value & REQ != 0;
        self.acknowledged |= value & ACK != 0;
    }

    /// PFMAILBOX is read.
    pub(in super::super) fn card_read(&self) -> u32 {
        self.state & (VFU | PFU)
    }

    /// PFMAILBOX is written.
    pub(in super::super) fn card_write(&mut self, value: u32) {
        if value & RVFU != 0 {
            self.state &= !VFU;
        }
        self.take(PFU, VFU, value);
        // STS and ACK are where REQ and ACK are on the other side.
        self.state |= if value & REQ != 0 { PFSTS } else { 0 };
        self.state |= if value & ACK != 0 { PFACK } else { 0 };
        self.signal |= value & (REQ | ACK) != 0;
    }

    fn take(&mut self, mine: u32, other: u32, value: u32) {
        match value & mine != 0 {
            true if self.state & other == 0 => self.state |= mine,
            true => {}
            false => self.state &= !mine,
        }
    }

    /// The card is reset: nothing that was under way goes on.
    pub(in super::super) fn card_reset(&mut self) {
        *self = Self { state: RSTI, signal: true, ..Self::default() };
    }

    /// The card's driver says that it has come out of it (CTRL_EXT.PFRSTD).
    pub(in super::super) fn card_ready(&mut self) {
        self.state = self.state & !RSTI | RSTD;
        self.signal = true;
    }

    /// The virtual function is reset: it has no message, and waits for none.
    pub(super) fn reset(&mut self) {
        self.state &= RSTI | RSTD | PFU;
        (self.request, self.acknowledged) = (false, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_side_at_a_time_and_each_hears_of_the_other() {
        let mut mailbox = Mailbox::default();
        mailbox.card_reset();
        assert_eq!((mailbox.read(), mailbox.read()), (RSTI, RSTI), "it lasts until the driver is ready");
        mailbox.card_ready();
        assert_eq!((mailbox.read(), mailbox.read()), (RSTD, 0));
        mailbox.write(VFU);
        mailbox.card_write(PFU);
        assert_eq!((mailbox.read(), mailbox.card_read()), (VFU, VFU), "the first has it");
        mailbox.write(REQ);
        assert!(mailbox.request && mailbox.card_read() == 0, "a request gives it back");
        mailbox.card_write(PFU);
        mailbox.write(VFU);
        assert_eq!(mailbox.read(), PFU);
        mailbox.card_write(REQ | ACK);
        assert_eq!((mailbox.read(), mailbox.read()), (PFSTS | PFACK, 0));
        mailbox.write(VFU);
        mailbox.card_write(RVFU | PFU);
        assert_eq!(mailbox.card_read(), PFU, "taken away");
    }
}
