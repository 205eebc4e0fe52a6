// Cuts convolutions into work items: even shares for the threads, input that stays in the second-level cache.
#include "mrsi_fast/partition.h"

#include <algorithm>
#include <cstdint>

namespace mrsi_fast {
namespace {

// Output tiles of F(4x4) in a work item: enough rows for each weight that is read, few enough for their transforms to
// stay in the second-level cache.
constexpr int kTilesPerItem = 32;

// With fewer tiles than this in all, threads share the channels and not the tiles.
constexpr int kDeepTiles = 48;

// What a work item costs beside its strips: border rows, weights read once more.
constexpr double kItemStrips = 0.5;

// Input of a work item of the direct method that stays in the second-level cache.
constexpr std::int64_t kDirectBytes = 192 * 1024;

// kPairs: input of a work item that leaves room for weights in the second-level cache; and images of how many pixels, and
// how many pixels for each thread, make threads share the channels.
constexpr double kPairBytes = 900 * 1024;
constexpr int kDeepPixels = 64, kFewPixels = 256;

// The run of at most `most` strips for which the thread with most to do is done first; with `per_image`, runs of whole
// images or equal parts of one.
int even_share(int strips, int threads, int most, int per_image = 0) {
    int best = 1;
    double least = 1e300;
    for (int run = 1; run <= most; ++run) {
        if (per_image && per_image % run && run % per_image) continue;
        const int items = (strips + run - 1) / run, rounds = (items + threads - 1) / threads;
        const int last = items % threads == 1 || threads == 1 ? strips - (items - 1) * run : run;
        const double longest = (rounds - 1) * run + last + kItemStrips * rounds;
        if (longest <= least) best = run, least = longest;
    }
    return best;
}

// Input takes 1.5 times its size after Winograd's transform, and 1.5 times for each row modulo the stride.
void cut_pairs(Conv* c, int threads, int panel) {
    const int per_image = strips_of(c->out_height);
    const int pixels = c->out_height * c->out_width, panels = (c->out_channels + panel - 1) / panel;
    const double planes = c->kernel == 1 ? 1.0 : 1.5 * c->stride * c->stride;
    const double strip = planes * sizeof(float) * kStripRows * c->out_width * c->in_channels;
    const bool share = pixels <= kDeepPixels && c->batch * pixels <= threads * kFewPixels;
    const int shares = share ? std::min(threads, panels) : 1;
    c->strips_per_item = even_share(c->batch * per_image, share ? 1 : threads,
                                    std::max(static_cast<int>(kPairBytes / strip), 1), per_image);
    c->channels_per_item = (panels + shares - 1) / shares * panel;
}

}  // namespace

// Deep layers have few pixels and many weights: there every thread takes all pixels and a share of the channels, so
// that no weight is read twice. Elsewhere items are runs of strips, as even as possible.
void cut_work(Conv* conv, int threads, int panel) {
    const int strips = conv->batch * strips_of(conv->out_height), tiles = strips * ((conv->out_width + 3) / 4);
    const int panels = (conv->out_channels + panel - 1) / panel;
    if (conv->method == kPairs) return cut_pairs(conv, threads, panel);
    if (tiles <= kDeepTiles) {
        const int shares = std::min(threads, panels);
        conv->strips_per_item = strips;
        conv->channels_per_item = (panels + shares - 1) / shares * panel;
        return;
    }
    std::int64_t most = kTilesPerItem / ((conv->out_width + 3) / 4);  // strips of an item
    if (conv->method == kDirect) {  // every panel of weights passes over the item's input
        const std::int64_t strip = sizeof(float) * kStripRows * conv->stride * conv->width * conv->in_channels;
        most = std::min(most, kDirectBytes / strip);
    }
    conv->strips_per_item = even_share(strips, threads, static_cast<int>(std::max<std::int64_t>(most, 1)));
    conv->channels_per_item = panels * panel;
}

}  // namespace mrsi_fast
