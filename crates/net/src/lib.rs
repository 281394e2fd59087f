//! Container networking: addresses, bridges, firewall, sandboxes, ports, zones.
//!
//! What is pure (address pools, leases, `/etc/hosts`, `resolv.conf`, the rule set) is kept apart
//! from what touches the kernel (`bridge`, `firewall`, `sandbox`, `ports`). Nothing here keeps
//! records: the caller owns those and can have everything in the kernel rebuilt from them.
//!
//! Invariants: no external program is run; one nftables table a family, named by the instance,
//! is all we write into the host's firewall; a network namespace is held by a descriptor only.

pub mod announcements;
pub mod bridge;
pub mod files;
pub mod firewall;
pub mod holder;
pub mod mac;
pub mod pool;
pub mod ports;
pub mod redirect;
pub mod sandbox;
pub mod subnet;
pub mod sysctl;
pub mod zone;

pub use mac::Mac;
pub use subnet::Subnet;
