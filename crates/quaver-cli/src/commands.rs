//! The subcommands, one file each: its arguments and what it does.

pub(crate) mod calibrate;
pub(crate) mod demo;
pub(crate) mod evaluate;
pub(crate) mod explain;
pub(crate) mod inspect;
pub(crate) mod quantize;
pub(crate) mod run;
