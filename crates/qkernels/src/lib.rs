//! How quantized numbers are computed fast: conversions, quantization, integer dot products, GEMV and GEMM, one table of instruction sets.
