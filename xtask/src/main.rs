//! The project's chores, one subcommand each: `cargo xtask NAME`.

fn main() {}
