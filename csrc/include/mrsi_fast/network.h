// What the kernels of the native network engine are told, and the table through which its runtime reaches them.
//
// Plain structs only, because the per-ISA files that read this may instantiate nothing from the standard library. All
// tensors are float32 and channels-last, [N][H][W][C], unless a comment says otherwise.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "mrsi_fast/isa.h"

namespace mrsi_fast {

// Statistics are kept per strip of this many image rows, whatever the algorithm and however the work is cut.
constexpr int kStripRows = 4;
// static: the objects of each instruction set must not share code.
static inline int strips_of(int height) { return (height + kStripRows - 1) / kStripRows; }

// One of the tensors that a convolution reads as if they were concatenated along channels.
struct Source {
    const float* data;   // [N][height][width][channels]
    const float* stats;  // [N][strips][2][channels], mean and M2 of each strip; read where the input is normalised
    int channels;
    int upsample;  // 1: read through nearest-neighbour x2, data being half as high and wide
};

// kPairs: on pairs of bfloat16 in AMX tiles, where pair_kernels() are; see cpu/pairs.h.
enum ConvMethod { kDirect = 0, kPairs = 1, kWinograd2 = 2, kWinograd4 = 4 };

// Matrices that the filters of one convolution become: one per tap, or one per point of the Winograd transform.
static inline int planes_of(ConvMethod method, int kernel) {
    return method == kDirect ? kernel * kernel : (method + 2) * (method + 2);
}

// Filters in any layout: tap t from input channel c to output channel k is data[k out_step + c in_step + t tap_step].
// A negative tap_step turns them by 180 degrees, which with the channels exchanged gives the input's gradient.
struct Filters {
    const float* data;
    int64_t out_step, in_step, tap_step;
    ConvMethod method;
    int kernel, stride, in_channels, out_channels;
};

// out = conv(silu(group_norm(concat(sources)) * (1 + scale) + shift)) + bias + residual, and the statistics of out.
struct Conv {
    Source source[2];
    int sources;
    int batch, height, width, in_channels;  // of the concatenated, upsampled input
    int groups;                             // 0: the input is convolved as it is
    float eps;
    const float* gamma;  // [in_channels]
    const float* beta;
    const float* scale;  // [batch] rows of in_channels, film_stride floats apart, or null
    const float* shift;
    long film_stride;

    ConvMethod method;   // Winograd needs kernel 3 and stride 1
    int kernel, stride;  // 1 or 3, zero padding kernel / 2
    int out_height, out_width, out_channels;
    const float* weight;    // as pack_weights leaves it
    const float* bias;      // [out_channels] or null
    const float* residual;  // like out, may be out itself, or null
    float* out;
    float* out_stats;  // [batch][strips_of(out_height)][2][out_channels] or null

    int strips_per_item, channels_per_item;  // how the work is cut (channels: whole panels)
};

static inline int conv_row_items(const Conv* c) {
    const int strips = c->batch * strips_of(c->out_height);
    return (strips + c->strips_per_item - 1) / c->strips_per_item;
}
static inline int conv_items(const Conv* c) {
    return conv_row_items(c) * ((c->out_channels + c->channels_per_item - 1) / c->channels_per_item);
}

// Gradient of the filters of a stride-1 3x3 convolution in the Winograd domain: dU = sum over tiles of V dM with V the
// transformed input, as the forward pass has it, and dM = A dY A'; then dW = G' dU G.
struct FilterGradient {
    Conv conv;          // of the forward pass, by Winograd; its weight, bias, residual and out are not read
    const float* grad;  // gradient of its result
    float *v, *m;       // [plane][tile][gradient_pitch] of all input and of all output channels
    float* out;         // laid out as Filters are
    int64_t out_step, in_step, tap_step;
};

static inline int64_t tiles_of(const Conv* c) {
    return (int64_t)c->batch * strips_of(c->out_height) * (kStripRows / c->method) *
           ((c->out_width + c->method - 1) / c->method);
}
// An odd number of cache lines: rows of the same channels are then spread over all sets of the first-level cache.
static inline int64_t gradient_pitch(int channels) { return ((channels + 15) / 16 | 1) * 16; }
static inline int64_t gradient_floats(const Conv* c, int channels) {
    return planes_of(c->method, 3) * tiles_of(c) * gradient_pitch(channels) + 32;  // a last panel may read past its row
}

// out = softmax(scale q k') v per image and head. A row of qkv holds [q | k | v], each heads x head_channels.
struct Attention {
    const float* qkv;  // [batch][tokens][3 * heads * head_channels]
    float* out;        // [batch][tokens][heads * head_channels]
    int batch, tokens, heads, head_channels;
    float scale;  // by default 1 / sqrt(head_channels)
};

// What follows a network evaluation, all maps of one image per work item. Maps are [N][K][X][Y]; with F the network's
// output:
//   D = c_skip * eval + c_out * F
//   if rank_x: D = D - Qx' (kept * (Qx D Qy')) Qy         hard data consistency: the measured band of the residual is 0
//   new = base_c * base + now * D + prev_c * previous + noise_c * noise
//   eval = new; previous = D; if commit: base = new; network input = next_c_in * new * presence
struct SolverStep {
    int batch, maps, x, y;
    int factor, grid_x, grid_y;  // pixel-unshuffle of stem and head, and their padded grid
    const float* head;           // [N][grid_x][grid_y][head_channels], in the channel order of pixel_shuffle
    int head_channels;           // maps * factor^2, or twice that: a second head says ln of the spread
    float* spread;               // receives the standard deviation that it tells, or null
    float* stem;                 // [N][grid_x][grid_y][stem_channels]: the first maps * factor^2 channels are written
    int stem_channels;
    float *eval, *base, *previous;
    const float* noise;     // needed where noise_c is not 0
    const float* presence;  // [N][K]
    int rank_x, rank_y;
    const float *qx, *qx_t;                // [rank_x][X] and [X][rank_x]
    const float *qy_panels, *qy_t_panels;  // pack_matrix of [rank_y][Y] and of [Y][rank_y]
    const float* kept;                     // [rank_x][rank_y] or null
    float c_skip, c_out, base_c, now, prev_c, noise_c, next_c_in;
    int commit;
};

// What a run begins with; the network is told residual, z, mask, anatomy and field of view, padded and unshuffled.
struct SolverStart {
    const float *initial, *z, *mask;  // [N][K][X][Y]
    const float* anatomy;             // [N][X][Y]
    float c_in;                       // of the first evaluation
};

// out = embedding weights' + bias, one row of scales and shifts for each row of the embedding.
struct Film {
    const float* panels;  // pack_matrix of [depth][width], as wide as a vector
    const float* bias;    // [width]
    const double* embedding;
    float* out;
    int rows, depth, width;
};

struct ConvKernels {
    int panel;                       // output channels per weight panel
    size_t (*scratch)(const Conv*);  // floats one thread needs
    void (*item)(const Conv*, int item, float* scratch);
    size_t (*packed_size)(const Filters*);                         // floats of all panels
    void (*pack_panel)(const Filters*, int panel, float* packed);  // one panel of output channels
};

// Convolutions by kPairs; null where this build, processor or system lacks what they need.
const ConvKernels* pair_kernels();

struct NetworkKernels {
    ConvKernels conv;  // by all other methods
    int panel;         // columns per panel of a matrix
    int lanes;
    size_t (*attention_scratch)(const Attention*);
    void (*attention_item)(const Attention*, int item, float* scratch);  // items: batch * heads
    size_t (*solver_scratch)(const SolverStep*);
    void (*film_item)(const Film*, int item);                             // items: width / lanes, rounded up
    void (*start_item)(const SolverStep*, const SolverStart*, int item);  // items: batch; writes stem, eval and base
    void (*solver_item)(const SolverStep*, int item, float* scratch);     // items: batch
    // Phase 0 fills v and m, one item per run of strips; phase 1 multiplies, one item per block of filters.
    int (*filter_gradient_items)(const FilterGradient*, int phase);
    size_t (*filter_gradient_scratch)(const FilterGradient*);
    void (*filter_gradient_item)(const FilterGradient*, int phase, int item, float* scratch);
    // Statistics of strip `item` of x [N][height][width][channels], as a convolution would have left them.
    void (*stats_item)(const float* x, int height, int width, int channels, float* stats, int item);
};

MRSI_FAST_PER_ISA(extern const NetworkKernels kNetworkKernels;)

}  // namespace mrsi_fast
