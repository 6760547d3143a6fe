//! Options of commands that move packets: queues, cores, bursts and rings.

/// Queue pairs, who works at them, and how large they are.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Lanes {
    /// Queue pairs of each port. What l2fwd receives the card spreads over them by flow (RSS); of a stream that pktgen sends each has a share
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=128))]
    pub(crate) queues: u16,

    /// CPUs to run on, one loop each: 2,3 or 2-5. By default as many as there are queues at work, less one CPU for the rest
    #[arg(long, value_name = "CPUS")]
    pub(crate) cores: Option<CpuList>,

    /// Packets handled at a time
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) burst: u16,

    /// Descriptors in each receive ring
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub(crate) rx_ring: u32,

    /// Descriptors in each transmit ring
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub(crate) tx_ring: u32,

    /// Fragments in each queue's pool. By default what the rings and caches can hold, and some
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 26))]
    pub(crate) fragments: Option<u32>,
}

/// CPUs by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CpuList(pub(crate) Vec<usize>);

impl std::str::FromStr for CpuList {
    type Err = String;

    fn from_str(text: &str) -> Result<CpuList, String> {
        let error = || format!("{text:?} is no list of CPUs; expected something like 2,3 or 2-5");
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |digits: &str| digits.trim().parse::<usize>().ok().filter(|cpu| *cpu < 1024);
            let (first, last) = (number(first).ok_or_else(error)?, number(last).ok_or_else(error)?);
            if first > last || (first..=last).any(|cpu| cpus.contains(&cpu)) {
                return Err(error());
            }
            cpus.extend(first..=last);
        }
        Ok(CpuList(cpus))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists() {
        assert_eq!("2,4-6".parse(), Ok(CpuList(vec![2, 4, 5, 6])));
        for bad in ["", "a", "3-1", "1,1", "1-", "99999"] {
            assert!(bad.parse::<CpuList>().is_err(), "{bad}");
        }
    }
}
