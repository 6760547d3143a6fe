/// Why a port could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// More was asked than the port can do.
    #[error("{port}: {what} {asked} is not possible; the port has {limit}")]
    Unsupported {
        /// The port's name.
        port: String,
        /// The thing asked for.
        what: &'static str,
        /// How much of it, or which.
        asked: String,
        /// What the port can do.
        limit: String,
    },
    /// The call does not fit the port's state.
    #[error("{port}: {what}")]
    State {
        /// The port's name.
        port: String,
        /// What is wrong and what to do.
        what: &'static str,
    },
    /// The device did not do within its time what its datasheet says it does.
    #[error(
        "{port}: {what} did not end within {millis} ms (register {register} reads {value:#010x}); the device is gone or broken"
    )]
    Timeout {
        /// The port's name.
        port: String,
        /// What was waited for.
        what: &'static str,
        /// For how long.
        millis: u128,
        /// The register that was watched.
        register: &'static str,
        /// What it read at the end.
        value: u32,
    },
    /// The device holds something that no working device holds.
    #[error("{port}: {what} is {found}, expected {expected}")]
    Device {
        /// The port's name.
        port: String,
        /// What was read.
        what: &'static str,
        /// What it is.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
    /// It is not for the port to decide, and who decides it says no.
    #[error("{port}: the driver of the card's physical function refuses {what} {asked}")]
    Refused {
        /// The port's name.
        port: String,
        /// The thing asked for.
        what: &'static str,
        /// How much of it, or which.
        asked: String,
    },
    /// Somebody else has reset the device: its queues stand still.
    #[error(
        "{port}: the card was reset under it by the driver of its physical function; stop the port and start it again"
    )]
    WasReset {
        /// The port's name.
        port: String,
    },
    /// The device does not answer any more.
    #[error(
        "{port}: the device is gone: it was pulled out, or the process that served it has ended; open it anew when it is back"
    )]
    Gone {
        /// The port's name.
        port: String,
    },
    /// The operating system would not let a thread wait.
    #[error("waiting for interrupts: {0}")]
    Wait(std::io::Error),
    /// What the port has in place of a device, such as a file, cannot be had.
    #[error(transparent)]
    Other(Box<dyn std::error::Error + Send + Sync>),
    /// The floor below failed.
    #[error(transparent)]
    Pci(#[from] pagewire_pci::Error),
    /// Packet memory could not be had.
    #[error(transparent)]
    Pool(#[from] pagewire_pool::Error),
}
