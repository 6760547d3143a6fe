//! Handing functions to programs, and back to the kernel.
//!
//! Everything goes through `driver_override`, so that a function is bound by itself and not every card of its kind, and
//! nothing is remembered on disk: after a reboot all is as it was.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::sysfs::{FunctionInfo, Sysfs};
use crate::{Address, Error};

/// How to bind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindOptions {
    /// The driver that is to have the function: `vfio-pci`, or one of its variants.
    pub driver: String,
    /// Take the function even from an interface that is up or carries the default route.
    pub force: bool,
    /// Who may open it afterwards, beside root.
    pub user: Option<String>,
}

impl Default for BindOptions {
    fn default() -> BindOptions {
        BindOptions { driver: "vfio-pci".to_owned(), force: false, user: None }
    }
}

/// What became of a function that was bound.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bound {
    /// The driver it had. The same as now if there was nothing to do.
    pub former: Option<String>,
    /// The nodes that now belong to the user.
    pub nodes: Vec<PathBuf>,
}

/// What became of a function that was given back.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unbound {
    /// The driver it had.
    pub former: Option<String>,
    /// The driver that took it.
    pub driver: Option<String>,
}

/// Binds a function to a driver that hands it to programs.
///
/// If the driver does not take it, it goes back to the one it came from and the error says so.
pub fn bind(sysfs: &Sysfs, address: Address, options: &BindOptions) -> Result<Bound, Error> {
    Work { sysfs, address, kernel: &mut Running }.bind(options)
}

/// Gives a function back to the driver that the kernel chooses for it.
pub fn unbind(sysfs: &Sysfs, address: Address) -> Result<Unbound, Error> {
    Work { sysfs, address, kernel: &mut Running }.unbind()
}

/// What keeps a bound function from being used, or makes that dangerous, as sentences for its user. To be asked once all
/// functions are bound.
pub fn warnings(sysfs: &Sysfs, address: Address) -> Result<Vec<String>, Error> {
    let info = sysfs.function(address)?;
    let no_iommu = info.no_iommu.then(|| {
        format!("{address} has no IOMMU: it can read and write all of this machine's memory, and only root may open it")
    });
    let members = info.group_members.iter().filter_map(|&member| sysfs.function(member).ok());
    let held = members.filter(FunctionInfo::holds_group).map(|member| {
        format!(
            "{address} cannot be used yet: {other} of the same IOMMU group is bound to {driver}; \
             pagewire dev bind {other}",
            other = member.address,
            driver = member.driver.as_deref().unwrap_or_default()
        )
    });
    Ok(no_iommu.into_iter().chain(held).collect())
}

/// What is done to the machine, apart from what is read of it: the tests have a machine of their own.
trait Kernel {
    /// Writes an attribute: a command.
    fn write(&mut self, attribute: &Path, value: &str) -> io::Result<()>;
    /// Loads a module. Whether that worked is seen by what is there afterwards.
    fn load(&mut self, module: &str);
    /// A user's number, if there is such a user.
    fn user(&mut self, name: &str) -> io::Result<Option<u32>>;
    fn give(&mut self, node: &Path, user: u32) -> io::Result<()>;
}

struct Running;

impl Kernel for Running {
    fn write(&mut self, attribute: &Path, value: &str) -> io::Result<()> {
        // Without O_CREAT: what is not there is an attribute that this kernel has not got.
        let mut file = std::fs::OpenOptions::new().write(true).open(attribute)?;
        io::Write::write_all(&mut file, value.as_bytes())
    }

    fn load(&mut self, module: &str) {
        match Command::new("modprobe").args(["--", module]).stdin(Stdio::null()).output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                log::debug!("modprobe {module}: {}", String::from_utf8_lossy(&output.stderr).trim_end())
            }
            Err(error) => log::debug!("modprobe {module}: {error}"),
        }
    }

    fn user(&mut self, name: &str) -> io::Result<Option<u32>> {
        // `id` knows users from directories too, which /etc/passwd does not.
        let output = Command::new("id").args(["-u", "--", name]).stdin(Stdio::null()).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().parse().ok().filter(|_| output.status.success()))
    }

    fn give(&mut self, node: &Path, user: u32) -> io::Result<()> {
        std::os::unix::fs::chown(node, Some(user), None)
    }
}

/// One function being bound or given back.
struct Work<'a> {
    sysfs: &'a Sysfs,
    address: Address,
    kernel: &'a mut dyn Kernel,
}

impl Work<'_> {
    fn bind(mut self, options: &BindOptions) -> Result<Bound, Error> {
        let info = self.sysfs.function(self.address)?;
        // All that can be refused is refused before anything is changed.
        if info.is_bridge() {
            return Err(Error::Bridge { address: self.address, class: info.class });
        }
        let user = options.user.as_deref().map(|name| self.user(name)).transpose()?;
        if info.driver.as_deref() != Some(&options.driver) {
            if !options.force {
                check_unused(&info)?;
            }
            self.need_driver(&options.driver)?;
            self.hand_over(&info, &options.driver)?;
        }
        // Read again: without an IOMMU the group is made only now.
        let now = self.sysfs.function(self.address)?;
        let nodes = user.map(|user| self.give(&now, user)).transpose()?.unwrap_or_default();
        Ok(Bound { former: info.driver, nodes })
    }

    fn unbind(mut self) -> Result<Unbound, Error> {
        let info = self.sysfs.function(self.address)?;
        // A function in use would block the kernel, and this process with it, until its user lets go.
        for node in self.sysfs.nodes(&info) {
            let holders = self.sysfs.holders(&node);
            if !holders.is_empty() {
                return Err(Error::Busy { path: node, holders: holders.join(", ") });
            }
        }
        let own = self.attribute("driver_override");
        // A newline is how an override is taken back.
        self.write(&own, "\n")?;
        if info.driver.is_none() || info.is_vfio() {
            if info.driver.is_some() {
                self.write(&self.attribute("driver/unbind"), &self.address.to_string())?;
            }
            self.write(&self.sysfs.path("sys/bus/pci/drivers_probe"), &self.address.to_string())?;
        }
        Ok(Unbound { former: info.driver, driver: self.driver() })
    }

    /// Makes sure that the driver is there, and loads its module if not.
    fn need_driver(&mut self, driver: &str) -> Result<(), Error> {
        let path = self.sysfs.path("sys/bus/pci/drivers").join(driver);
        if !path.exists() {
            self.kernel.load(driver);
        }
        if !path.exists() {
            return Err(Error::ModuleMissing { path, module: driver.to_owned() });
        }
        Ok(())
    }

    /// From its driver to another; back again if that fails.
    fn hand_over(&mut self, info: &FunctionInfo, driver: &str) -> Result<(), Error> {
        let failed = match self.try_hand_over(info, driver) {
            Ok(()) if self.driver().as_deref() == Some(driver) => return Ok(()),
            // The kernel probes without saying how that went; its log does.
            Ok(()) => None,
            // Not even a first step was made.
            Err(error @ Error::NeedsRoot { .. }) => return Err(error),
            Err(error) => Some(error),
        };
        let hint = match failed {
            Some(error) => format!(" ({error})"),
            None if info.iommu_group.is_none() => {
                " because it is in no IOMMU group: turn on VT-d or AMD-Vi in the \
                firmware and, with Intel, boot with the kernel argument intel_iommu=on"
                    .to_owned()
            }
            None => " (see dmesg)".to_owned(),
        };
        let after = match (&info.driver, self.restore(info)) {
            (None, _) => "it has no driver, as before".to_owned(),
            (Some(former), Ok(())) => format!("it is back with {former}"),
            (Some(former), Err(error)) => {
                format!("{former} did not take it back either ({error}): it has no driver now")
            }
        };
        Err(Error::BindRefused { address: self.address, driver: driver.to_owned(), hint, after })
    }

    fn try_hand_over(&mut self, info: &FunctionInfo, driver: &str) -> Result<(), Error> {
        let name = self.address.to_string();
        self.write(&self.attribute("driver_override"), driver)?;
        if info.driver.is_some() {
            self.write(&self.attribute("driver/unbind"), &name)?;
        }
        self.write(&self.sysfs.path("sys/bus/pci/drivers_probe"), &name)
    }

    fn restore(&mut self, info: &FunctionInfo) -> Result<(), Error> {
        self.write(&self.attribute("driver_override"), "\n")?;
        match &info.driver {
            Some(former) if self.driver().as_ref() != Some(former) => {
                let bind = self.sysfs.path("sys/bus/pci/drivers").join(former).join("bind");
                self.write(&bind, &self.address.to_string())
            }
            _ => Ok(()),
        }
    }

    fn user(&mut self, name: &str) -> Result<u32, Error> {
        let found = self
            .kernel
            .user(name)
            .map_err(Error::io(format!("looking for the user `{name}` with `id -u`")))?;
        found.ok_or_else(|| Error::NoSuchUser { name: name.to_owned() })
    }

    /// Makes the user the owner of the nodes that lead to the function.
    fn give(&mut self, info: &FunctionInfo, user: u32) -> Result<Vec<PathBuf>, Error> {
        let nodes: Vec<PathBuf> = self.sysfs.nodes(info).into_iter().filter(|node| node.exists()).collect();
        for node in &nodes {
            let done = self.kernel.give(node, user);
            done.map_err(Error::io(format!("making user {user} the owner of {}", node.display())))?;
        }
        Ok(nodes)
    }

    fn driver(&self) -> Option<String> {
        self.sysfs.driver(self.address)
    }

    fn attribute(&self, name: &str) -> PathBuf {
        self.sysfs.folder(self.address).join(name)
    }

    fn write(&mut self, attribute: &Path, value: &str) -> Result<(), Error> {
        self.kernel.write(attribute, value).map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => Error::NeedsRoot { path: attribute.into() },
            _ => Error::io(format!("writing `{}` to {}", value.trim_end(), attribute.display()))(source),
        })
    }
}

/// Refuses to pull a network interface from under the machine.
fn check_unused(info: &FunctionInfo) -> Result<(), Error> {
    for interface in &info.interfaces {
        let why = match (interface.default_route, interface.up) {
            (true, _) => "carries the default route: this machine may not be reachable without it",
            (_, true) => "is up",
            _ => continue,
        };
        return Err(Error::InterfaceInUse { address: info.address, interface: interface.name.clone(), why });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
