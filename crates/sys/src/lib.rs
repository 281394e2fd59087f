//! Everything that talks to the kernel in ways Rust cannot check: the only crate with `unsafe`.
pub mod epoll;
pub mod socket;

pub mod fs;
pub mod seccomp;
