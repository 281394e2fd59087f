//! `tug daemon`, also called `dockerd`: listeners, handlers, configuration, start and stop.
//!
//! Maps Docker's API to the engine and does nothing else: every decision about containers,
//! images, networks and volumes is the engine's.

mod convert;
mod handlers;
mod http;
mod state;
