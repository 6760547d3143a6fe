//! PCI Express links, as the kernel reports them.

use crate::sysfs::text;
use crate::{Address, Sysfs};

/// The link between a function and the port it is plugged into: what it runs at, and the best that the function can do.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct ExpressLink {
    /// Gigatransfers a second of each lane.
    pub speed: f64,
    /// Lanes in use.
    pub width: u32,
    /// The fastest that the function knows.
    pub max_speed: f64,
    /// The lanes that the function has.
    pub max_width: u32,
}

impl ExpressLink {
    /// Whether the function could do more than the link lets it.
    pub fn is_reduced(&self) -> bool {
        self.speed < self.max_speed || self.width < self.max_width
    }
}

impl Sysfs {
    /// A function's link. None if it has none, as what is built into a processor has, or the kernel does not know.
    pub fn express_link(&self, address: Address) -> Option<ExpressLink> {
        let folder = self.folder(address);
        // "8.0 GT/s PCIe", or "Unknown".
        let speed = |name: &str| {
            text(&folder.join(name)).split(' ').next()?.parse::<f64>().ok().filter(|speed| *speed > 0.0)
        };
        // The kernel says 0 or 255 of what it does not know.
        let width = |name: &str| {
            text(&folder.join(name)).parse::<u32>().ok().filter(|width| (1..=32).contains(width))
        };
        Some(ExpressLink {
            speed: speed("current_link_speed")?,
            width: width("current_link_width")?,
            max_speed: speed("max_link_speed")?,
            max_width: width("max_link_width")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::sysfs::tests::{Machine, address};

    #[test]
    fn links_are_read_and_what_the_kernel_does_not_know_is_none() {
        let machine = Machine::new();
        machine.e1000e("0000:01:00.0");
        let say = |[speed, width, max_speed, max_width]: [&str; 4]| {
            let write = |name, text: &str| {
                machine.file(format!("sys/bus/pci/devices/0000:01:00.0/{name}"), &format!("{text}\n"))
            };
            write("current_link_speed", speed);
            write("current_link_width", width);
            write("max_link_speed", max_speed);
            write("max_link_width", max_width);
            machine.sysfs.express_link(address("0000:01:00.0"))
        };
        assert_eq!(machine.sysfs.express_link(address("0000:01:00.0")), None);
        let link = say(["5.0 GT/s PCIe", "4", "5.0 GT/s PCIe", "8"]).expect("a link");
        assert_eq!((link.speed, link.width, link.max_speed, link.max_width), (5.0, 4, 5.0, 8));
        assert!(link.is_reduced());
        assert!(say(["2.5 GT/s", "8", "5.0 GT/s", "8"]).expect("a link").is_reduced());
        assert!(!say(["5.0 GT/s", "8", "5.0 GT/s", "8"]).expect("a link").is_reduced());
        for unknown in
            [["Unknown", "8", "5.0 GT/s", "8"], ["5.0 GT/s", "0", "5.0 GT/s", "255"], ["", "", "", ""]]
        {
            assert_eq!(say(unknown), None, "{unknown:?}");
        }
    }
}
