// Self-attention with an online softmax (Milakov & Gimelshein 2018; Dao et al. 2022): one image and head per work item,
// keys in blocks, so that scores never leave the first-level cache. Short sequences are one block.
#pragma once

#include "gemm.h"

namespace mrsi_fast {
namespace MRSI_ISA {

constexpr int kMostKeys = 256;  // in a block

struct AttentionScratch {
    float* keys;     // [panel of tokens][head][kPanel], scaled
    float* values;   // [block of tokens][panel of head][block][kPanel]
    float* scores;   // [kMicroRows][block]
    float* sum;      // [kMicroRows][wide], of all blocks so far
    int block;       // keys in a block, whole panels
    int64_t padded;  // tokens rounded up to whole blocks
    int64_t wide;    // head rounded up to whole panels
};

static AttentionScratch carve(const Attention* a, Carver* carver) {
    AttentionScratch s;
    const int blocks = (a->tokens + kMostKeys - 1) / kMostKeys;
    s.block = (int)round_up((a->tokens + blocks - 1) / blocks, kPanel);
    s.padded = (int64_t)blocks * s.block;
    s.wide = round_up(a->head_channels, kPanel);
    s.keys = carver->take(s.padded * a->head_channels);
    s.values = carver->take(s.padded * s.wide);
    s.scores = carver->take((int64_t)kMicroRows * s.block);
    s.sum = carver->take(kMicroRows * s.wide);
    return s;
}

static size_t attention_scratch(const Attention* a) {
    Carver measure = {nullptr, 0};
    carve(a, &measure);
    return measure.used;
}

// Keys transposed and values as they are, both in panels; tokens past the last one are zero.
static void pack_keys_and_values(const Attention* a, const float* k, const float* v, int64_t row, float scale,
                                 const AttentionScratch* s) {
    const int64_t head = a->head_channels, tokens = a->tokens, wide = s->wide, block = s->block;
    for (int64_t first = 0; first < s->padded; first += kLanes) {
        float* to = s->keys + first / kPanel * kPanel * head + first % kPanel;
        const float* from = k + first * row;
        if (first + kLanes <= tokens) {
            for (int64_t d = 0; d < head; ++d, to += kPanel, ++from) {
                Vec x;
#pragma GCC unroll 16
                for (int i = 0; i < kLanes; ++i) x[i] = from[i * row];
                store(to, x * scale);
            }
            continue;
        }
        for (int64_t d = 0; d < head; ++d, to += kPanel, ++from)
            for (int i = 0; i < kLanes; ++i) to[i] = first + i < tokens ? scale * from[i * row] : 0.0f;
    }
    for (int64_t t = 0; t < s->padded; ++t) {
        float* to = s->values + t / block * block * wide + t % block * kPanel;
        for (int64_t d = 0; d < wide; d += kLanes) {
            const Vec x = t < tokens && d < head ? load_some(v + t * row + d, head - d) : Vec{};
            store(to + d / kPanel * block * kPanel + d % kPanel, x);
        }
    }
}

// Turns rows of scores into weights relative to the largest score of a row so far; keep[r] is what the sums so far, if
// there are any, shrink by. First all largest scores, then all weights: the processor works on several rows at once.
static void soften(float* scores, int rows, int count, int block, float* top, float* total, float* keep) {
    float best[kMicroRows];
    for (int r = 0; r < rows; ++r) {
        float* row = scores + r * block;
        for (int t = count; t < block; ++t) row[t] = -__builtin_inff();
        Vec high = splat(top[r]);
        for (int t = 0; t < block; t += kLanes) {
            const Vec x = load(row + t);
            high = x > high ? x : high;
        }
        best[r] = largest_lane(high);
    }
    for (int r = 0; r < rows; ++r) {
        float* row = scores + r * block;
        Vec partial = {};
        for (int t = 0; t < block; t += kLanes) {
            const Vec weight = half_exp(load(row + t) - best[r]) * 2.0f;
            store(row + t, weight);
            partial += weight;
        }
        keep[r] = total[r] == 0.0f ? 0.0f : half_exp(splat(top[r] - best[r]))[0] * 2.0f;
        total[r] = total[r] * keep[r] + sum_lanes(partial);
        top[r] = best[r];
    }
}

static void attention_item(const Attention* a, int item, float* scratch) {
    Carver carver = {scratch, 0};
    const AttentionScratch s = carve(a, &carver);
    const int n = item / a->heads, h = item % a->heads, tokens = a->tokens, head = a->head_channels,
              channels = a->heads * head, wide = (int)s.wide, block = s.block;
    const int64_t row = 3 * (int64_t)channels;
    const float* q = a->qkv + (int64_t)n * tokens * row + h * head;
    pack_keys_and_values(a, q + channels, q + 2 * channels, row, a->scale, &s);
    for (int first = 0; first < tokens; first += kMicroRows) {
        const int rows = (int)smaller(kMicroRows, tokens - first);
        float top[kMicroRows], total[kMicroRows], keep[kMicroRows];
        for (int r = 0; r < rows; ++r) top[r] = -__builtin_inff(), total[r] = 0.0f;
        for (int from = 0; from < tokens; from += block) {
            const int count = (int)smaller(block, tokens - from);
            gemm({q + first * row, row, rows, head}, s.keys + (int64_t)from * head, count, {s.scores, block});
            soften(s.scores, rows, count, block, top, total, keep);
            for (int r = 0; from && r < rows; ++r)
                for (int d = 0; d < wide; d += kLanes)
                    store(s.sum + r * wide + d, load(s.sum + r * wide + d) * keep[r]);
            gemm({s.scores, block, rows, block}, s.values + (int64_t)from * wide, wide,
                 {s.sum, wide, kPanel, from > 0});
        }
        for (int r = 0; r < rows; ++r)
            for (int d = 0; d < head; d += kLanes)
                store_some(a->out + ((int64_t)n * tokens + first + r) * channels + h * head + d,
                           load(s.sum + r * wide + d) / total[r], head - d);
    }
}

}  // namespace MRSI_ISA
}  // namespace mrsi_fast
