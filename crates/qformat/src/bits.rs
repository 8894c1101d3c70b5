//! The bits of integers, fixed point and floats.
