//! `tug`: one binary, many roles. The role is argv[0] (`docker`, `dockerd`), else the first word.
//!
//! Every role but the command line is named by its first word: `daemon`, `monitor`, `runtime`,
//! `init`. All else is the command line's, so that `tug` and `docker` are the same program.

fn main() {}
