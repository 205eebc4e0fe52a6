// Random shapes through every kernel of the native network engine, against plain loops in double. Every tensor is a
// heap block of exactly its size, so that AddressSanitizer sees a read or write past its end; scratch and results start
// as NaN, so that a read of something unwritten shows. Built and run by tests/engine/test_kernel_sources.py.
//
//   fuzz_network [rounds] [first seed]
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "mrsi_fast/network.h"
#include "mrsi_fast/pack.h"

using namespace mrsi_fast;

namespace {

using Floats = std::unique_ptr<float[]>;

struct Random {
    std::mt19937 engine;
    int below(int n) { return static_cast<int>(engine() % static_cast<unsigned>(n)); }
    int from_to(int a, int b) { return a + below(b - a + 1); }
    bool coin() { return below(2) == 1; }
    Floats normal(size_t n, float gain = 1.0f) {
        Floats values(new float[n]);
        std::normal_distribution<float> distribution;
        for (size_t i = 0; i < n; ++i) values[i] = gain * distribution(engine);
        return values;
    }
};

Floats nans(size_t n) {
    Floats values(new float[n]);
    for (size_t i = 0; i < n; ++i) values[i] = std::numeric_limits<float>::quiet_NaN();
    return values;
}

// Scratch that starts on a cache line and whose end AddressSanitizer guards.
struct Scratch {
    explicit Scratch(size_t floats)
        : block(static_cast<float*>(std::aligned_alloc(64, (4 * floats + 64) / 64 * 64)), &std::free) {
        for (size_t i = 0; i < floats; ++i) block.get()[i] = std::numeric_limits<float>::quiet_NaN();
    }
    std::unique_ptr<float, void (*)(void*)> block;
};

double worst = 0.0;

void check(double value, double exact, double bar, const char* what, unsigned seed) {
    const double error = std::fabs(value - exact);
    if (!(error <= bar)) {
        std::printf("%s, seed %u: got %.9g, expected %.9g\n", what, seed, value, exact);
        std::exit(1);
    }
    worst = std::fmax(worst, bar > 0 ? error / bar : 0.0);
}

double silu(double x) { return x / (1.0 + std::exp(-x)); }

// The activated input of a convolution, [N][H][W][C] in double, from the raw sources.
std::vector<double> activated(const Conv& c) {
    const size_t pixels = static_cast<size_t>(c.height) * c.width;
    std::vector<double> x(c.batch * pixels * c.in_channels);
    for (int n = 0; n < c.batch; ++n)
        for (int y = 0; y < c.height; ++y)
            for (int w = 0; w < c.width; ++w)
                for (int s = 0, first = 0; s < c.sources; first += c.source[s++].channels) {
                    const Source& from = c.source[s];
                    const int h = from.upsample ? c.height / 2 : c.height, wide = from.upsample ? c.width / 2 : c.width;
                    const size_t at =
                        ((static_cast<size_t>(n) * h + (y >> from.upsample)) * wide + (w >> from.upsample)) *
                        from.channels;
                    for (int k = 0; k < from.channels; ++k)
                        x[((n * pixels + y * c.width + w) * c.in_channels) + first + k] = from.data[at + k];
                }
    if (!c.groups) return x;
    const int size = c.in_channels / c.groups;
    for (int n = 0; n < c.batch; ++n)
        for (int g = 0; g < c.groups; ++g) {
            double mean = 0, m2 = 0;
            const auto each = [&](const std::function<void(double&, int)>& visit) {
                for (size_t p = 0; p < pixels; ++p)
                    for (int k = g * size; k < (g + 1) * size; ++k) visit(x[(n * pixels + p) * c.in_channels + k], k);
            };
            each([&](double& v, int) { mean += v; });
            mean /= pixels * size;
            each([&](double& v, int) { m2 += (v - mean) * (v - mean); });
            const double rstd = 1.0 / std::sqrt(m2 / (pixels * size) + c.eps);
            each([&](double& v, int k) {
                const double scale = c.scale ? c.scale[n * c.film_stride + k] : 0.0,
                             shift = c.shift ? c.shift[n * c.film_stride + k] : 0.0;
                v = silu(((v - mean) * rstd * c.gamma[k] + c.beta[k]) * (1.0 + scale) + shift);
            });
        }
    return x;
}

void conv_round(const NetworkKernels& kernels, unsigned seed, bool pairs = false) {
    Random random{std::mt19937(seed)};
    Conv c{};
    c.kernel = random.below(4) ? 3 : 1;
    c.stride = c.kernel == 3 && random.below(4) == 0 ? 2 : 1;
    const ConvMethod methods[] = {kDirect, kWinograd2, kWinograd4};
    c.method = pairs ? kPairs : c.kernel == 3 && c.stride == 1 ? methods[random.below(3)] : kDirect;
    c.sources = random.from_to(1, 2);
    const int group = random.from_to(1, 5);
    const bool upsample = random.below(3) == 0;
    c.batch = random.from_to(1, 3), c.height = random.from_to(1, 13), c.width = random.from_to(1, 13);
    if (upsample) c.height += c.height % 2, c.width += c.width % 2;
    std::vector<Floats> owned;
    const auto own = [&](Floats values) { return owned.emplace_back(std::move(values)).get(); };
    const bool norm = random.coin();
    for (int s = 0; s < c.sources; ++s) {
        Source& from = c.source[s];
        from.upsample = upsample && s == 0, from.channels = group * random.from_to(1, 6);
        const int h = from.upsample ? c.height / 2 : c.height, w = from.upsample ? c.width / 2 : c.width;
        const size_t size = static_cast<size_t>(c.batch) * h * w * from.channels;
        float* data = own(random.normal(size));
        for (size_t i = 0; i < size; ++i) data[i] += 3.0f;
        const int strips = c.batch * strips_of(h);
        float* stats = own(nans(static_cast<size_t>(strips) * 2 * from.channels));
        for (int i = 0; norm && i < strips; ++i) kernels.stats_item(data, h, w, from.channels, stats, i);
        from.data = data, from.stats = norm ? stats : nullptr;
        c.in_channels += from.channels;
    }
    c.eps = 1e-5f;
    if (norm) {
        c.groups = c.in_channels / group;
        c.gamma = own(random.normal(c.in_channels)), c.beta = own(random.normal(c.in_channels));
        c.film_stride = 2 * c.in_channels + 3;
        if (random.coin()) {
            c.scale = own(random.normal(c.batch * c.film_stride));
            c.shift = c.scale + c.in_channels;
        }
    }
    c.out_channels = random.from_to(1, 40);
    c.out_height = (c.height - 1) / c.stride + 1, c.out_width = (c.width - 1) / c.stride + 1;
    const int taps = c.kernel * c.kernel;
    const Floats weight = random.normal(static_cast<size_t>(c.out_channels) * c.in_channels * taps,
                                        1.0f / std::sqrt(1.0f * taps * c.in_channels));
    const Filters filters = {weight.get(), c.in_channels * taps, taps,          1, c.method, c.kernel,
                             c.stride,     c.in_channels,        c.out_channels};
    float* u = own(nans(kernels.conv.packed_size(&filters)));
    pack_weights(kernels.conv, filters, u, 1);
    c.weight = u;
    if (random.coin()) c.bias = own(random.normal(c.out_channels));
    const size_t out_size = static_cast<size_t>(c.batch) * c.out_height * c.out_width * c.out_channels;
    const Floats residual = random.normal(out_size);
    Floats out = nans(out_size);
    if (random.coin()) {  // read where it is written
        c.residual = out.get();
        for (size_t i = 0; i < out_size; ++i) out[i] = residual[i];
    }
    const int strips = c.batch * strips_of(c.out_height);
    Floats stats = nans(static_cast<size_t>(strips) * 2 * c.out_channels);
    c.out = out.get(), c.out_stats = random.below(4) ? stats.get() : nullptr;
    const int panels = (c.out_channels + kernels.conv.panel - 1) / kernels.conv.panel;
    c.strips_per_item = random.from_to(1, strips), c.channels_per_item = random.from_to(1, panels) * kernels.conv.panel;
    for (int item = conv_items(&c) - 1; item >= 0; --item) {
        const Scratch scratch(kernels.conv.scratch(&c));
        kernels.conv.item(&c, item, scratch.block.get());
    }
    const std::vector<double> x = activated(c);
    for (int n = 0; n < c.batch; ++n)
        for (int y = 0; y < c.out_height; ++y)
            for (int w = 0; w < c.out_width; ++w)
                for (int k = 0; k < c.out_channels; ++k) {
                    const size_t at =
                        ((static_cast<size_t>(n) * c.out_height + y) * c.out_width + w) * c.out_channels + k;
                    double sum = (c.bias ? c.bias[k] : 0.0) + (c.residual ? residual[at] : 0.0);
                    for (int t = 0; t < taps; ++t) {
                        const int yy = y * c.stride + t / c.kernel - c.kernel / 2,
                                  xx = w * c.stride + t % c.kernel - c.kernel / 2;
                        if (yy < 0 || xx < 0 || yy >= c.height || xx >= c.width) continue;
                        const double* from =
                            &x[((static_cast<size_t>(n) * c.height + yy) * c.width + xx) * c.in_channels];
                        for (int ch = 0; ch < c.in_channels; ++ch)
                            sum += from[ch] * weight[(static_cast<size_t>(k) * c.in_channels + ch) * taps + t];
                    }
                    check(out[at], sum, pairs ? 1e-3 : 2e-4, "convolution",
                          seed);  // test_native_amx.py: 8 x 2^-15 of 4
                }
    for (int strip = 0; c.out_stats && strip < strips; ++strip)
        for (int k = 0; k < c.out_channels; ++k) {
            const int n = strip / strips_of(c.out_height), y0 = strip % strips_of(c.out_height) * kStripRows;
            const int rows = std::min(kStripRows, c.out_height - y0), pixels = rows * c.out_width;
            const float* from = &out[(static_cast<size_t>(n) * c.out_height + y0) * c.out_width * c.out_channels + k];
            double mean = 0, m2 = 0;
            for (int p = 0; p < pixels; ++p) mean += from[p * c.out_channels] / pixels;
            for (int p = 0; p < pixels; ++p)
                m2 += (from[p * c.out_channels] - mean) * (from[p * c.out_channels] - mean);
            check(stats[(strip * 2) * c.out_channels + k], mean, 1e-5, "mean of a strip", seed);
            check(stats[(strip * 2 + 1) * c.out_channels + k], m2, 1e-4 * (1 + m2), "M2 of a strip", seed);
        }
}

// The filters' gradient, and filters packed from another layout, turned by 180 degrees: the input's gradient.
void gradient_round(const NetworkKernels& kernels, unsigned seed) {
    Random random{std::mt19937(seed)};
    FilterGradient g{};
    Conv& c = g.conv;
    c.method = random.coin() ? kWinograd4 : kWinograd2, c.kernel = 3, c.stride = 1, c.sources = 1;
    c.batch = random.from_to(1, 3), c.height = c.out_height = random.from_to(1, 13),
    c.width = c.out_width = random.from_to(1, 13);
    c.in_channels = random.from_to(1, 70), c.out_channels = random.from_to(1, 60);
    const int pixels = c.height * c.width;
    const Floats x = random.normal(static_cast<size_t>(c.batch) * pixels * c.in_channels);
    const Floats grad = random.normal(static_cast<size_t>(c.batch) * pixels * c.out_channels);
    c.source[0] = {x.get(), nullptr, c.in_channels, 0};
    const int strips = c.batch * strips_of(c.height);
    c.strips_per_item = random.from_to(1, strips), c.channels_per_item = c.out_channels;
    Floats v = nans(gradient_floats(&c, c.in_channels)), m = nans(gradient_floats(&c, c.out_channels));
    Floats out = nans(static_cast<size_t>(9) * c.in_channels * c.out_channels);
    const bool channels_last = random.coin();
    g.grad = grad.get(), g.v = v.get(), g.m = m.get(), g.out = out.get(), g.out_step = 9 * c.in_channels;
    g.in_step = channels_last ? 1 : 9, g.tap_step = channels_last ? c.in_channels : 1;
    for (int phase = 0; phase < 2; ++phase)
        for (int item = kernels.filter_gradient_items(&g, phase) - 1; item >= 0; --item) {
            const Scratch scratch(kernels.filter_gradient_scratch(&g));
            kernels.filter_gradient_item(&g, phase, item, scratch.block.get());
        }
    for (int k = 0; k < c.out_channels; ++k)
        for (int ch = 0; ch < c.in_channels; ++ch)
            for (int t = 0; t < 9; ++t) {
                double sum = 0;
                for (int n = 0; n < c.batch; ++n)
                    for (int p = 0; p < pixels; ++p) {
                        const int y = p / c.width + t / 3 - 1, w = p % c.width + t % 3 - 1;
                        if (y < 0 || w < 0 || y >= c.height || w >= c.width) continue;
                        sum += static_cast<double>(grad[(n * pixels + p) * c.out_channels + k]) *
                               x[(n * pixels + y * c.width + w) * c.in_channels + ch];
                    }
                check(out[k * g.out_step + ch * g.in_step + t * g.tap_step], sum, 1e-3, "gradient of a filter", seed);
            }
    const Filters turned = {
        out.get() + 8 * g.tap_step, g.in_step, g.out_step, -g.tap_step, kDirect, 3, 1, c.out_channels, c.in_channels};
    const size_t size = kernels.conv.packed_size(&turned);
    const Floats packed = nans(size);
    pack_weights(kernels.conv, turned, packed.get(), 1);
    for (size_t i = 0; i < size; ++i) {
        const int lane = i % kernels.panel, k = i / kernels.panel % c.out_channels,
                  t = i / kernels.panel / c.out_channels % 9,
                  ch = i / kernels.panel / c.out_channels / 9 * kernels.panel + lane;
        const double exact = ch < c.in_channels ? out[k * g.out_step + ch * g.in_step + (8 - t) * g.tap_step] : 0.0;
        check(packed[i], exact, 0.0, "turned filter", seed);
    }
}

void attention_round(const NetworkKernels& kernels, unsigned seed) {
    Random random{std::mt19937(seed)};
    Attention a{};
    a.batch = random.from_to(1, 2), a.tokens = random.from_to(1, random.coin() ? 150 : 600),
    a.heads = random.from_to(1, 3), a.head_channels = random.from_to(1, 40);
    const int channels = a.heads * a.head_channels;
    const Floats qkv =
        random.normal(static_cast<size_t>(a.batch) * a.tokens * 3 * channels, random.coin() ? 1.0f : 5.0f);
    Floats out = nans(static_cast<size_t>(a.batch) * a.tokens * channels);
    a.qkv = qkv.get(), a.out = out.get(), a.scale = random.coin() ? 0.3f : 1.0f / std::sqrt(1.0f * a.head_channels);
    for (int item = 0; item < a.batch * a.heads; ++item) {
        const Scratch scratch(kernels.attention_scratch(&a));
        kernels.attention_item(&a, item, scratch.block.get());
    }
    for (int n = 0; n < a.batch; ++n)
        for (int h = 0; h < a.heads; ++h)
            for (int t = 0; t < a.tokens; ++t) {
                const auto row = [&](int token, int part) {
                    return &qkv[(static_cast<size_t>(n) * a.tokens + token) * 3 * channels + part * channels +
                                h * a.head_channels];
                };
                std::vector<double> score(a.tokens);
                double high = -1e300, total = 0, terms = 0, largest = 0;
                for (int k = 0; k < a.tokens; ++k) {
                    double added = 0;
                    for (int d = 0; d < a.head_channels; ++d) {
                        const double term = static_cast<double>(row(t, 0)[d]) * row(k, 1)[d] * a.scale;
                        score[k] += term, added += std::fabs(term);
                        largest = std::fmax(largest, std::fabs(row(k, 2)[d]));
                    }
                    terms = std::fmax(terms, added);
                    high = std::fmax(high, score[k]);
                }
                // A sum of n terms is off by at most n u sum |term| (Higham 2002, eq. 3.5), u = 6e-8; an error of every
                // score moves the softmax by at most twice as much, relatively.
                const double bar = largest * (2 * (a.head_channels + 4) * 6e-8 * terms + a.tokens * 6e-8 + 1e-6);
                for (double& s : score) total += s = std::exp(s - high);
                for (int d = 0; d < a.head_channels; ++d) {
                    double sum = 0;
                    for (int k = 0; k < a.tokens; ++k) sum += score[k] / total * row(k, 2)[d];
                    check(out[(static_cast<size_t>(n) * a.tokens + t) * channels + h * a.head_channels + d], sum, bar,
                          "attention", seed);
                }
            }
}

void solver_round(const NetworkKernels& kernels, unsigned seed) {
    Random random{std::mt19937(seed)};
    SolverStep s{};
    s.batch = random.from_to(1, 2), s.maps = random.from_to(1, 3), s.x = random.from_to(1, 20),
    s.y = random.from_to(1, 20), s.factor = random.from_to(1, 2);
    s.grid_x = (s.x + s.factor - 1) / s.factor + random.below(2),
    s.grid_y = (s.y + s.factor - 1) / s.factor + random.below(2);
    const int width = s.maps * s.factor * s.factor;
    s.stem_channels = width + random.below(4);
    const size_t grid = static_cast<size_t>(s.batch) * s.grid_x * s.grid_y,
                 maps = static_cast<size_t>(s.batch) * s.maps, pixels = static_cast<size_t>(s.x) * s.y;
    const bool both = random.coin();  // a second head that tells the spread
    s.head_channels = both ? 2 * width : width;
    const Floats head = random.normal(grid * s.head_channels, 4.0f), noise = random.normal(maps * pixels),
                 presence = random.normal(maps);
    const Floats eval0 = random.normal(maps * pixels), base0 = random.normal(maps * pixels),
                 previous0 = random.normal(maps * pixels);
    Floats stem = nans(grid * s.stem_channels), eval = nans(maps * pixels), base = nans(maps * pixels),
           previous = nans(maps * pixels);
    for (size_t i = 0; i < maps * pixels; ++i) eval[i] = eval0[i], base[i] = base0[i], previous[i] = previous0[i];
    s.head = head.get(), s.stem = stem.get(), s.eval = eval.get(), s.base = base.get(), s.previous = previous.get();
    s.noise = noise.get(), s.presence = presence.get();
    Floats spread = nans(maps * pixels);
    s.spread = both ? spread.get() : nullptr;
    s.c_skip = 0.3f, s.c_out = 0.8f, s.base_c = random.coin() ? 0.5f : 0.0f, s.now = 0.7f,
    s.prev_c = random.coin() ? -0.2f : 0.0f;
    s.noise_c = random.coin() ? 0.4f : 0.0f, s.next_c_in = 0.6f, s.commit = random.coin();
    s.rank_x = random.coin() ? random.from_to(1, s.x) : 0, s.rank_y = s.rank_x ? random.from_to(1, s.y) : 0;
    const Floats qx = random.normal(static_cast<size_t>(s.rank_x) * s.x, 0.3f),
                 qy = random.normal(static_cast<size_t>(s.rank_y) * s.y, 0.3f);
    const Floats kept = random.normal(static_cast<size_t>(s.rank_x) * s.rank_y);
    Floats qx_t(new float[s.rank_x * s.x]), qy_t(new float[s.rank_y * s.y]);
    for (int r = 0; r < s.rank_x; ++r)
        for (int i = 0; i < s.x; ++i) qx_t[i * s.rank_x + r] = qx[r * s.x + i];
    for (int r = 0; r < s.rank_y; ++r)
        for (int j = 0; j < s.y; ++j) qy_t[j * s.rank_y + r] = qy[r * s.y + j];
    Floats qy_panels = nans(packed_matrix_size(s.rank_y, s.y, kernels.panel)),
           qy_t_panels = nans(packed_matrix_size(s.y, s.rank_y, kernels.panel));
    pack_matrix(qy.get(), s.rank_y, s.y, kernels.panel, qy_panels.get());
    pack_matrix(qy_t.get(), s.y, s.rank_y, kernels.panel, qy_t_panels.get());
    s.qx = qx.get(), s.qx_t = qx_t.get(), s.qy_panels = qy_panels.get(), s.qy_t_panels = qy_t_panels.get();
    s.kept = random.coin() ? kept.get() : nullptr;
    for (int n = 0; n < s.batch; ++n) {
        const Scratch scratch(kernels.solver_scratch(&s));
        kernels.solver_item(&s, n, scratch.block.get());
    }
    for (size_t map = 0; map < maps; ++map) {
        const int n = static_cast<int>(map) / s.maps, k = static_cast<int>(map) % s.maps, f = s.factor;
        std::vector<double> d(pixels), removed(pixels);
        const auto cell = [&](int i, int j) { return (static_cast<size_t>(n) * s.grid_x + i / f) * s.grid_y + j / f; };
        for (int i = 0; i < s.x; ++i)
            for (int j = 0; j < s.y; ++j)
                d[i * s.y + j] = s.c_skip * eval0[map * pixels + i * s.y + j] +
                                 s.c_out * head[cell(i, j) * s.head_channels + (k * f + i % f) * f + j % f];
        for (int a = 0; a < s.rank_x; ++a)
            for (int b = 0; b < s.rank_y; ++b) {
                double c = 0;
                for (int i = 0; i < s.x; ++i)
                    for (int j = 0; j < s.y; ++j)
                        c += static_cast<double>(qx[a * s.x + i]) * d[i * s.y + j] * qy[b * s.y + j];
                if (s.kept) c *= s.kept[a * s.rank_y + b];
                for (int i = 0; i < s.x; ++i)
                    for (int j = 0; j < s.y; ++j) removed[i * s.y + j] += c * qx[a * s.x + i] * qy[b * s.y + j];
            }
        double size = 1;
        for (size_t p = 0; p < pixels; ++p) size = std::fmax(size, std::fabs(removed[p]));
        for (int i = 0; i < s.x; ++i)
            for (int j = 0; j < s.y; ++j) {
                const size_t p = static_cast<size_t>(i) * s.y + j, at = map * pixels + p;
                const double estimate = d[p] - removed[p], bar = 2e-5 * size;
                const double next =
                    s.now * estimate + s.base_c * base0[at] + s.prev_c * previous0[at] + s.noise_c * noise[at];
                check(previous[at], estimate, bar, "estimate", seed);
                if (both) {
                    const double told = head[cell(i, j) * s.head_channels + width + (k * f + i % f) * f + j % f];
                    const double sd = std::exp(std::fmin(std::fmax(told, -7.0), 3.0));
                    check(spread[at], sd, 1e-6 * sd, "spread", seed);
                }
                check(eval[at], next, bar, "state", seed);
                check(base[at], s.commit ? next : base0[at], bar, "committed state", seed);
                check(stem[cell(i, j) * s.stem_channels + (k * f + i % f) * f + j % f],
                      s.next_c_in * presence[map] * next, bar * (1 + std::fabs(presence[map])), "network input", seed);
            }
    }
}

void start_round(const NetworkKernels& kernels, unsigned seed) {
    Random random{std::mt19937(seed)};
    SolverStep s{};
    s.batch = random.from_to(1, 2), s.maps = random.from_to(1, 3), s.x = random.from_to(1, 20),
    s.y = random.from_to(1, 20), s.factor = random.from_to(1, 2);
    const int f = s.factor, channels = 3 * s.maps + 2;
    s.grid_x = (s.x + f - 1) / f + random.below(2), s.grid_y = (s.y + f - 1) / f + random.below(2);
    s.stem_channels = channels * f * f;
    const size_t pixels = static_cast<size_t>(s.x) * s.y, maps = static_cast<size_t>(s.batch) * s.maps;
    const Floats initial = random.normal(maps * pixels), z = random.normal(maps * pixels),
                 mask = random.normal(maps * pixels), anatomy = random.normal(s.batch * pixels),
                 presence = random.normal(maps);
    Floats eval = nans(maps * pixels), base = nans(maps * pixels),
           stem = nans(static_cast<size_t>(s.batch) * s.grid_x * s.grid_y * s.stem_channels);
    s.stem = stem.get(), s.eval = eval.get(), s.base = base.get(), s.presence = presence.get();
    const SolverStart start = {initial.get(), z.get(), mask.get(), anatomy.get(), 0.6f};
    for (int n = 0; n < s.batch; ++n) kernels.start_item(&s, &start, n);
    for (size_t i = 0; i < maps * pixels; ++i) {
        check(eval[i], initial[i], 0, "first state", seed);
        check(base[i], initial[i], 0, "first committed state", seed);
    }
    for (int n = 0; n < s.batch; ++n)
        for (int i = 0; i < s.grid_x * f; ++i)
            for (int j = 0; j < s.grid_y * f; ++j)
                for (int c = 0; c < channels; ++c) {
                    const int k = c % s.maps, kind = c / s.maps;
                    const bool inside = i < s.x && j < s.y;
                    const size_t p = static_cast<size_t>(i) * s.y + j, map = static_cast<size_t>(n) * s.maps + k;
                    const double values[] = {inside && kind == 0 ? 0.6 * presence[map] * initial[map * pixels + p] : 0,
                                             inside && kind == 1 ? z[map * pixels + p] : 0,
                                             inside && kind == 2 ? mask[map * pixels + p] : 0};
                    const double last = c == channels - 1 ? 1.0 : inside ? anatomy[n * pixels + p] : 0;
                    const double wanted = !inside ? 0 : c < 3 * s.maps ? values[kind] : last;
                    const size_t cell = (static_cast<size_t>(n) * s.grid_x + i / f) * s.grid_y + j / f;
                    check(stem[cell * s.stem_channels + (c * f + i % f) * f + j % f], wanted, 3e-7 * std::fabs(wanted),
                          "first input", seed);
                }
}

void film_round(const NetworkKernels& kernels, unsigned seed) {
    Random random{std::mt19937(seed)};
    Film f{};
    f.rows = random.from_to(1, 9), f.depth = random.from_to(1, 40), f.width = random.from_to(1, 70);
    const Floats weight = random.normal(static_cast<size_t>(f.depth) * f.width), bias = random.normal(f.width);
    Floats panels = nans(packed_matrix_size(f.depth, f.width, kernels.lanes)),
           out = nans(static_cast<size_t>(f.rows) * f.width);
    pack_matrix(weight.get(), f.depth, f.width, kernels.lanes, panels.get());
    std::vector<double> embedding(static_cast<size_t>(f.rows) * f.depth);
    for (double& value : embedding) value = random.from_to(-1000, 1000) * 1e-3;
    f.panels = panels.get(), f.bias = bias.get(), f.embedding = embedding.data(), f.out = out.get();
    for (int item = 0; item * kernels.lanes < f.width; ++item) kernels.film_item(&f, item);
    for (int r = 0; r < f.rows; ++r)
        for (int k = 0; k < f.width; ++k) {
            double sum = bias[k];
            for (int d = 0; d < f.depth; ++d) sum += embedding[r * f.depth + d] * weight[d * f.width + k];
            check(out[r * f.width + k], sum, 1e-7 * std::fabs(sum) + 1e-13, "FiLM row", seed);
        }
}

}  // namespace

int main(int argc, char** argv) {
    const unsigned rounds = argc > 1 ? std::atoi(argv[1]) : 200, first = argc > 2 ? std::atoi(argv[2]) : 0;
    for (Isa isa : kAllIsas) {
        if (!isa_usable(isa)) {
            std::printf("%s: not on this processor\n", isa_name(isa));
            continue;
        }
        use_isa(isa);
        const NetworkKernels& kernels = MRSI_FAST_PICK(kNetworkKernels);
        worst = 0.0;
        for (unsigned seed = first; seed < first + rounds; ++seed) {
            conv_round(kernels, seed);
            if (seed % 4 == 0) attention_round(kernels, seed);
            if (seed % 4 == 1) start_round(kernels, seed);
            if (seed % 4 == 2) film_round(kernels, seed);
            if (seed % 4 == 1) solver_round(kernels, seed);
            if (seed % 4 == 2) gradient_round(kernels, seed);
        }
        std::printf("%s: %u rounds, worst error %.2f of its bar\n", isa_name(isa), rounds, worst);
    }
    if (!pair_kernels()) {
        std::printf("pairs: not on this processor\n");
        return 0;
    }
    NetworkKernels kernels = MRSI_FAST_PICK(kNetworkKernels);
    kernels.conv = *pair_kernels();
    worst = 0.0;
    for (unsigned seed = first; seed < first + rounds; ++seed) conv_round(kernels, seed, true);
    std::printf("pairs: %u rounds, worst error %.2f of its bar\n", rounds, worst);
    return 0;
}
