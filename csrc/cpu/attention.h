// Self-attention with an online softmax (Milakov & Gimelshein 2018; Dao et al. 2022): one image and head per work item,
// keys in blocks, so that scores never leave the first-level cache.
#pragma once

#include "gemm.h"

namespace mrsi_fast {
namespace MRSI_ISA {

constexpr int kKeyBlock = 64;  // a multiple of kPanel on every instruction set

struct AttentionScratch {
    float* keys;    // [panel of tokens][head][kPanel]
    float* values;  // [block of kKeyBlock tokens][panel of head][kKeyBlock][kPanel]
    float* query;   // [kTileRows][head], scaled
    float* scores;  // [kTileRows][kKeyBlock]
    float* mixed;   // [kTileRows][wide], of one block of keys
    float* sum;     // [kTileRows][wide], of all blocks so far
    int64_t wide;   // head rounded up to whole panels
};

static AttentionScratch carve(const Attention* a, Carver* carver) {
    const int64_t tokens = round_up(a->tokens, kKeyBlock);
    AttentionScratch s;
    s.wide = round_up(a->head_channels, kPanel);
    s.keys = carver->take(tokens * a->head_channels);
    s.values = carver->take(tokens * s.wide);
    s.query = carver->take(kTileRows * a->head_channels);
    s.scores = carver->take(kTileRows * kKeyBlock);
    s.mixed = carver->take(kTileRows * s.wide);
    s.sum = carver->take(kTileRows * s.wide);
    return s;
}

static size_t attention_scratch(const Attention* a) {
    Carver measure = {nullptr, 0};
    carve(a, &measure);
    return measure.used;
}

// Keys transposed and values as they are, both in panels; tokens past the last one are zero.
static void pack_keys_and_values(const Attention* a, const float* k, const float* v, int64_t row,
                                 const AttentionScratch* s) {
    const int64_t head = a->head_channels, all = round_up(a->tokens, kKeyBlock);
    for (int64_t t = 0; t < all; ++t) {
        float* key = s->keys + t / kPanel * head * kPanel + t % kPanel;
        float* value = s->values + t / kKeyBlock * kKeyBlock * s->wide + t % kKeyBlock * kPanel;
        for (int64_t d = 0; d < head; ++d) key[d * kPanel] = t < a->tokens ? k[t * row + d] : 0.0f;
        for (int64_t d = 0; d < s->wide; d += kLanes) {
            const Vec x = t < a->tokens && d < head ? load_some(v + t * row + d, head - d) : Vec{};
            store(value + d / kPanel * kKeyBlock * kPanel + d % kPanel, x);
        }
    }
}

// Turns one row of scores into weights relative to the largest score so far; returns what the sums so far shrink by.
static float soften(float* scores, int count, float* top, float* total) {
    for (int t = count; t < kKeyBlock; ++t) scores[t] = -__builtin_inff();
    Vec high = splat(*top);
    for (int t = 0; t < kKeyBlock; t += kLanes) {
        const Vec x = load(scores + t);
        high = x > high ? x : high;
    }
    float best = high[0];
    for (int i = 1; i < kLanes; ++i) best = high[i] > best ? high[i] : best;
    Vec partial = {};
    for (int t = 0; t < kKeyBlock; t += kLanes) {
        const Vec weight = half_exp(load(scores + t) - best) * 2.0f;
        store(scores + t, weight);
        partial += weight;
    }
    const float keep = half_exp(splat(*top - best))[0] * 2.0f;
    *total = *total * keep + sum_lanes(partial);
    *top = best;
    return keep;
}

static void attention_item(const Attention* a, int item, float* scratch) {
    Carver carver = {scratch, 0};
    const AttentionScratch s = carve(a, &carver);
    const int n = item / a->heads, h = item % a->heads, tokens = a->tokens, head = a->head_channels,
              channels = a->heads * head;
    const int64_t row = 3 * (int64_t)channels;
    const float* q = a->qkv + (int64_t)n * tokens * row + h * head;
    pack_keys_and_values(a, q + channels, q + 2 * channels, row, &s);
    const float scale = (float)(1.0 / __builtin_sqrt((double)head));
    for (int first = 0; first < tokens; first += kTileRows) {
        const int rows = (int)smaller(kTileRows, tokens - first);
        float top[kTileRows], total[kTileRows];
        for (int r = 0; r < rows; ++r) {
            top[r] = -__builtin_inff();
            total[r] = 0.0f;
            for (int d = 0; d < head; ++d) s.query[r * head + d] = scale * q[(first + r) * row + d];
        }
        for (int64_t i = 0; i < rows * s.wide; ++i) s.sum[i] = 0.0f;
        for (int64_t from = 0; from < tokens; from += kKeyBlock) {
            const int count = (int)smaller(kKeyBlock, tokens - from);
            gemm(s.query, head, rows, head, s.keys + from * head, count, s.scores, kKeyBlock);
            for (int r = 0; r < rows; ++r) {
                const float keep = soften(s.scores + r * kKeyBlock, count, &top[r], &total[r]);
                for (int64_t d = 0; d < s.wide; d += kLanes)
                    store(s.sum + r * s.wide + d, load(s.sum + r * s.wide + d) * keep);
            }
            gemm(s.scores, kKeyBlock, rows, kKeyBlock, s.values + from * s.wide, (int)s.wide, s.mixed, s.wide);
            for (int64_t i = 0; i < rows * s.wide; i += kLanes) store(s.sum + i, load(s.sum + i) + load(s.mixed + i));
        }
        for (int r = 0; r < rows; ++r)
            for (int64_t d = 0; d < head; d += kLanes)
                store_some(a->out + ((int64_t)n * tokens + first + r) * channels + h * head + d,
                           load(s.sum + r * s.wide + d) / total[r], head - d);
    }
}

}  // namespace MRSI_ISA
}  // namespace mrsi_fast
