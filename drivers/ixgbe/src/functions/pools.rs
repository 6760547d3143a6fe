//! Pools and their queues, and the switch between them (sections 4.6.10 and 7.10.2).

use pagewire_ethdev::nic::Device;

use super::Functions;
use crate::configure::fill;
use crate::registers::*;
use crate::statistics;

/// Up to so many functions there are 32 pools of four queues, beyond 64 of two (7.10.2).
const FEW: usize = 30;

impl Functions {
    /// Queues of a pool.
    pub(super) fn each(&self) -> usize {
        if self.count() <= FEW { 4 } else { 2 }
    }

    /// The port's own pool: 0 if there are no others.
    pub(crate) fn own_pool(&self) -> usize {
        self.count()
    }

    /// The card's number of the port's first queue.
    pub(crate) fn first_queue(&self) -> usize {
        self.own_pool() * self.each()
    }

    /// MRQC: a pool's queues, spread by RSS, in place of RSS over all.
    pub(crate) fn mrqc(&self) -> u32 {
        match (self.is_empty(), self.each()) {
            (true, _) => mrqc::RSS,
            (false, 4) => mrqc::POOLS_32,
            (false, _) => mrqc::POOLS_64,
        }
    }

    /// MTQC: how transmit queues belong to pools.
    pub(crate) fn mtqc(&self) -> u32 {
        match (self.is_empty(), self.each()) {
            (true, _) => 0,
            (false, 4) => mtqc::VT_ENA | mtqc::POOLS_32,
            (false, _) => mtqc::VT_ENA | mtqc::POOLS_64,
        }
    }

    /// An entry of the redirection table, which all pools share: the port's queue, and above it bits for functions with more queues.
    pub(crate) fn redirection(&self, entry: usize, queue: u16, queues: usize) -> u16 {
        match self.is_empty() {
            true => queue,
            false => {
                let own = queues.max(1) as u16 - 1;
                queue & own | (entry % self.each()) as u16 & !own
            }
        }
    }

    /// 4.6.10: pools, the switch, and the port's own pool alone let in and out. After the filters, before any queue.
    pub(crate) fn set_up(&self, device: &Device, rx_queues: usize) {
        let (registers, own) = (&device.registers, self.own_pool());
        if self.is_empty() {
            registers.write(PFVTCTL, 0);
            return;
        }
        let mode = if self.each() == 4 { VT_MODE_32 } else { VT_MODE_64 };
        registers.modify(GCR_EXT, VT_MODE, mode);
        // Intel's drivers have it so wherever there are pools: causes go to vectors by IVAR and IVAR_MISC, also where there is one.
        let vectors = gpie::MULTIPLE_MSIX | gpie::PBA_SUPPORT;
        registers.modify(GPIE, VT_MODE << GPIE_VT_MODE_SHIFT, mode << GPIE_VT_MODE_SHIFT | vectors);
        registers.write(PFVTCTL, pfvtctl::VT_ENA | pfvtctl::RPL_EN | (own as u32) << pfvtctl::DEF_PL_SHIFT);
        let others = u64::MAX << own;
        for (index, half) in [others as u32, (others >> 32) as u32].into_iter().enumerate() {
            registers.write_at(PFVFRE, index, half);
            registers.write_at(PFVFTE, index, half);
            // Who asks is looked for, and raises the port's event interrupt besides.
            registers.write_at(PFMBIMR, index, !half);
        }
        registers.write(PFDTXGSWC, PFDTXGSWC_LBE);
        fill(device, PFVMVIR, 0);
        let bits = rx_queues.max(1).ilog2();
        registers.write_at(PSRTYPE, own, PSRTYPE_IP | bits << PSRTYPE_RQPL_SHIFT);
        // 7.10.3: none sends in another's name.
        for index in 0..PFVFSPOOF.count {
            let functions = self.count().saturating_sub(8 * index).min(8);
            registers.write_at(PFVFSPOOF, index, (1 << functions) - 1);
        }
        // A function that is too slow loses its own frames, which are not the port's to count, and keeps no others waiting.
        for queue in 0..self.first_queue() {
            statistics::count_in(device, queue, FUNCTIONS_SET);
            registers.write(PFQDE, pfqde::QDE | pfqde::WE | (queue as u32) << pfqde::QUEUE_SHIFT);
        }
        for number in 0..self.count() {
            self.write_function(device, number);
        }
    }

    /// Everything is set up: say so, and they may ask (8.2.3.1.3).
    pub(crate) fn open(&self, device: &Device) {
        if !self.is_empty() {
            device.registers.modify(CTRL_EXT, 0, ctrl_ext::PFRSTD);
        }
    }
}
