// GroupNorm, scale-shift and SiLU for one instruction set: forward and backward (compiled by the stubs isa_*.cpp).
//
// Work is cut into strips of positions holding all channels of one sample. Statistics: within a strip a first pass finds a
// value m near each channel's mean and a second one sums (x - m) and (x - m)^2; strips and channels are then merged in
// double. Cutting, order of sums and so every bit of the result do not depend on the number of threads.
#include "cpu/simd.h"
#include "mrsi_fast/group_norm_silu.h"

namespace mrsi_fast {
namespace MRSI_ISA {
namespace {

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Lanes c .. c + kLanes of a row; Full is false for the last, partly filled vector.
template <bool Full>
inline Vec load_lanes(const float* p, int64_t count) {
    return Full ? load(p) : load_part(p, count);
}

template <bool Full>
inline void store_lanes(float* p, Vec v, int64_t count) {
    if (Full) {
        store(p, v);
    } else {
        store_part(p, v, count);
    }
}

// Calls body(full, first, count) for each vector of a run of `length` values; `full` is a compile-time truth value.
struct Yes {
    static constexpr bool value = true;
};
struct No {
    static constexpr bool value = false;
};
template <class Body>
inline void for_vectors(int64_t length, Body body) {
    int64_t i = 0;
    for (; i + kLanes <= length; i += kLanes) body(Yes{}, i, static_cast<int64_t>(kLanes));
    if (i < length) body(No{}, i, length - i);
}

// Scratch of one call. Per-channel rows are padded to whole vectors, so only x, out and their gradients need care at row ends.
struct Work {
    const GroupNormSilu& op;
    int64_t length;   // positions in a strip
    int64_t strips;   // of one sample
    int64_t padded;   // channels, rounded up to whole vectors
    double* total;    // [batch, padded] sums over strips, reused
    double* squares;  // [batch, padded]
    double* inverse;  // [batch, padded] 1 / standard deviation of the channel's group
    double* rest;     // [batch, padded] mean - (float)mean: matters where the mean is large against the deviation
    float* near;      // [batch, strips, padded] m of the strip
    float* sum;       // [batch, strips, padded] sum of (x - m); in the backward pass of dv
    float* square;    // [batch, strips, padded] sum of (x - m)^2; in the backward pass of dv (x - centre)
    float* centre;    // [batch, padded] v = (x - centre) gain + offset
    float* gain;
    float* offset;
    float* slope;  // [batch, padded] backward: grad_x = dv by_dv + (x - centre) slope + level
    float* by_dv;
    float* level;

    explicit Work(const GroupNormSilu& op_, double* scratch = nullptr) : op(op_) {
        // Channels last: at most 32 KiB of rows, which the second pass finds in the first-level cache. Either way short
        // enough that float sums along a strip lose little; strips are merged in double.
        const int64_t rows = 8192 / op.channels / 4 * 4;
        length = op.channels_last ? (rows < 16 ? 16 : smaller(rows, 128)) : 1024;
        strips = (op.spatial + length - 1) / length;
        padded = (op.channels + kLanes - 1) / kLanes * kLanes;
        const int64_t rows_n = op.batch * padded;
        total = scratch;
        squares = total + rows_n;
        inverse = squares + rows_n;
        rest = inverse + rows_n;
        near = reinterpret_cast<float*>(rest + rows_n);
        sum = near + rows_n * strips;
        square = sum + rows_n * strips;
        centre = square + rows_n * strips;
        gain = centre + rows_n;
        offset = gain + rows_n;
        slope = offset + rows_n;
        by_dv = slope + rows_n;
        level = by_dv + rows_n;
    }

    int64_t doubles() const {
        const int64_t rows_n = op.batch * padded;
        return rows_n * 4 + (rows_n * (3 * strips + 6) + 1) / 2;
    }

    int64_t positions(int64_t strip) const { return smaller(length, op.spatial - strip * length); }

    // First value of a strip, and the distance from one row of it to the next.
    int64_t start(int64_t n, int64_t strip) const {
        const int64_t sample = n * op.channels * op.spatial;
        return sample + strip * length * (op.channels_last ? op.channels : 1);
    }
    int64_t row_stride() const { return op.channels_last ? op.channels : op.spatial; }
    int64_t partial(int64_t n, int64_t strip) const { return (n * strips + strip) * padded; }
};

// ---- statistics -------------------------------------------------------------------------------------------------------

// Adds Rows rows to per-channel accumulators that are read and written once for all of them.
template <int Rows>
inline void add_rows(const float* x, int64_t stride, int64_t channels, float* sum) {
    for_vectors(channels, [=](auto full, int64_t c, int64_t count) {
        Vec rows = load_lanes<full.value>(x + c, count);
        for (int r = 1; r < Rows; ++r) rows += load_lanes<full.value>(x + r * stride + c, count);
        store(sum + c, load(sum + c) + rows);
    });
}

template <int Rows>
inline void add_centred_rows(const float* x, int64_t stride, int64_t channels, const float* near, float* sum,
                             float* square) {
    for_vectors(channels, [=](auto full, int64_t c, int64_t count) {
        const Vec m = load(near + c);
        Vec s = {}, q = {};
        for (int r = 0; r < Rows; ++r) {
            const Vec d = load_lanes<full.value>(x + r * stride + c, count) - m;
            s += d;
            q += d * d;
        }
        store(sum + c, load(sum + c) + s);
        store(square + c, load(square + c) + q);
    });
}

inline void moments_channels_last(const Work& w, const float* x, int64_t rows, float* near, float* sum, float* square) {
    const int64_t channels = w.op.channels;
    for (int64_t c = 0; c < w.padded; ++c) near[c] = sum[c] = square[c] = 0.0f;
    int64_t r = 0;
    for (; r + 4 <= rows; r += 4) add_rows<4>(x + r * channels, channels, channels, near);
    for (; r < rows; ++r) add_rows<1>(x + r * channels, channels, channels, near);
    const float share = 1.0f / static_cast<float>(rows);
    for (int64_t c = 0; c < w.padded; ++c) near[c] *= share;
    for (r = 0; r + 4 <= rows; r += 4) add_centred_rows<4>(x + r * channels, channels, channels, near, sum, square);
    for (; r < rows; ++r) add_centred_rows<1>(x + r * channels, channels, channels, near, sum, square);
}

inline void moments_contiguous(const float* x, int64_t length, float* near, float* sum, float* square) {
    Vec acc[4] = {};
    int64_t i = 0;
    for (; i + 4 * kLanes <= length; i += 4 * kLanes) {
        for (int k = 0; k < 4; ++k) acc[k] += load(x + i + k * kLanes);
    }
    for_vectors(length - i,
                [&](auto full, int64_t j, int64_t count) { acc[0] += load_lanes<full.value>(x + i + j, count); });
    *near = sum_lanes((acc[0] + acc[1]) + (acc[2] + acc[3])) / static_cast<float>(length);

    const float m = *near;
    Vec s[2] = {}, q[2] = {};
    for (i = 0; i + 2 * kLanes <= length; i += 2 * kLanes) {
        for (int k = 0; k < 2; ++k) {
            const Vec d = load(x + i + k * kLanes) - m;
            s[k] += d;
            q[k] += d * d;
        }
    }
    float last_s = 0.0f, last_q = 0.0f;
    for (; i < length; ++i) {
        const float d = x[i] - m;
        last_s += d;
        last_q += d * d;
    }
    *sum = sum_lanes(s[0] + s[1]) + last_s;
    *square = sum_lanes(q[0] + q[1]) + last_q;
}

void strip_moments(const Work& w, int64_t n, int64_t strip) {
    const float* x = w.op.x + w.start(n, strip);
    const int64_t p = w.partial(n, strip);
    if (w.op.channels_last) {
        moments_channels_last(w, x, w.positions(strip), w.near + p, w.sum + p, w.square + p);
        return;
    }
    for (int64_t c = 0; c < w.op.channels; ++c) {
        moments_contiguous(x + c * w.op.spatial, w.positions(strip), w.near + p + c, w.sum + p + c, w.square + p + c);
    }
}

// Merges the strips of a sample and fills centre, gain and offset of each channel, inverse and rest of its group.
void sample_statistics(const Work& w, int64_t n) {
    const GroupNormSilu& op = w.op;
    const int64_t at = n * w.padded, members = op.channels / op.groups;
    const double share = 1.0 / static_cast<double>(members * op.spatial);
    double *total = w.total + at, *squares = w.squares + at, *mean = w.rest + at, *inverse = w.inverse + at;
    for (int64_t c = 0; c < op.channels; ++c) total[c] = squares[c] = 0.0;
    for (int64_t strip = 0; strip < w.strips; ++strip) {
        const float *near = w.near + w.partial(n, strip), *sum = w.sum + w.partial(n, strip);
        const double count = static_cast<double>(w.positions(strip));
        for (int64_t c = 0; c < op.channels; ++c) total[c] += count * near[c] + sum[c];
    }
    for (int64_t g = 0; g < op.groups; ++g) {
        double group = 0.0;
        for (int64_t c = g * members; c < (g + 1) * members; ++c) group += total[c];
        for (int64_t c = g * members; c < (g + 1) * members; ++c) mean[c] = group * share;
    }
    for (int64_t strip = 0; strip < w.strips; ++strip) {
        const int64_t p = w.partial(n, strip);
        const float *near = w.near + p, *sum = w.sum + p, *square = w.square + p;
        const double count = static_cast<double>(w.positions(strip)), per_count = 1.0 / count;
        for (int64_t c = 0; c < op.channels; ++c) {
            const double s = sum[c], offset = near[c] + s * per_count - mean[c];
            squares[c] += (square[c] - s * s * per_count) + count * offset * offset;
        }
    }
    for (int64_t g = 0; g < op.groups; ++g) {
        double group = 0.0;
        for (int64_t c = g * members; c < (g + 1) * members; ++c) group += squares[c];
        const double variance = group * share;
        const double inv = 1.0 / __builtin_sqrt((variance < 0.0 ? 0.0 : variance) + op.eps);
        for (int64_t c = g * members; c < (g + 1) * members; ++c) inverse[c] = inv;
    }
    const int64_t row = n * op.channels;
    for (int64_t c = 0; c < op.channels; ++c) {
        const double film = op.scale ? 1.0 + op.scale[row + c] : 1.0, shift = op.shift ? op.shift[row + c] : 0.0;
        const double gain = inverse[c] * op.weight[c] * film;
        w.centre[at + c] = static_cast<float>(mean[c]);
        w.rest[at + c] = mean[c] - w.centre[at + c];
        w.gain[at + c] = static_cast<float>(gain);
        w.offset[at + c] = static_cast<float>(op.bias[c] * film + shift - w.rest[at + c] * gain);
    }
    for (int64_t c = op.channels; c < w.padded; ++c) w.centre[at + c] = w.gain[at + c] = w.offset[at + c] = 0.0f;
}

// ---- forward ----------------------------------------------------------------------------------------------------------

// A strip is rows of values: channels last, a row is one position and the coefficients run with the channels; contiguous,
// a row is one channel and the coefficients are the same all along it.
template <bool ChannelsLast>
inline Vec coefficient(const float* row, int64_t c, int64_t i) {
    return ChannelsLast ? load(row + i) : splat(row[c]);
}

template <bool ChannelsLast>
void strip_forward(const Work& w, int64_t n, int64_t strip, float* out) {
    const int64_t at = n * w.padded, stride = w.row_stride(), first = w.start(n, strip);
    const int64_t rows = ChannelsLast ? w.positions(strip) : w.op.channels;
    const int64_t columns = ChannelsLast ? w.op.channels : w.positions(strip);
    const float *centre = w.centre + at, *gain = w.gain + at, *offset = w.offset + at;
    for (int64_t r = 0; r < rows; ++r) {
        const float* x = w.op.x + first + r * stride;
        float* y = out + first + r * stride;
        for_vectors(columns, [=](auto full, int64_t i, int64_t count) {
            const Vec d = load_lanes<full.value>(x + i, count) - coefficient<ChannelsLast>(centre, r, i);
            const Vec v = d * coefficient<ChannelsLast>(gain, r, i) + coefficient<ChannelsLast>(offset, r, i);
            store_lanes<full.value>(y + i, silu(v), count);
        });
    }
}

// ---- backward ---------------------------------------------------------------------------------------------------------
// With xhat = (x - mean) inverse, v = xhat weight (1 + scale) + ..., k = weight (1 + scale), N values in a group:
//   dv = grad_out silu'(v);  grad_x = inverse (k dv - mean_N(k dv) - xhat mean_N(k dv xhat))   (Wu & He 2018, eq. 1, differentiated)

// Leaves dv in grad.x and the sums of dv and of dv (x - centre) per channel of the strip.
template <bool ChannelsLast>
void strip_slopes(const Work& w, int64_t n, int64_t strip, const GroupNormSiluGradients& grad) {
    const int64_t at = n * w.padded, stride = w.row_stride(), first = w.start(n, strip), p = w.partial(n, strip);
    const int64_t rows = ChannelsLast ? w.positions(strip) : w.op.channels;
    const int64_t columns = ChannelsLast ? w.op.channels : w.positions(strip);
    const float *centre = w.centre + at, *gain = w.gain + at, *offset = w.offset + at;
    float *sum = w.sum + p, *product = w.square + p;
    if (ChannelsLast) {
        for (int64_t c = 0; c < w.padded; ++c) sum[c] = product[c] = 0.0f;
    }
    for (int64_t r = 0; r < rows; ++r) {
        const float *x = w.op.x + first + r * stride, *g = grad.out + first + r * stride;
        float* dx = grad.x + first + r * stride;
        Vec row_sum = {}, row_product = {};
        for_vectors(columns, [&](auto full, int64_t i, int64_t count) {
            const Vec d = load_lanes<full.value>(x + i, count) - coefficient<ChannelsLast>(centre, r, i);
            const Vec v = d * coefficient<ChannelsLast>(gain, r, i) + coefficient<ChannelsLast>(offset, r, i);
            Vec dv = load_lanes<full.value>(g + i, count) * silu_slope(v);
            store_lanes<full.value>(dx + i, dv, count);
            if (!full.value)
                dv = load_part(dx + i, count);  // lanes beyond the row must not reach the sums, NaN least of all
            if (ChannelsLast) {
                store(sum + i, load(sum + i) + dv);
                store(product + i, load(product + i) + dv * d);
            } else {
                row_sum += dv;
                row_product += dv * d;
            }
        });
        if (!ChannelsLast) {
            sum[r] = sum_lanes(row_sum);
            product[r] = sum_lanes(row_product);
        }
    }
}

// Merges the strips; writes grad.scale and grad.shift of the sample, its share of grad.weight (left in `squares`) and of
// grad.bias (left in `total`), and the coefficients of grad.x.
void sample_slopes(const Work& w, int64_t n, const GroupNormSiluGradients& grad) {
    const GroupNormSilu& op = w.op;
    const int64_t at = n * w.padded, row = n * op.channels, members = op.channels / op.groups;
    const double share = 1.0 / static_cast<double>(members * op.spatial);
    double *total = w.total + at, *squares = w.squares + at;
    const double *inverse = w.inverse + at, *rest = w.rest + at;
    for (int64_t c = 0; c < op.channels; ++c) total[c] = squares[c] = 0.0;
    for (int64_t strip = 0; strip < w.strips; ++strip) {
        const float *sum = w.sum + w.partial(n, strip), *product = w.square + w.partial(n, strip);
        for (int64_t c = 0; c < op.channels; ++c) total[c] += sum[c];
        for (int64_t c = 0; c < op.channels; ++c) squares[c] += product[c];
    }
    for (int64_t g = 0; g < op.groups; ++g) {
        double mean_kdv = 0.0, mean_kdvx = 0.0;
        for (int64_t c = g * members; c < (g + 1) * members; ++c) {
            const double film = op.scale ? 1.0 + op.scale[row + c] : 1.0, k = op.weight[c] * film;
            squares[c] = (squares[c] - rest[c] * total[c]) * inverse[c];  // sum of dv xhat
            mean_kdv += k * total[c] * share;
            mean_kdvx += k * squares[c] * share;
        }
        for (int64_t c = g * members; c < (g + 1) * members; ++c) {
            const double film = op.scale ? 1.0 + op.scale[row + c] : 1.0, inv = inverse[c];
            const double slope = -inv * inv * mean_kdvx;
            w.by_dv[at + c] = static_cast<float>(inv * op.weight[c] * film);
            w.slope[at + c] = static_cast<float>(slope);
            w.level[at + c] = static_cast<float>(-inv * mean_kdv - slope * rest[c]);
            if (op.scale) grad.scale[row + c] = static_cast<float>(op.weight[c] * squares[c] + op.bias[c] * total[c]);
            if (op.shift) grad.shift[row + c] = static_cast<float>(total[c]);
            total[c] *= film;
            squares[c] *= film;
        }
    }
    for (int64_t c = op.channels; c < w.padded; ++c) w.by_dv[at + c] = w.slope[at + c] = w.level[at + c] = 0.0f;
}

template <bool ChannelsLast>
void strip_backward(const Work& w, int64_t n, int64_t strip, const GroupNormSiluGradients& grad) {
    const int64_t at = n * w.padded, stride = w.row_stride(), first = w.start(n, strip);
    const int64_t rows = ChannelsLast ? w.positions(strip) : w.op.channels;
    const int64_t columns = ChannelsLast ? w.op.channels : w.positions(strip);
    const float *centre = w.centre + at, *by_dv = w.by_dv + at, *slope = w.slope + at, *level = w.level + at;
    for (int64_t r = 0; r < rows; ++r) {
        const float* x = w.op.x + first + r * stride;
        float* dx = grad.x + first + r * stride;
        for_vectors(columns, [=](auto full, int64_t i, int64_t count) {
            const Vec d = load_lanes<full.value>(x + i, count) - coefficient<ChannelsLast>(centre, r, i);
            const Vec dv = load_lanes<full.value>(dx + i, count);
            const Vec sloped = d * coefficient<ChannelsLast>(slope, r, i) + coefficient<ChannelsLast>(level, r, i);
            store_lanes<full.value>(dx + i, dv * coefficient<ChannelsLast>(by_dv, r, i) + sloped, count);
        });
    }
}

// ---- phases and threads -----------------------------------------------------------------------------------------------

struct Forward {
    static constexpr int phases = 2;
    Work w;
    float* out;
    void strip(int phase, int64_t n, int64_t i) const {
        if (phase == 0) return strip_moments(w, n, i);
        w.op.channels_last ? strip_forward<true>(w, n, i, out) : strip_forward<false>(w, n, i, out);
    }
    void sample(int, int64_t n) const { sample_statistics(w, n); }
};

struct Backward {
    static constexpr int phases = 3;
    Work w;
    GroupNormSiluGradients grad;
    void strip(int phase, int64_t n, int64_t i) const {
        if (phase == 0) return strip_moments(w, n, i);
        if (phase == 1)
            return w.op.channels_last ? strip_slopes<true>(w, n, i, grad) : strip_slopes<false>(w, n, i, grad);
        w.op.channels_last ? strip_backward<true>(w, n, i, grad) : strip_backward<false>(w, n, i, grad);
    }
    void sample(int phase, int64_t n) const { phase == 0 ? sample_statistics(w, n) : sample_slopes(w, n, grad); }
};

// Every phase goes over all strips; between two phases the strips of each sample are merged.
template <class Job>
void run(const Job& job) {
    const GroupNormSilu& op = job.w.op;
    const int64_t strips = job.w.strips;
    // Whole samples stay in a core's cache from phase to phase; where they do not divide evenly, strips are dealt out.
    const bool whole_samples = op.batch % op.threads == 0 || op.batch >= 4 * op.threads;
#pragma omp parallel num_threads(op.threads)
    if (whole_samples) {
#pragma omp for schedule(static)
        for (int64_t n = 0; n < op.batch; ++n) {
            for (int phase = 0; phase < Job::phases; ++phase) {
                for (int64_t i = 0; i < strips; ++i) job.strip(phase, n, i);
                if (phase + 1 < Job::phases) job.sample(phase, n);
            }
        }
    } else {
        for (int phase = 0; phase < Job::phases; ++phase) {
#pragma omp for schedule(static)
            for (int64_t item = 0; item < op.batch * strips; ++item) job.strip(phase, item / strips, item % strips);
            if (phase + 1 == Job::phases) continue;
#pragma omp for schedule(static)
            for (int64_t n = 0; n < op.batch; ++n) job.sample(phase, n);
        }
    }
}

}  // namespace

int64_t group_norm_silu_scratch(const GroupNormSilu& op) { return Work(op).doubles(); }

void group_norm_silu_forward(const GroupNormSilu& op, double* scratch, float* out) {
    run(Forward{Work(op, scratch), out});
}

void group_norm_silu_backward(const GroupNormSilu& op, double* scratch, const GroupNormSiluGradients& grad) {
    const Backward job{Work(op, scratch), grad};
    run(job);
    for (int64_t c = 0; c < op.channels; ++c) {
        double weight = 0.0, bias = 0.0;
        for (int64_t n = 0; n < op.batch; ++n) {
            weight += job.w.squares[n * job.w.padded + c];
            bias += job.w.total[n * job.w.padded + c];
        }
        grad.weight[c] = static_cast<float>(weight);
        grad.bias[c] = static_cast<float>(bias);
    }
}

}  // namespace MRSI_ISA
}  // namespace mrsi_fast
