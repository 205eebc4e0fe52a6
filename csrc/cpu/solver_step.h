// Data consistency and solver update in one pass over the maps of an image, between two network evaluations.
#pragma once

#include "prologue.h"

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

// One row of a map into its places among the cells that pixel-unshuffle makes of `factor` x `factor` pixels: to[cell *
// step + column within the cell] = gain * row[column].
static inline void unshuffle_row(const float* row, float gain, int columns, int factor, float* to, int64_t step) {
    for (int j = 0; j < columns; j += factor, to += step) {
        const int wide = (int)smaller(factor, columns - j);
        for (int b = 0; b < wide; ++b) to[b] = gain * row[j + b];
    }
}

// row[column] = c_skip * row[column] + c_out * the network's output for it.
static inline void denoise_row(float* row, float c_skip, float c_out, int columns, int factor, const float* from,
                               int64_t step) {
    for (int j = 0; j < columns; j += factor, from += step) {
        const int wide = (int)smaller(factor, columns - j);
        for (int b = 0; b < wide; ++b) row[j + b] = c_skip * row[j + b] + c_out * from[b];
    }
}

// The network's first input and the state of a run, one image.
static void start_item(const SolverStep* s, const SolverStart* start, int n) {
    const int64_t f = s->factor, pixels = (int64_t)s->x * s->y, step = s->stem_channels, line = s->grid_y * step;
    const int maps = s->maps, stack = 3 * maps + 2;
    const float* presence = s->presence + (int64_t)n * maps;
    float* stem = s->stem + (int64_t)n * s->grid_x * line;
    if (s->x < s->grid_x * f || s->y < s->grid_y * f) zero(stem, s->grid_x * line);  // what lies outside the maps
    for (int64_t i = 0; i < s->x; ++i)
        for (int c = 0; c < stack; ++c) {
            const int kind = c / maps < 3 ? c / maps : 3;
            float* to = stem + i / f * line + (c * f + i % f) * f;
            const float* images[] = {start->initial, start->z, start->mask};
            const float* row = kind < 3 ? images[kind] + ((int64_t)n * maps + c % maps) * pixels + i * s->y
                                        : start->anatomy + (n * pixels + i * s->y);
            if (c == stack - 1)  // 1 within the field of view
                for (int64_t j = 0; j < s->y; ++j) to[j / f * step + j % f] = 1.0f;
            else
                unshuffle_row(row, kind ? 1.0f : start->c_in * presence[c], s->y, s->factor, to, step);
        }
    const int64_t first = (int64_t)n * maps * pixels;
    memcpy(s->eval + first, start->initial + first, maps * pixels * sizeof(float));
    memcpy(s->base + first, start->initial + first, maps * pixels * sizeof(float));
}

// The solver's update of one map; `eval` holds the estimate D and receives the next evaluation point.
static void advance(const SolverStep* s, int64_t pixels, float* eval, float* base, float* previous,
                    const float* noise) {
    for (int64_t p = 0; p < pixels; p += kLanes) {
        const int64_t count = pixels - p;
        const Vec estimate = load_some(eval + p, count);
        Vec next = s->now * estimate;  // terms of weight zero are left out: a last step returns D to the bit
        if (s->base_c != 0.0f) next += s->base_c * load_some(base + p, count);
        if (s->prev_c != 0.0f) next += s->prev_c * load_some(previous + p, count);
        if (s->noise_c != 0.0f) next += s->noise_c * load_some(noise + p, count);
        store_some(previous + p, estimate, count);
        store_some(eval + p, next, count);
        if (s->commit) store_some(base + p, next, count);
    }
}

static void solver_item(const SolverStep* s, int n, float* scratch) {
    const int64_t f = s->factor, pixels = (int64_t)s->x * s->y;
    const int64_t head_step = s->maps * f * f, stem_step = s->stem_channels;
    const float* head = s->head + (int64_t)n * s->grid_x * s->grid_y * head_step;
    float* stem = s->stem + (int64_t)n * s->grid_x * s->grid_y * stem_step;
    Carver carver = {scratch, 0};
    const Projection projection = carve(s, &carver);
    for (int k = 0; k < s->maps; ++k) {
        const int64_t map = ((int64_t)n * s->maps + k) * pixels;
        float* eval = s->eval + map;
        // `eval` turns into D in place, since no later step needs the evaluation point itself.
        for (int64_t i = 0; i < s->x; ++i)
            denoise_row(eval + i * s->y, s->c_skip, s->c_out, s->y, s->factor,
                        head + i / f * s->grid_y * head_step + (k * f + i % f) * f, head_step);
        if (s->rank_x) remove_measured(s, &projection, eval);
        advance(s, pixels, eval, s->base + map, s->previous + map, s->noise + map);
        const float gain = s->next_c_in * s->presence[(int64_t)n * s->maps + k];
        for (int64_t i = 0; i < s->x; ++i)
            unshuffle_row(eval + i * s->y, gain, s->y, s->factor,
                          stem + i / f * s->grid_y * stem_step + (k * f + i % f) * f, stem_step);
    }
}

}  // namespace MRSI_ISA
}  // namespace mrsi_fast
