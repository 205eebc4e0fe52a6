// Scale and shift of every residual block for some noise levels: one matrix product in double on weights kept as float, so
// that a row comes out the same to the last float however many are made together.
#pragma once

#include "gemm.h"

namespace mrsi_fast {
namespace MRSI_ISA {

typedef float HalfVec __attribute__((vector_size(2 * kLanes)));
typedef double DoubleVec __attribute__((vector_size(4 * kLanes)));

static inline DoubleVec load_doubles(const float* p) {
    HalfVec half;
    memcpy(&half, p, sizeof half);
    return __builtin_convertvector(half, DoubleVec);
}

// kLanes columns of ROWS rows: weights [depth][kLanes], embedding rows `depth` apart.
template <int ROWS>
static void film_block(const Film* f, const float* weights, int row, int column) {
    constexpr int HALF = kLanes / 2;
    const int64_t depth = f->depth;
    const double* embedding = f->embedding + row * depth;
    DoubleVec sum[ROWS][2] = {};
    for (int64_t d = 0; d < depth; ++d, weights += kLanes) {
        const DoubleVec low = load_doubles(weights), high = load_doubles(weights + HALF);
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; ++r) {
            const double value = embedding[r * depth + d];
            sum[r][0] += value * low;
            sum[r][1] += value * high;
        }
    }
    for (int r = 0; r < ROWS; ++r)
        for (int i = 0; i < kLanes && column + i < f->width; ++i)
            f->out[(int64_t)(row + r) * f->width + column + i] =
                (float)(sum[r][i / HALF][i % HALF] + f->bias[column + i]);
}

static void film_item(const Film* f, int item) {
    const float* weights = f->panels + (int64_t)item * f->depth * kLanes;
    int row = 0;
    for (; row + 4 <= f->rows; row += 4) film_block<4>(f, weights, row, item * kLanes);
    for (; row < f->rows; ++row) film_block<1>(f, weights, row, item * kLanes);
}

}  // namespace MRSI_ISA
}  // namespace mrsi_fast
