//! The `quaver` command: quantize, run, evaluate and inspect models, and a demo of the six steps.

fn main() {}
