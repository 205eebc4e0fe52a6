// Convolution by the direct method: 3x3 or 1x1, any stride.
#pragma once

#include "item.h"

namespace mrsi_fast {
namespace MRSI_ISA {

// Adds bias and residual to the sums of `rows` neighbouring pixels and up to kPanel channels, and writes it.
template <bool FULL>
static inline void emit_block(const float* sums, int rows, int count, const float* bias, const float* residual,
                              float* out, int64_t pixel) {
    for (int half = 0; half < kPanel && half < count; half += kLanes) {
        const int some = count - half;
        const Vec add = !bias ? Vec{} : FULL ? load(bias + half) : load_some(bias + half, some);
        for (int r = 0; r < rows; ++r) {
            const int64_t at = r * pixel + half;
            Vec value = load(sums + r * kPanel + half) + add;
            if (residual) value += FULL ? load(residual + at) : load_some(residual + at, some);
            if (FULL)
                store(out + at, value);
            else
                store_some(out + at, value, some);
        }
    }
}

// Pointers to the input of every output pixel of rows [y0, y1) of image n, in each segment that a sum runs through: one
// of activated rows in scratch, or the sources themselves.
static int find_pixels(const Conv* c, int n, int y0, int y1, const Scratch* s) {
    const int64_t columns = strip_columns(c), width = c->out_width;
    if (!reads_in_place(c)) {
        for (int y = y0; y < y1; ++y)
            for (int x = 0; x < width; ++x)
                s->pixels[(y - y0) * width + x] = s->rows.data + ((y - y0) * columns + x) * c->stride * s->pitch;
        return 1;
    }
    for (int i = 0; i < c->sources; ++i) {
        const Source* src = &c->source[i];
        const int up = src->upsample;
        const int64_t high = c->height >> up, wide = c->width >> up;
        const float** at = s->pixels + i * s->most_pixels;
        for (int y = y0; y < y1; ++y)
            for (int x = 0; x < width; ++x)
                *at++ = src->data + ((n * high + (y >> up)) * wide + (x >> up)) * src->channels;
    }
    return c->sources;
}

// Rows [y0, y1) of image n. One panel of weights stays in the first-level cache while all pixels pass it.
static void direct_rows(const Conv* c, int n, int y0, int y1, Range r, const Scratch* s) {
    const int taps = c->kernel * c->kernel, segments = find_pixels(c, n, y0, y1, s);
    const int pixels = (y1 - y0) * c->out_width, blocks = (pixels + kMicroRows - 1) / kMicroRows;
    int64_t tap[9];
    for (int t = 0; t < taps; ++t) tap[t] = ((int64_t)(t / c->kernel) * strip_columns(c) + t % c->kernel) * s->pitch;
    float sums[kMicroRows * kPanel];
    for (int k = r.k0; k < r.k1; k += kPanel)
        for (int b = 0; b < blocks; ++b) {
            const int first = (int64_t)pixels * b / blocks, rows = (int64_t)pixels * (b + 1) / blocks - first;
            const float* panel = c->weight + (int64_t)k * taps * c->in_channels;
            const int64_t at = (((int64_t)n * c->out_height + y0) * c->out_width + first) * c->out_channels + k;
            for (int p = 0; p < rows; ++p) {  // they arrive while the sums are made
                __builtin_prefetch(c->out + at + (int64_t)p * c->out_channels, 1);
                if (c->residual) __builtin_prefetch(c->residual + at + (int64_t)p * c->out_channels);
            }
            for (int i = 0; i < segments; ++i) {
                const int depth = segments == 1 ? c->in_channels : c->source[i].channels;
                const float* const* row = s->pixels + i * s->most_pixels + first;
                micro_kernel_rows<kMicroRows, 1>(rows,
                                                 {row, tap, taps, depth, panel, 0, panel, kLine, i > 0, sums, kPanel});
                panel += (int64_t)depth * kPanel;
            }
            const float *bias = c->bias ? c->bias + k : nullptr, *residual = c->residual ? c->residual + at : nullptr;
            if (k + kPanel <= r.k1)
                emit_block<true>(sums, rows, kPanel, bias, residual, c->out + at, c->out_channels);
            else
                emit_block<false>(sums, rows, r.k1 - k, bias, residual, c->out + at, c->out_channels);
        }
}

static void direct_item(const Conv* c, Range r, Scratch* s) {
    const int per_image = strips_of(c->out_height), border = s->rows.border;
    for (int strip = r.strip0; strip < r.strip1;) {
        const int n = strip / per_image, first = strip % per_image;
        const int last = (int)smaller(first + (r.strip1 - strip), per_image), y0 = first * kStripRows;
        if (!reads_in_place(c))
            fill(c, n, y0 * c->stride - border, 0, segment_rows(c, last - first), &s->rows, &s->affine);
        direct_rows(c, n, y0, (int)smaller(last * kStripRows, c->out_height), r, s);
        strip += last - first;
    }
}

}  // namespace MRSI_ISA
}  // namespace mrsi_fast
