// Data consistency and solver update in one pass over the maps of an image, between two network evaluations.
#pragma once

#include "prologue.h"

namespace mrsi_fast {
namespace MRSI_ISA {

struct Projection {
    int64_t rank_y, columns;  // rank_y and y rounded up to whole panels
    float* analysed;          // [panel of rank_y][x][kPanel]
    float* coefficients;      // [panel of rank_y][rank_x][kPanel]
    float* partial;           // [x][rank_y]
    float* image;             // [x][columns]
};

static Projection carve(const SolverStep* s, Carver* carver) {
    Projection p;
    p.rank_y = round_up(s->rank_y, kPanel);
    p.columns = round_up(s->y, kPanel);
    p.analysed = carver->take(p.rank_y * s->x);
    p.coefficients = carver->take(p.rank_y * s->rank_x);
    p.partial = carver->take(p.rank_y * s->x);
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
    gemm({d, s->y, s->x, s->y}, s->qy_t_panels, s->rank_y, {p->analysed, kPanel, (int64_t)s->x * kPanel});
    gemm({s->qx, s->x, s->rank_x, s->x}, p->analysed, s->rank_y,
         {p->coefficients, kPanel, (int64_t)s->rank_x * kPanel});
    if (s->kept)
        for (int64_t i = 0; i < s->rank_x; ++i)
            for (int64_t j = 0; j < s->rank_y; ++j)
                p->coefficients[(j / kPanel * s->rank_x + i) * kPanel + j % kPanel] *= s->kept[i * s->rank_y + j];
    gemm({s->qx_t, s->rank_x, s->x, s->rank_x}, p->coefficients, s->rank_y, {p->partial, p->rank_y});
    gemm({p->partial, p->rank_y, s->x, s->rank_y}, s->qy_panels, s->y, {p->image, p->columns});
    for (int64_t i = 0; i < s->x; ++i)
        for (int64_t j = 0; j < s->y; ++j) d[i * s->y + j] -= p->image[i * p->columns + j];
}

// A row of the cells that pixel-unshuffle makes of `factor` x `factor` pixels: cell j holds pixel (a, b) at j * step + a *
// factor + b, a map at a * columns + j * factor + b. `high` is less than the factor in a last row of cells.
struct Cells {
    int columns, factor, high;
    int64_t step;
};

// visit(place in the map, place in the cells) for all pixels; F: the factor, where it is known when this is compiled.
template <int F, class VISIT>
static inline __attribute__((always_inline)) void walk_cells(Cells c, VISIT visit) {
    const int f = F ? F : c.factor, whole = F && c.high == F ? c.columns / F : 0;
    for (int64_t j = 0; j < whole; ++j)
#pragma GCC unroll 4
        for (int at = 0; at < F * F; ++at) visit(at / f * (int64_t)c.columns + j * f + at % f, j * c.step + at);
    for (int64_t j = whole; j * f < c.columns; ++j)
        for (int a = 0; a < c.high; ++a)
            for (int b = 0; b < f && j * f + b < c.columns; ++b)
                visit(a * (int64_t)c.columns + j * f + b, j * c.step + a * f + b);
}

template <class VISIT>
static inline void each_pixel(Cells c, VISIT visit) {
    c.factor == 2 ? walk_cells<2>(c, visit) : walk_cells<0>(c, visit);
}

static void unshuffle(Cells c, const float* rows, float gain, float* cells) {
    each_pixel(c, [=](int64_t pixel, int64_t cell) { cells[cell] = gain * rows[pixel]; });
}

// The network's first input and the state of a run, one image.
static void start_item(const SolverStep* s, const SolverStart* start, int n) {
    const int64_t f = s->factor, pixels = (int64_t)s->x * s->y, step = s->stem_channels, row_step = s->grid_y * step;
    const int maps = s->maps;
    const float *presence = s->presence + (int64_t)n * maps, *images[] = {start->initial, start->z, start->mask};
    float* stem = s->stem + (int64_t)n * s->grid_x * row_step;
    if (s->x < s->grid_x * f || s->y < s->grid_y * f) zero(stem, s->grid_x * row_step);  // what lies outside the maps
    for (int64_t i = 0; i < s->x; i += f) {  // all of a row of cells, while it is in cache
        const Cells cells = {s->y, s->factor, (int)smaller(f, s->x - i), step};
        float* to = stem + i / f * row_step;
        for (int c = 0; c < 3 * maps; ++c, to += f * f)
            unshuffle(cells, images[c / maps] + ((int64_t)n * maps + c % maps) * pixels + i * s->y,
                      c < maps ? start->c_in * presence[c] : 1.0f, to);
        unshuffle(cells, start->anatomy + n * pixels + i * s->y, 1.0f, to);
        to += f * f;  // 1 within the field of view
        each_pixel(cells, [=](int64_t, int64_t cell) { to[cell] = 1.0f; });
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

// exp of a value held to the range that mrsi_fast/diffusion/denoiser.py states (LOG_SD_RANGE).
constexpr float kLogSdFrom = -7.0f, kLogSdTo = 3.0f;

static void exponentiate(float* values, int64_t count) {
    for (int64_t p = 0; p < count; p += kLanes)
        store_some(values + p,
                   half_exp(at_least(at_most(load_some(values + p, count - p), kLogSdTo), kLogSdFrom)) * 2.0f,
                   count - p);
}

// What the second head says, whose channels follow the first one's: all maps of an image.
static void tell_spread(const SolverStep* s, const float* head, float* maps) {
    const int64_t f = s->factor, pixels = (int64_t)s->x * s->y, step = s->head_channels;
    for (int64_t i = 0; i < s->x; i += f)
        for (int k = 0; k < s->maps; ++k) {
            const Cells cells = {s->y, s->factor, (int)smaller(f, s->x - i), step};
            const float* from = head + i / f * s->grid_y * step + (s->maps + k) * f * f;
            float* rows = maps + k * pixels + i * s->y;
            each_pixel(cells, [=](int64_t pixel, int64_t cell) { rows[pixel] = from[cell]; });
        }
    exponentiate(maps, s->maps * pixels);
}

static void solver_item(const SolverStep* s, int n, float* scratch) {
    const int64_t f = s->factor, pixels = (int64_t)s->x * s->y, first = (int64_t)n * s->maps;
    const int64_t head_step = s->head_channels, stem_step = s->stem_channels;
    const float* head = s->head + (int64_t)n * s->grid_x * s->grid_y * head_step;
    float *stem = s->stem + (int64_t)n * s->grid_x * s->grid_y * stem_step, *maps = s->eval + first * pixels;
    Carver carver = {scratch, 0};
    const Projection projection = carve(s, &carver);
    if (s->spread) tell_spread(s, head, s->spread + first * pixels);
    // `eval` turns into D in place, since no later step needs the evaluation point itself. Both ways between maps and
    // cells take all maps of a row of cells, while it is in cache.
    for (int64_t i = 0; i < s->x; i += f)
        for (int k = 0; k < s->maps; ++k) {
            const Cells cells = {s->y, s->factor, (int)smaller(f, s->x - i), head_step};
            const float c_skip = s->c_skip, c_out = s->c_out, *from = head + i / f * s->grid_y * head_step + k * f * f;
            float* rows = maps + k * pixels + i * s->y;
            each_pixel(cells,
                       [=](int64_t pixel, int64_t cell) { rows[pixel] = c_skip * rows[pixel] + c_out * from[cell]; });
        }
    for (int k = 0; k < s->maps; ++k) {
        const int64_t map = (first + k) * pixels;
        if (s->rank_x) remove_measured(s, &projection, s->eval + map);
        advance(s, pixels, s->eval + map, s->base + map, s->previous + map, s->noise + map);
    }
    for (int64_t i = 0; i < s->x; i += f)
        for (int k = 0; k < s->maps; ++k) {
            const Cells cells = {s->y, s->factor, (int)smaller(f, s->x - i), stem_step};
            unshuffle(cells, maps + k * pixels + i * s->y, s->next_c_in * s->presence[first + k],
                      stem + i / f * s->grid_y * stem_step + k * f * f);
        }
}

}  // namespace MRSI_ISA
}  // namespace mrsi_fast
