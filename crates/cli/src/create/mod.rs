//! What a container is made from: the options of `run` and `create`, and the request they mean.

pub mod devices;
pub mod files;
pub mod flags;
pub mod gpus;
pub mod limits;
pub mod mounts;
pub mod networks;
pub mod ports;
pub mod request;
pub mod sizes;
