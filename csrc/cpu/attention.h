// Self-attention with an online softmax (Milakov & Gimelshein 2018; Dao et al. 2022): one image and head per work item,
// keys in blocks, so that scores never leave the first-level cache.
#pragma once

#include "gemm.h"

namespace mrsi_fast {
namespace MRSI_ISA {

constexpr int kKeyBlock = 64;  // a multiple of kPanel on every instruction set

static size_t attention_scratch(const Attention* a) {
    const int64_t tokens = round_up(a->tokens, kKeyBlock), head = round_up(a->head_channels, kPanel);
    return tokens * a->head_channels + tokens * head + kTileRows * (kKeyBlock + 2 * head);
}

static void attention_item(const Attention* a, int item, float* scratch) {
    const int n = item / a->heads, h = item % a->heads, tokens = a->tokens, head = a->head_channels, channels = a->heads * head;
    const int64_t row = 3 * channels, all = round_up(tokens, kKeyBlock), wide = round_up(head, kPanel);
    const float* q = a->qkv + (int64_t)n * tokens * row + h * head;
    const float *k = q + channels, *v = k + channels;
    float* keys = scratch;                               // [block of kPanel tokens][head][kPanel]
    float* values = keys + all * head;                   // [block of kKeyBlock tokens][panel][kKeyBlock][kPanel]
    float* scores = values + all * wide;                 // [kTileRows][kKeyBlock]
    float* mixed = scores + kTileRows * kKeyBlock;       // [kTileRows][wide], this block's share
    float* sum = mixed + kTileRows * wide;               // [kTileRows][wide], running
    for (int64_t t = 0; t < all; ++t)
        for (int64_t d = 0; d < wide; ++d) {
            const bool inside = t < tokens && d < head;
            if (d < head) keys[(t / kPanel * head + d) * kPanel + t % kPanel] = inside ? k[t * row + d] : 0.0f;
            values[((t / kKeyBlock * (wide / kPanel) + d / kPanel) * kKeyBlock + t % kKeyBlock) * kPanel + d % kPanel] =
                inside ? v[t * row + d] : 0.0f;
        }
    const float scale = (float)(1.0 / __builtin_sqrt((double)head));
    for (int first = 0; first < tokens; first += kTileRows) {
        const int rows = (int)smaller(kTileRows, tokens - first);
        float top[kTileRows], total[kTileRows];
        for (int r = 0; r < rows; ++r) {
            top[r] = -__builtin_inff();
            total[r] = 0.0f;
        }
        for (int64_t i = 0; i < rows * wide; ++i) sum[i] = 0.0f;
        for (int64_t from = 0; from < tokens; from += kKeyBlock) {
            const int count = (int)smaller(kKeyBlock, tokens - from);
            gemm(q + first * row, row, rows, head, keys + from * head, count, scores, kKeyBlock);
            for (int r = 0; r < rows; ++r) {
                float* s = scores + r * kKeyBlock;
                for (int t = count; t < kKeyBlock; ++t) s[t] = -__builtin_inff();
                Vec high = splat(top[r]);
                for (int t = 0; t < kKeyBlock; t += kLanes) {
                    const Vec x = load(s + t) * scale;
                    store(s + t, x);
                    high = x > high ? x : high;
                }
                float best = high[0];
                for (int i = 1; i < kLanes; ++i) best = high[i] > best ? high[i] : best;
                Vec partial = {};
                for (int t = 0; t < kKeyBlock; t += kLanes) {
                    const Vec p = half_exp(load(s + t) - best) * 2.0f;
                    store(s + t, p);
                    partial += p;
                }
                const float keep = half_exp(splat(top[r] - best))[0] * 2.0f;
                total[r] = total[r] * keep + sum_lanes(partial);
                top[r] = best;
                for (int64_t d = 0; d < wide; d += kLanes) store(sum + r * wide + d, load(sum + r * wide + d) * keep);
            }
            gemm(scores, kKeyBlock, rows, kKeyBlock, values + from * wide, (int)wide, mixed, wide);
            for (int64_t i = 0; i < rows * wide; i += kLanes) store(sum + i, load(sum + i) + load(mixed + i));
        }
        for (int r = 0; r < rows; ++r)
            for (int64_t d = 0; d < head; d += kLanes)
                store_some(a->out + ((int64_t)n * tokens + first + r) * channels + h * head + d, load(sum + r * wide + d) / total[r], head - d);
    }
}

}  // namespace MRSI_ISA
}  // namespace mrsi_fast
