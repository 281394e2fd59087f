//! Everything that talks to the kernel in ways Rust cannot check: the only crate with `unsafe`.
pub mod capability;
pub mod cgroup;
pub mod datagram;
pub mod epoll;
pub mod fs;
pub mod mount;
pub mod namespace;
pub mod netlink;
pub mod path;
pub mod probe;
pub mod process;
pub mod rlimit;
pub mod seccomp;
pub mod socket;
pub mod testing;
pub mod tty;
pub mod users;
