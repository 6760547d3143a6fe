//! The function's end of the mailbox (section 7.10.2).

use std::cell::Cell;
use std::time::Duration;

use pagewire_ethdev::nic::Device;
use pagewire_ethdev::{Error, poll_until};

use super::registers::*;
use crate::messages::*;

/// How long the driver of the physical function may take for one step.
const LIMIT: Duration = Duration::from_secs(1);
const SILENT: &str = "one that is started with virtual functions and serves them";

/// The mailbox, with what was read from its register and is cleared by that.
#[derive(Default)]
pub(super) struct Mailbox {
    seen: Cell<u32>,
}

impl Mailbox {
    /// What the register says, and has said since it was last asked for.
    pub(super) fn status(&self, device: &Device) -> u32 {
        match device.registers.read(VFMAILBOX) {
            // A card that is gone says nothing new.
            u32::MAX => self.seen.get(),
            value => {
                self.seen.set(self.seen.get() | value & vfmailbox::CLEARED);
                value | self.seen.get()
            }
        }
    }

    /// Whether any of these happened, which is forgotten thereby.
    pub(super) fn take(&self, device: &Device, bits: u32) -> bool {
        let happened = self.status(device) & bits != 0;
        self.seen.set(self.seen.get() & !bits);
        happened
    }

    /// Ask, and wait for the answer. Gives whether it is granted.
    ///
    /// # Errors
    ///
    /// [`Error::Device`] if there is no answer, or it is to something else.
    pub(super) fn ask(&self, device: &Device, question: &[u32]) -> Result<(bool, Message), Error> {
        self.own(device)?;
        self.take(device, vfmailbox::PFSTS | vfmailbox::PFACK);
        for (index, word) in question.iter().enumerate() {
            device.registers.write_at(VFMBMEM, index, *word);
        }
        device.registers.write(VFMAILBOX, vfmailbox::REQ);
        self.wait(device, vfmailbox::PFACK)?;
        self.wait(device, vfmailbox::PFSTS)?;
        let mut answer = self.read(device)?;
        if answer[0] & KIND == CONTROL {
            // It was said before the question was heard.
            self.wait(device, vfmailbox::PFSTS)?;
            answer = self.read(device)?;
        }
        let kind = question.first().map_or(0, |word| word & KIND);
        let verdict = answer[0] & (GRANTED | REFUSED);
        match (answer[0] & KIND == kind, verdict) {
            (true, GRANTED) => Ok((true, answer)),
            (true, REFUSED) => Ok((false, answer)),
            _ => Err(device.error(
                "the answer of the physical function's driver",
                format!("{:#010x}", answer[0]),
                "the question's number, granted or refused",
            )),
        }
    }

    /// Ask for something that may be refused.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`], naming what was asked; those of [`ask`](Mailbox::ask).
    pub(super) fn require(
        &self,
        device: &Device,
        question: &[u32],
        what: &'static str,
        asked: impl std::fmt::Display,
    ) -> Result<Message, Error> {
        match self.ask(device, question)? {
            (true, answer) => Ok(answer),
            (false, _) => Err(Error::Refused { port: device.name.clone(), what, asked: asked.to_string() }),
        }
    }

    /// What the physical function says of its own accord is read, so that it can say more. Its words do not matter: they are to make
    /// us look.
    pub(super) fn heed(&self, device: &Device) {
        if self.take(device, vfmailbox::PFSTS)
            && let Err(error) = self.read(device)
        {
            log::debug!("{error}");
        }
    }

    fn read(&self, device: &Device) -> Result<Message, Error> {
        self.own(device)?;
        let message = std::array::from_fn(|index| device.registers.read_at(VFMBMEM, index));
        device.registers.write(VFMAILBOX, vfmailbox::ACK);
        Ok(message)
    }

    /// Have the mailbox, which the physical function may be writing to.
    fn own(&self, device: &Device) -> Result<(), Error> {
        let owned = poll_until(LIMIT, || {
            device.registers.write(VFMAILBOX, vfmailbox::VFU);
            self.status(device) & vfmailbox::VFU != 0
        });
        if owned { Ok(()) } else { Err(self.silent(device, "keeps the mailbox to itself")) }
    }

    fn wait(&self, device: &Device, bit: u32) -> Result<(), Error> {
        match poll_until(LIMIT, || self.take(device, bit)) {
            true => Ok(()),
            false => Err(self.silent(device, "has not answered within 1 s")),
        }
    }

    /// Wait until the physical function is there: not in reset, and with a driver that has said so.
    ///
    /// # Errors
    ///
    /// [`Error::Device`] if it is not.
    pub(super) fn wait_until_ready(&self, device: &Device) -> Result<(), Error> {
        let ready = poll_until(LIMIT, || self.status(device) & vfmailbox::RSTI == 0);
        self.take(device, vfmailbox::RSTD);
        if ready { Ok(()) } else { Err(self.silent(device, "is not there, or is resetting the card")) }
    }

    fn silent(&self, device: &Device, found: &'static str) -> Error {
        device.error("the driver of the card's physical function", found, SILENT)
    }
}
