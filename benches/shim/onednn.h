// What the bench asks of oneDNN, in plain C types: src/peer/onednn.rs mirrors it line by line.
#ifndef QUAVER_ONEDNN_H
#define QUAVER_ONEDNN_H

#include <stdint.h>

// Element types.
enum { QT_U8, QT_I8, QT_I32, QT_F32, QT_BF16 };

// Tiers of instructions to cap oneDNN at; QC_NONE leaves the choice to it.
enum { QC_NONE, QC_SSE41, QC_AVX2, QC_AVX2_VNNI, QC_AVX512, QC_AVX512_VNNI };

// What follows the sums: bias and a scale for each output channel, both of length `channels`, or
// nothing where `scales` is null.
typedef struct {
    const float *scales;
    const int32_t *bias;
    int64_t channels;
    int32_t zero_point_a, zero_point_b, zero_point_out;
    int32_t relu;
} qt_finish;

// C = A·B for each of `batch`; A is M×K, B K×N, C M×N, all row by row. `b` holds `copies` equal
// weights in the library's own layout afterwards, or none where `packed` is 0.
typedef struct {
    int64_t batch, m, k, n;
    int32_t type_a, type_b, type_c;
    int32_t threads, copies, packed;
    const void *b;
    qt_finish finish;
} qt_matmul;

// NHWC in and out; weights as groups × outputs/group × inputs/group × height × width.
typedef struct {
    int64_t batch, height, width, inputs, outputs, groups;
    int64_t kernel_h, kernel_w, stride, pad_top, pad_left, pad_bottom, pad_right;
    int32_t type_a, type_c, threads;
    const void *weights;
    qt_finish finish;
} qt_conv;

typedef struct qt_work qt_work;

// Each returns oneDNN's status, 0 for success.
int qt_cap(int tier);
int qt_matmul_new(const qt_matmul *spec, qt_work **out);
int qt_conv_new(const qt_conv *spec, qt_work **out);
// `b` is read only where the weights were not packed.
int qt_run(qt_work *work, const void *a, const void *b, void *c);
const char *qt_implementation(const qt_work *work);
void qt_free(qt_work *work);

#endif
