// The few calls of oneDNN 2.x that the bench makes.
#include "onednn.h"

#include <dnnl.h>
#include <dnnl_version.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#if DNNL_VERSION_MAJOR != 2
#error "this shim speaks to oneDNN 2.x, as in Debian 12's libdnnl-dev"
#endif

struct qt_work {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_desc_t plan;
    dnnl_primitive_t primitive;
    dnnl_memory_t a, c, bias, *weights;
    int threads, copies, next, packed;
};

// Leaves the function with a status that is not success.
#define TRY(call) \
    do { \
        dnnl_status_t status_ = (call); \
        if (status_ != dnnl_success) return status_; \
    } while (0)

static dnnl_data_type_t type_of(int type) {
    switch (type) {
        case QT_U8: return dnnl_u8;
        case QT_I8: return dnnl_s8;
        case QT_I32: return dnnl_s32;
        case QT_BF16: return dnnl_bf16;
        default: return dnnl_f32;
    }
}

int qt_cap(int tier) {
    switch (tier) {
        case QC_SSE41: return dnnl_set_max_cpu_isa(dnnl_cpu_isa_sse41);
        case QC_AVX2: return dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx2);
        case QC_AVX2_VNNI: return dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx2_vnni);
        case QC_AVX512: return dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx512_core);
        case QC_AVX512_VNNI: return dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx512_core_vnni);
        default: return dnnl_success;
    }
}

static dnnl_status_t attributes(
        const qt_finish *finish, int channel_mask, dnnl_primitive_attr_t *out) {
    dnnl_primitive_attr_t attr;
    TRY(dnnl_primitive_attr_create(&attr));
    *out = attr;
    if (!finish->scales) return dnnl_success;
    TRY(dnnl_primitive_attr_set_output_scales(
            attr, finish->channels, channel_mask, finish->scales));
    const struct { int argument; int32_t value; } points[] = {
            {DNNL_ARG_SRC, finish->zero_point_a},
            {DNNL_ARG_WEIGHTS, finish->zero_point_b},
            {DNNL_ARG_DST, finish->zero_point_out},
    };
    for (int i = 0; i < 3; i++) {
        if (points[i].value == 0) continue;
        TRY(dnnl_primitive_attr_set_zero_points(
                attr, points[i].argument, 1, 0, &points[i].value));
    }
    if (finish->relu) {
        dnnl_post_ops_t ops;
        TRY(dnnl_post_ops_create(&ops));
        dnnl_status_t status
                = dnnl_post_ops_append_eltwise(ops, 1.f, dnnl_eltwise_relu, 0.f, 0.f);
        if (status == dnnl_success) status = dnnl_primitive_attr_set_post_ops(attr, ops);
        dnnl_post_ops_destroy(ops);
        TRY(status);
    }
    return dnnl_success;
}

// Packs weights into the layout that the plan asks for, `copies` times.
static dnnl_status_t pack(
        qt_work *work, const dnnl_memory_desc_t *from, const void *data, int copies) {
    const dnnl_memory_desc_t *to
            = dnnl_primitive_desc_query_md(work->plan, dnnl_query_weights_md, 0);
    dnnl_primitive_desc_t plan;
    TRY(dnnl_reorder_primitive_desc_create(
            &plan, from, work->engine, to, work->engine, NULL));
    dnnl_primitive_t reorder;
    dnnl_status_t status = dnnl_primitive_create(&reorder, plan);
    dnnl_primitive_desc_destroy(plan);
    TRY(status);
    dnnl_memory_t source = NULL;
    status = dnnl_memory_create(&source, from, work->engine, (void *)data);
    work->weights = calloc(copies, sizeof *work->weights);
    if (status == dnnl_success && !work->weights) status = dnnl_out_of_memory;
    for (int i = 0; i < copies && status == dnnl_success; i++) {
        status = dnnl_memory_create(
                &work->weights[i], to, work->engine, DNNL_MEMORY_ALLOCATE);
        if (status != dnnl_success) break;
        work->copies = i + 1;
        dnnl_exec_arg_t args[]
                = {{DNNL_ARG_FROM, source}, {DNNL_ARG_TO, work->weights[i]}};
        status = dnnl_primitive_execute(reorder, work->stream, 2, args);
        if (status == dnnl_success) status = dnnl_stream_wait(work->stream);
    }
    dnnl_memory_destroy(source);
    dnnl_primitive_destroy(reorder);
    return status;
}

static dnnl_status_t fill(qt_work *work, const dnnl_memory_desc_t *desc, const int32_t *values) {
    TRY(dnnl_memory_create(&work->bias, desc, work->engine, DNNL_MEMORY_ALLOCATE));
    void *data;
    TRY(dnnl_memory_get_data_handle(work->bias, &data));
    memcpy(data, values, dnnl_memory_desc_get_size(desc));
    return dnnl_success;
}

// What every kind of work shares once its plan is made.
static dnnl_status_t finish_new(qt_work *work, const dnnl_memory_desc_t *a,
        const dnnl_memory_desc_t *c, const dnnl_memory_desc_t *weights, const void *data,
        int copies, int packed) {
    TRY(dnnl_primitive_create(&work->primitive, work->plan));
    work->packed = packed;
    if (packed) {
        TRY(pack(work, weights, data, copies));
    } else {
        work->weights = calloc(1, sizeof *work->weights);
        if (!work->weights) return dnnl_out_of_memory;
        TRY(dnnl_memory_create(
                &work->weights[0], weights, work->engine, DNNL_MEMORY_NONE));
        work->copies = 1;
    }
    TRY(dnnl_memory_create(&work->a, a, work->engine, DNNL_MEMORY_NONE));
    return dnnl_memory_create(&work->c, c, work->engine, DNNL_MEMORY_NONE);
}

static dnnl_status_t begin(int threads, qt_work **out) {
    qt_work *work = calloc(1, sizeof *work);
    if (!work) return dnnl_out_of_memory;
    *out = work;
    work->threads = threads;
    omp_set_num_threads(threads);
    TRY(dnnl_engine_create(&work->engine, dnnl_cpu, 0));
    return dnnl_stream_create(&work->stream, work->engine, dnnl_stream_default_flags);
}

static dnnl_status_t matmul(const qt_matmul *spec, qt_work *work) {
    const int rank = spec->batch > 1 ? 3 : 2;
    const dnnl_dims_t all[] = {{spec->batch, spec->m, spec->k},
            {spec->batch, spec->k, spec->n}, {spec->batch, spec->m, spec->n}};
    const dnnl_format_tag_t tag = rank == 3 ? dnnl_abc : dnnl_ab;
    const int skip = 3 - rank;
    dnnl_memory_desc_t a, plain, b, c, bias;
    const int biased = spec->finish.bias != NULL;
    TRY(dnnl_memory_desc_init_by_tag(&a, rank, &all[0][skip], type_of(spec->type_a), tag));
    TRY(dnnl_memory_desc_init_by_tag(&plain, rank, &all[1][skip], type_of(spec->type_b), tag));
    TRY(dnnl_memory_desc_init_by_tag(&b, rank, &all[1][skip], type_of(spec->type_b),
            spec->packed ? dnnl_format_tag_any : tag));
    TRY(dnnl_memory_desc_init_by_tag(&c, rank, &all[2][skip], type_of(spec->type_c), tag));
    const dnnl_dims_t row = {1, 1, spec->n};
    TRY(dnnl_memory_desc_init_by_tag(&bias, rank, &row[skip], dnnl_s32, tag));
    dnnl_matmul_desc_t desc;
    TRY(dnnl_matmul_desc_init(&desc, &a, &b, biased ? &bias : NULL, &c));
    dnnl_primitive_attr_t attr = NULL;
    dnnl_status_t status = attributes(&spec->finish, 1 << (rank - 1), &attr);
    if (status == dnnl_success)
        status = dnnl_primitive_desc_create(&work->plan, &desc, attr, work->engine, NULL);
    if (attr) dnnl_primitive_attr_destroy(attr);
    TRY(status);
    if (biased) TRY(fill(work, &bias, spec->finish.bias));
    return finish_new(work, &a, &c, &plain, spec->b, spec->copies, spec->packed);
}

static dnnl_status_t conv(const qt_conv *spec, qt_work *work) {
    const int64_t out_h
            = (spec->height + spec->pad_top + spec->pad_bottom - spec->kernel_h) / spec->stride + 1;
    const int64_t out_w
            = (spec->width + spec->pad_left + spec->pad_right - spec->kernel_w) / spec->stride + 1;
    const dnnl_dims_t in = {spec->batch, spec->inputs, spec->height, spec->width};
    const dnnl_dims_t out = {spec->batch, spec->outputs, out_h, out_w};
    const dnnl_dims_t grouped = {spec->groups, spec->outputs / spec->groups,
            spec->inputs / spec->groups, spec->kernel_h, spec->kernel_w};
    const dnnl_dims_t whole = {spec->outputs, spec->inputs, spec->kernel_h, spec->kernel_w};
    const int rank = spec->groups > 1 ? 5 : 4;
    const dnnl_dim_t *kernel = rank == 5 ? grouped : whole;
    const dnnl_dims_t strides = {spec->stride, spec->stride};
    const dnnl_dims_t before = {spec->pad_top, spec->pad_left};
    const dnnl_dims_t after = {spec->pad_bottom, spec->pad_right};
    const dnnl_dims_t channels = {spec->outputs};
    const int biased = spec->finish.bias != NULL;
    dnnl_memory_desc_t a, plain, b, c, bias;
    TRY(dnnl_memory_desc_init_by_tag(&a, 4, in, type_of(spec->type_a), dnnl_nhwc));
    TRY(dnnl_memory_desc_init_by_tag(
            &plain, rank, kernel, dnnl_s8, rank == 5 ? dnnl_goihw : dnnl_oihw));
    TRY(dnnl_memory_desc_init_by_tag(&b, rank, kernel, dnnl_s8, dnnl_format_tag_any));
    TRY(dnnl_memory_desc_init_by_tag(&c, 4, out, type_of(spec->type_c), dnnl_nhwc));
    TRY(dnnl_memory_desc_init_by_tag(&bias, 1, channels, dnnl_s32, dnnl_x));
    dnnl_convolution_desc_t desc;
    TRY(dnnl_convolution_forward_desc_init(&desc, dnnl_forward_inference,
            dnnl_convolution_direct, &a, &b, biased ? &bias : NULL, &c, strides, before, after));
    dnnl_primitive_attr_t attr = NULL;
    dnnl_status_t status = attributes(&spec->finish, 1 << 1, &attr);
    if (status == dnnl_success)
        status = dnnl_primitive_desc_create(&work->plan, &desc, attr, work->engine, NULL);
    if (attr) dnnl_primitive_attr_destroy(attr);
    TRY(status);
    if (biased) TRY(fill(work, &bias, spec->finish.bias));
    return finish_new(work, &a, &c, &plain, spec->weights, 1, 1);
}

int qt_matmul_new(const qt_matmul *spec, qt_work **out) {
    *out = NULL;
    dnnl_status_t status = begin(spec->threads, out);
    return status == dnnl_success ? matmul(spec, *out) : status;
}

int qt_conv_new(const qt_conv *spec, qt_work **out) {
    *out = NULL;
    dnnl_status_t status = begin(spec->threads, out);
    return status == dnnl_success ? conv(spec, *out) : status;
}

int qt_run(qt_work *work, const void *a, const void *b, void *c) {
    // The number belongs to the calling thread, and a work may be moved between threads.
    omp_set_num_threads(work->threads);
    dnnl_memory_t weights = work->weights[work->next];
    if (++work->next == work->copies) work->next = 0;
    if (!work->packed) TRY(dnnl_memory_set_data_handle(weights, (void *)b));
    TRY(dnnl_memory_set_data_handle(work->a, (void *)a));
    TRY(dnnl_memory_set_data_handle(work->c, c));
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, work->a}, {DNNL_ARG_WEIGHTS, weights},
            {DNNL_ARG_DST, work->c}, {DNNL_ARG_BIAS, work->bias}};
    TRY(dnnl_primitive_execute(work->primitive, work->stream, work->bias ? 4 : 3, args));
    return dnnl_stream_wait(work->stream);
}

const char *qt_implementation(const qt_work *work) {
    const char *name = "";
    dnnl_primitive_desc_query(work->plan, dnnl_query_impl_info_str, 0, &name);
    return name;
}

void qt_free(qt_work *work) {
    if (!work) return;
    for (int i = 0; i < work->copies; i++)
        if (work->weights[i]) dnnl_memory_destroy(work->weights[i]);
    free(work->weights);
    if (work->bias) dnnl_memory_destroy(work->bias);
    if (work->a) dnnl_memory_destroy(work->a);
    if (work->c) dnnl_memory_destroy(work->c);
    if (work->primitive) dnnl_primitive_destroy(work->primitive);
    if (work->plan) dnnl_primitive_desc_destroy(work->plan);
    if (work->stream) dnnl_stream_destroy(work->stream);
    if (work->engine) dnnl_engine_destroy(work->engine);
    free(work);
}
