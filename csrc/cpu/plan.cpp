// Fills plans: operations, solver, projection; copies and packs what they read.
#include "mrsi_fast/plan.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

#include "mrsi_fast/checks.h"
#include "mrsi_fast/pack.h"
#include "mrsi_fast/partition.h"

namespace mrsi_fast {
namespace {

const ConvKernels& kernels_of(ConvMethod method, const NetworkKernels& kernels) {
    if (method != kPairs) return kernels.conv;
    if (!pair_kernels())
        throw std::runtime_error("convolutions on pairs of bfloat16 need AMX, which is not usable here.");
    return *pair_kernels();
}

void check(const ConvSpec& spec, std::size_t film_width) {
    const std::string& name = spec.name;
    require(spec.sources.size() == 1 || spec.sources.size() == 2, name + ": a convolution reads one or two values.");
    std::int64_t channels = 0;
    for (const SourceSpec& from : spec.sources) {
        values_of(name.c_str(), {spec.batch, spec.height, spec.width, from.channels}, 1);
        require(!from.upsample || (spec.height % 2 == 0 && spec.width % 2 == 0),
                name + ": an upsampled image has an even size.");
        channels += from.channels;
    }
    require((spec.kernel == 1 || spec.kernel == 3) && (spec.stride == 1 || spec.stride == 2),
            name + ": a convolution has kernel 1 or 3 and stride 1 or 2.");
    require(spec.method == kDirect || spec.method == kPairs || (spec.kernel == 3 && spec.stride == 1),
            name + ": Winograd's method needs kernel 3 and stride 1.");
    values_of(name.c_str(), {spec.out_channels, channels, spec.kernel, spec.kernel}, 1);
    require_tensor((name + ".weight").c_str(), spec.weight), require_aligned((name + ".bias").c_str(), spec.bias);
    if (spec.groups != 0) {
        require_groups(spec.groups, channels);
        require(spec.eps >= 0.0, name + ": eps must not be negative.");
        require_tensor((name + ".gamma").c_str(), spec.gamma), require_tensor((name + ".beta").c_str(), spec.beta);
    }
    for (const std::int64_t offset : {spec.film_scale, spec.film_shift})
        require(offset < 0 || offset + channels <= static_cast<std::int64_t>(film_width),
                name + ": scale or shift lies outside a row of the FiLM table.");
    require((spec.film_scale < 0) == (spec.film_shift < 0), name + ": scale and shift come together.");
}

}  // namespace

Plan::Plan(std::size_t arena_floats, std::size_t film_width, int threads, std::shared_ptr<PackedWeights> weights)
    : kernels_(&MRSI_FAST_PICK(kNetworkKernels)),
      isa_(active_isa()),
      threads_(threads),
      film_width_(film_width),
      arena_(arena_floats),
      weights_(weights ? std::move(weights) : std::make_shared<PackedWeights>()) {
    require_threads(threads_);
    scratch_.resize(threads_);
    std::fill_n(arena_.data(), arena_floats, 0.0f);
}

float* Plan::place(const std::string& what, std::int64_t offset, std::int64_t count, bool none) {
    if (offset < 0 && none) return nullptr;
    const std::int64_t size = static_cast<std::int64_t>(arena_.size());
    require(offset >= 0 && count >= 0 && count <= size && offset <= size - count,
            what + ": " + std::to_string(count) + " values from " + std::to_string(offset) +
                " on do not lie within the arena of " + std::to_string(size) + ".");
    return arena_.data() + offset;
}

const float* Plan::keep(const float* values, std::size_t count) {
    if (!values) return nullptr;
    Block block(count);
    std::copy_n(values, count, block.data());
    kept_.push_back(std::move(block));
    return kept_.back().data();
}

void Plan::need_scratch(std::size_t floats) {
    for (Block& scratch : scratch_)
        if (scratch.size() < floats) scratch = Block(floats);
}

void Plan::add_conv(const ConvSpec& spec) {
    check(spec, film_width_);
    Operation op{};
    op.name = spec.name, op.kind = Kind::conv;
    op.kernels = &kernels_of(spec.method, *kernels_);
    Conv& c = op.conv;
    c.sources = static_cast<int>(spec.sources.size());
    for (int s = 0; s < c.sources; ++s) {
        const SourceSpec& from = spec.sources[s];
        const int height = spec.height >> from.upsample, width = spec.width >> from.upsample;
        const std::int64_t images = spec.batch;
        c.source[s] = {
            place(spec.name + ".source", from.data, images * height * width * from.channels),
            place(spec.name + ".stats", from.stats, images * strips_of(height) * 2 * from.channels, spec.groups == 0),
            from.channels, from.upsample};
        c.in_channels += from.channels;
    }
    c.batch = spec.batch, c.height = spec.height, c.width = spec.width;
    c.groups = spec.groups, c.eps = static_cast<float>(spec.eps);
    c.gamma = keep(spec.gamma, c.in_channels), c.beta = keep(spec.beta, c.in_channels);
    c.film_stride = static_cast<long>(film_width_);
    c.method = spec.method, c.kernel = spec.kernel, c.stride = spec.stride, c.out_channels = spec.out_channels;
    c.out_height = (spec.height + 2 * (spec.kernel / 2) - spec.kernel) / spec.stride + 1;
    c.out_width = (spec.width + 2 * (spec.kernel / 2) - spec.kernel) / spec.stride + 1;
    const int taps = spec.kernel * spec.kernel;
    const Filters filters = {spec.weight,   static_cast<std::int64_t>(c.in_channels) * taps,
                             taps,          1,
                             spec.method,   spec.kernel,
                             spec.stride,   c.in_channels,
                             c.out_channels};
    const std::int64_t own = -1 - static_cast<std::int64_t>(operations_.size());
    c.weight = weights_->get(spec.key < 0 ? own : spec.key, filters, *op.kernels, threads_);
    c.bias = keep(spec.bias, c.out_channels);
    const std::int64_t out = values_of("out", {spec.batch, c.out_height, c.out_width, spec.out_channels});
    c.out = place(spec.name + ".out", spec.out, out),
    c.residual = place(spec.name + ".residual", spec.residual, out, true);
    c.out_stats = place(spec.name + ".out_stats", spec.out_stats,
                        values_of("stats", {spec.batch, strips_of(c.out_height), 2, spec.out_channels}), true);
    op.film_scale = spec.film_scale, op.film_shift = spec.film_shift;
    cut_work(&c, threads_, op.kernels->panel);
    op.items = conv_items(&c);
    need_scratch(op.kernels->scratch(&c));
    operations_.push_back(op);
}

void Plan::add_attention(const AttentionSpec& spec) {
    Operation op{};
    op.name = spec.name, op.kind = Kind::attention;
    const std::int64_t out = values_of("attention", {spec.batch, spec.tokens, spec.heads, spec.head_channels}, 1);
    op.attention = {place(spec.name + ".qkv", spec.qkv, 3 * out),
                    place(spec.name + ".out", spec.out, out),
                    spec.batch,
                    spec.tokens,
                    spec.heads,
                    spec.head_channels,
                    1.0f / std::sqrt(static_cast<float>(spec.head_channels))};
    op.items = spec.batch * spec.heads;
    need_scratch(kernels_->attention_scratch(&op.attention));
    operations_.push_back(op);
}

void Plan::set_solver(const SolverSpec& spec) {
    const std::int64_t maps = values_of("solver", {spec.batch, spec.maps, spec.x, spec.y}, 1);
    const std::int64_t area = values_of("solver", {spec.factor, spec.factor}, 1);
    const std::int64_t cells = values_of("solver", {spec.batch, spec.grid_x, spec.grid_y}, 1);
    require(std::int64_t{spec.grid_x} * spec.factor >= spec.x && std::int64_t{spec.grid_y} * spec.factor >= spec.y,
            "solver: the grid of stem and head does not cover the maps.");
    require(spec.stem_channels == (3 * std::int64_t{spec.maps} + 2) * area,
            "solver: the stem has not the channels of residual, z, mask, anatomy and field of view.");
    const std::int64_t head = values_of("head", {cells, spec.maps, area});
    place("eval", spec.eval, maps), place("base", spec.base, maps), place("previous", spec.previous, maps);
    place("noise", spec.noise, maps), place("presence", spec.presence, std::int64_t{spec.batch} * spec.maps);
    place("head", spec.head, head), place("stem", spec.stem, values_of("stem", {cells, spec.stem_channels}));
    place("spread", spec.spread, maps, true), place("both_heads", spec.both_heads, 2 * head, spec.spread < 0);
    require(spec.spread < 0 || operations_.size() >= 2, "solver: two heads are two operations.");
    SolverStep& s = solver_;
    s.rank_x = s.rank_y = 0;  // a projection belongs to the solver that it was set for
    s.batch = spec.batch, s.maps = spec.maps, s.x = spec.x, s.y = spec.y;
    s.factor = spec.factor, s.grid_x = spec.grid_x, s.grid_y = spec.grid_y, s.stem_channels = spec.stem_channels;
    s.head_channels = s.maps * s.factor * s.factor;
    s.head = at(spec.head), s.stem = at(spec.stem), s.eval = at(spec.eval), s.base = at(spec.base);
    s.previous = at(spec.previous), s.noise = at(spec.noise), s.presence = at(spec.presence);
    both_heads_ = spec.spread < 0 ? -1 : static_cast<int>(operations_.size()) - 1;
    both_out_ = spec.both_heads, spread_ = spec.spread;
}

void Plan::set_projection(int rank_x, int rank_y, const float* qx, const float* qy, const float* kept) {
    const Caller caller(this);
    SolverStep& s = solver_;
    require(rank_x >= 0 && rank_x <= s.x && (!rank_x || (rank_y >= 1 && rank_y <= s.y)),
            "projection: a rank is below 1 or larger than its axis.");
    if (rank_x) require_tensor("qx", qx), require_tensor("qy", qy), require_aligned("kept", kept);
    s.rank_x = rank_x, s.rank_y = rank_y;
    if (!rank_x) return;
    const int panel = kernels_->panel;
    std::vector<float> transposed(static_cast<std::size_t>(rank_y) * s.y);
    for (int r = 0; r < rank_y; ++r)
        for (int j = 0; j < s.y; ++j)
            transposed[static_cast<std::size_t>(j) * rank_y + r] = qy[static_cast<std::size_t>(r) * s.y + j];
    projection_[0] = Block(static_cast<std::size_t>(rank_x) * s.x);
    projection_[1] = Block(static_cast<std::size_t>(rank_x) * s.x);
    for (int r = 0; r < rank_x; ++r)
        for (int i = 0; i < s.x; ++i) {
            const float value = qx[static_cast<std::size_t>(r) * s.x + i];
            projection_[0].data()[static_cast<std::size_t>(r) * s.x + i] = value;
            projection_[1].data()[static_cast<std::size_t>(i) * rank_x + r] = value;
        }
    projection_[2] = Block(packed_matrix_size(rank_y, s.y, panel));
    pack_matrix(qy, rank_y, s.y, panel, projection_[2].data());
    projection_[3] = Block(packed_matrix_size(s.y, rank_y, panel));
    pack_matrix(transposed.data(), s.y, rank_y, panel, projection_[3].data());
    s.kept = nullptr;
    if (kept) {
        projection_[4] = Block(static_cast<std::size_t>(rank_x) * rank_y);
        std::copy_n(kept, projection_[4].size(), projection_[4].data());
        s.kept = projection_[4].data();
    }
    s.qx = projection_[0].data(), s.qx_t = projection_[1].data();
    s.qy_panels = projection_[2].data(), s.qy_t_panels = projection_[3].data();
    need_scratch(kernels_->solver_scratch(&s));
}

void Plan::set_film(int depth, const float* weight, const float* bias) {
    require(depth >= 1, "film: the embedding has at least one value.");
    require_tensor("film.weight", weight), require_tensor("film.bias", bias);
    const int width = static_cast<int>(film_width_);
    Block panels(packed_matrix_size(depth, width, kernels_->lanes));
    pack_matrix(weight, depth, width, kernels_->lanes, panels.data());
    film_.panels = panels.data(), film_.bias = keep(bias, film_width_), film_.depth = depth, film_.width = width;
    kept_.push_back(std::move(panels));
}

std::vector<OperationInfo> Plan::operations() const {
    std::vector<OperationInfo> found;
    for (const Operation& op : operations_) {
        const bool conv = op.kind == Kind::conv;
        const Conv& c = op.conv;
        const char* kernels = conv && op.kernels == pair_kernels() ? "amx" : isa_name(isa_);
        found.push_back({op.name, conv ? "convolution" : "self-attention", kernels, c.method, c.kernel, c.stride,
                         c.in_channels, c.out_channels, c.height, c.width, op.items});
    }
    return found;
}

std::size_t Plan::weight_floats() const {
    std::size_t total = weights_->floats();
    for (const Block& block : kept_) total += block.size();
    return total;
}

std::size_t Plan::scratch_floats() const {
    std::size_t total = 0;
    for (const Block& block : scratch_) total += block.size();
    return total;
}

}  // namespace mrsi_fast
