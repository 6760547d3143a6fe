//! What a card tells about a received packet besides its flags.

bitflags::bitflags! {
    /// The headers that a card found in a received packet: one of each layer at most.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct PacketType: u16 {
        /// IPv4.
        const IPV4 = 1 << 0;
        /// The IPv4 header has options.
        const IPV4_OPTIONS = 1 << 1;
        /// IPv6.
        const IPV6 = 1 << 2;
        /// The IPv6 header has extension headers.
        const IPV6_EXTENSIONS = 1 << 3;
        /// TCP.
        const TCP = 1 << 4;
        /// UDP.
        const UDP = 1 << 5;
        /// SCTP.
        const SCTP = 1 << 6;
    }
}

bitflags::bitflags! {
    /// What RSS hashes are made of; of a received packet one of these.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct RssTypes: u8 {
        /// Addresses of IPv4.
        const IPV4 = 1 << 0;
        /// Addresses and ports of TCP over IPv4.
        const TCP_IPV4 = 1 << 1;
        /// Addresses and ports of UDP over IPv4.
        const UDP_IPV4 = 1 << 2;
        /// Addresses of IPv6.
        const IPV6 = 1 << 3;
        /// Addresses and ports of TCP over IPv6.
        const TCP_IPV6 = 1 << 4;
        /// Addresses and ports of UDP over IPv6.
        const UDP_IPV6 = 1 << 5;
    }
}
