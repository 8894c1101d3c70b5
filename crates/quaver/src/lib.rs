//! The quantization core for inference runtimes: one facade over formats, kernels, calibration and models, and the six steps as types.
