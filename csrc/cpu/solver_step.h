// Data consistency and solver update in one pass over the maps of an image, between two network evaluations.
#pragma once

#include "gemm.h"

namespace mrsi_fast {
namespace MRSI_ISA {

struct Projection {
    int64_t rank_y, columns;  // rank_y and y rounded up to whole panels
    float* analysed;          // [panel of rank_y][x][kPanel]
    float* coefficients;      // [panel of rank_y][rank_x][kPanel]
    float* lines;             // [x][rank_y]
    float* image;             // [x][columns]
};

static Projection carve(const SolverStep* s, Carver* carver) {
    Projection p;
    p.rank_y = round_up(s->rank_y, kPanel);
    p.columns = round_up(s->y, kPanel);
    p.analysed = carver->take(p.rank_y * s->x);
    p.coefficients = carver->take(p.rank_y * s->rank_x);
    p.lines = carver->take(p.rank_y * s->x);
    p.image = carver->take(p.columns * s->x);
    return p;
}

static size_t solver_scratch(const SolverStep* s) {
    Carver measure = {nullptr, 0};
    if (s->rank_x) carve(s, &measure);
    return measure.used;
}

// Takes the measured band Qx' (kept * (Qx d Qy')) Qy out of one map.
static void remove_measured(const SolverStep* s, const Projection* p, float* d) {
    gemm(d, s->y, s->x, s->y, s->qy_t_panels, s->rank_y, p->analysed, kPanel, (int64_t)s->x * kPanel);
    gemm(s->qx, s->x, s->rank_x, s->x, p->analysed, s->rank_y, p->coefficients, kPanel, (int64_t)s->rank_x * kPanel);
    if (s->kept)
        for (int64_t i = 0; i < s->rank_x; ++i)
            for (int64_t j = 0; j < s->rank_y; ++j)
                p->coefficients[(j / kPanel * s->rank_x + i) * kPanel + j % kPanel] *= s->kept[i * s->rank_y + j];
    gemm(s->qx_t, s->rank_x, s->x, s->rank_x, p->coefficients, s->rank_y, p->lines, p->rank_y);
    gemm(p->lines, p->rank_y, s->x, s->rank_y, s->qy_panels, s->y, p->image, p->columns);
    for (int64_t i = 0; i < s->x; ++i)
        for (int64_t j = 0; j < s->y; ++j) d[i * s->y + j] -= p->image[i * p->columns + j];
}

static void solver_item(const SolverStep* s, int n, float* scratch) {
    const int f = s->factor;
    const int64_t pixels = (int64_t)s->x * s->y, head_channels = (int64_t)s->maps * f * f;
    Carver carver = {scratch, 0};
    const Projection projection = carve(s, &carver);
    for (int k = 0; k < s->maps; ++k) {
        const int64_t map = ((int64_t)n * s->maps + k) * pixels;
        float *eval = s->eval + map, *base = s->base + map, *previous = s->previous + map;
        // `eval` turns into D in place, since no later step needs the evaluation point itself.
        for (int i = 0; i < s->x; ++i)
            for (int j = 0; j < s->y; ++j) {
                const float* head = s->head + (((int64_t)n * s->grid_x + i / f) * s->grid_y + j / f) * head_channels;
                eval[(int64_t)i * s->y + j] =
                    s->c_skip * eval[(int64_t)i * s->y + j] + s->c_out * head[(k * f + i % f) * f + j % f];
            }
        if (s->rank_x) remove_measured(s, &projection, eval);
        for (int64_t p = 0; p < pixels; ++p) {
            const float estimate = eval[p];
            float next = s->now * estimate;  // terms of weight zero are left out: a last step returns D to the bit
            if (s->base_c != 0.0f) next += s->base_c * base[p];
            if (s->prev_c != 0.0f) next += s->prev_c * previous[p];
            if (s->noise_c != 0.0f) next += s->noise_c * s->noise[map + p];
            previous[p] = estimate;
            eval[p] = next;
            if (s->commit) base[p] = next;
        }
        const float gain = s->next_c_in * s->presence[(int64_t)n * s->maps + k];
        for (int i = 0; i < s->x; ++i)
            for (int j = 0; j < s->y; ++j) {
                float* stem = s->stem + (((int64_t)n * s->grid_x + i / f) * s->grid_y + j / f) * s->stem_channels;
                stem[(k * f + i % f) * f + j % f] = gain * eval[(int64_t)i * s->y + j];
            }
    }
}

}  // namespace MRSI_ISA
}  // namespace mrsi_fast
