//! The cases, by what they are about. A case is a sentence and a function.

mod api;
mod archives;
mod attack;
mod build;
mod build_classic;
mod build_forms;
mod build_own;
mod build_results;
mod cli_arguments;
mod cli_surface;
mod cli_templates;
mod contexts;
mod core;
mod daemon;
mod faults;
mod guard;
mod images;
mod images_params;
mod images_travel;
mod listing;
mod login;
mod manifests;
mod net_bridge;
mod net_endpoints;
mod networks;
mod outputs;
mod registry;
mod registry_auth;
mod registry_hostile;
mod registry_hosts;
mod registry_tls;
mod relay;
mod run;
mod runtime_edges;
mod search;
mod serve;
mod streams;
mod streams_ends;
mod streams_events;
mod surface;
mod surface_api;
mod survive;
mod transfers;
mod unpack;
mod volumes;

use crate::harness::{Outcome, Suite};

pub struct Case {
    pub name: &'static str,
    pub run: fn(&Suite) -> Outcome,
}

pub fn all() -> impl Iterator<Item = &'static Case> {
    [
        unpack::CASES,
        run::CASES,
        runtime_edges::CASES,
        images::CASES,
        build::CASES,
        build_own::CASES,
        build_classic::CASES,
        build_forms::CASES,
        build_results::CASES,
        volumes::CASES,
        networks::CASES,
        net_endpoints::CASES,
        net_bridge::CASES,
        guard::CASES,
        registry::CASES,
        serve::CASES,
        relay::CASES,
        listing::CASES,
        images_params::CASES,
        cli_surface::CASES,
        cli_arguments::CASES,
        cli_templates::CASES,
        outputs::CASES,
        images_travel::CASES,
        contexts::CASES,
        core::CASES,
        login::CASES,
        manifests::CASES,
        registry_auth::CASES,
        registry_hostile::CASES,
        registry_hosts::CASES,
        registry_tls::CASES,
        search::CASES,
        transfers::CASES,
        api::CASES,
        daemon::CASES,
        faults::CASES,
        surface::CASES,
        surface_api::CASES,
        survive::CASES,
        streams::CASES,
        streams_ends::CASES,
        streams_events::CASES,
        attack::CASES,
        archives::CASES,
    ]
    .into_iter()
    .flatten()
}

/// Lists functions as cases under their own names.
macro_rules! cases {
    ($($function:ident),* $(,)?) => {
        pub const CASES: &[$crate::cases::Case] =
            &[$($crate::cases::Case { name: stringify!($function), run: $function }),*];
    };
}
pub(crate) use cases;
