// Fills and runs plans. All threads go through the operations together, with one barrier after each; work items are
// dealt out as threads become free, which changes no result because every item writes its own values.
#include "mrsi_fast/plan.h"

#include <algorithm>
#include <cmath>
#include <new>
#include <stdexcept>
#include <utility>

#include "mrsi_fast/pack.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

#ifdef _OPENMP
#include <omp.h>
#endif

namespace mrsi_fast {
namespace {

constexpr std::size_t kLine = 16;  // floats in a cache line
constexpr std::size_t kHugePage = 2 << 20;
constexpr std::size_t kSlab = 2 << 20;  // floats: 8 MiB

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

double now_seconds() {
#ifdef _OPENMP
    return omp_get_wtime();
#else
    return 0.0;
#endif
}

}  // namespace

Block::Block(std::size_t floats) : size_(floats) {
    const std::size_t bytes = floats * sizeof(float), page = bytes < kHugePage ? 64 : kHugePage;
    if (!floats) return;
    memory_.reset(static_cast<float*>(std::aligned_alloc(page, (bytes + page - 1) / page * page)));
    if (!memory_) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
    if (bytes >= kHugePage)
        madvise(memory_.get(), bytes, MADV_HUGEPAGE);  // advice: nothing is lost where it is refused
#endif
}

Block& thread_scratch(std::size_t floats) {
    static thread_local Block scratch;
    if (scratch.size() < floats) scratch = Block(floats);
    return scratch;
}

namespace {

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

const ConvKernels& kernels_of(Method method, const NetworkKernels& kernels) {
    if (method != kPairs) return kernels.conv;
    if (!pair_kernels())
        throw std::runtime_error("convolutions on pairs of bfloat16 need AMX, which is not usable here.");
    return *pair_kernels();
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

// Holds the plan for one call: its buffers serve one run at a time.
class Plan::Caller {
  public:
    explicit Caller(Plan* plan) : plan_(plan) {
        if (plan_->busy_.exchange(true))
            throw std::runtime_error("this plan is running in another thread; make one engine per thread.");
    }
    ~Caller() { plan_->busy_ = false; }
    Caller(const Caller&) = delete;
    Caller& operator=(const Caller&) = delete;

  private:
    Plan* plan_;
};

const float* PackedWeights::get(std::int64_t key, const Filters& filters, const ConvKernels& kernels, int threads) {
    const float*& packed = packed_[{key, filters.method, kernels.panel}];
    if (packed) return packed;
    const std::size_t floats = kernels.packed_size(&filters), taken = (floats + kLine - 1) / kLine * kLine;
    if (left_ < taken) {
        slabs_.emplace_back(std::max(kSlab, taken));
        left_ = slabs_.back().size();
    }
    float* to = slabs_.back().data() + slabs_.back().size() - left_;
    pack_weights(kernels, filters, to, threads);
    left_ -= taken, used_ += floats;
    return packed = to;
}

Plan::Plan(std::size_t arena_floats, std::size_t film_width, int threads, std::shared_ptr<PackedWeights> weights)
    : kernels_(&MRSI_FAST_PICK(kNetworkKernels)),
      threads_(threads),
      film_width_(film_width),
      arena_(arena_floats),
      weights_(weights ? std::move(weights) : std::make_shared<PackedWeights>()) {
    scratch_.resize(threads_);
    std::fill_n(arena_.data(), arena_floats, 0.0f);
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
    Operation op{};
    op.kind = Kind::conv;
    op.kernels = &kernels_of(spec.method, *kernels_);
    Conv& c = op.conv;
    c.sources = static_cast<int>(spec.sources.size());
    for (int s = 0; s < c.sources; ++s) {
        const SourceSpec& from = spec.sources[s];
        c.source[s] = {at(from.data), at(from.stats), from.channels, from.upsample};
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
    c.residual = at(spec.residual), c.out = at(spec.out), c.out_stats = at(spec.out_stats);
    op.film_scale = spec.film_scale, op.film_shift = spec.film_shift;
    cut_work(&c, threads_, op.kernels->panel);
    op.items = conv_items(&c);
    need_scratch(op.kernels->scratch(&c));
    operations_.push_back(op);
}

void Plan::add_attention(std::int64_t qkv, std::int64_t out, int batch, int tokens, int heads, int head_channels) {
    Operation op{};
    op.kind = Kind::attention;
    op.attention = {
        at(qkv), at(out), batch, tokens, heads, head_channels, 1.0f / std::sqrt(static_cast<float>(head_channels))};
    op.items = batch * heads;
    need_scratch(kernels_->attention_scratch(&op.attention));
    operations_.push_back(op);
}

void Plan::set_solver(const SolverSpec& spec) {
    SolverStep& s = solver_;
    s.batch = spec.batch, s.maps = spec.maps, s.x = spec.x, s.y = spec.y;
    s.factor = spec.factor, s.grid_x = spec.grid_x, s.grid_y = spec.grid_y, s.stem_channels = spec.stem_channels;
    s.head_channels = s.maps * s.factor * s.factor;
    s.head = at(spec.head), s.stem = at(spec.stem), s.eval = at(spec.eval), s.base = at(spec.base);
    s.previous = at(spec.previous), s.noise = at(spec.noise), s.presence = at(spec.presence);
}

void Plan::set_spread(std::int64_t head, std::int64_t spread) {
    both_heads_ = static_cast<int>(operations_.size()) - 1;
    both_out_ = head, spread_ = spread;
}

void Plan::set_projection(int rank_x, int rank_y, const float* qx, const float* qy, const float* kept) {
    const Caller caller(this);
    SolverStep& s = solver_;
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
    const int width = static_cast<int>(film_width_);
    Block panels(packed_matrix_size(depth, width, kernels_->lanes));
    pack_matrix(weight, depth, width, kernels_->lanes, panels.data());
    film_.panels = panels.data(), film_.bias = keep(bias, film_width_), film_.depth = depth, film_.width = width;
    kept_.push_back(std::move(panels));
}

void Plan::film_rows(const double* embedding, int rows, float* out) const {
    Film film = film_;
    film.embedding = embedding, film.rows = rows, film.out = out;
    const int items = (film.width + kernels_->lanes - 1) / kernels_->lanes;
#ifdef _OPENMP
#pragma omp parallel for schedule(static) num_threads(threads_)
#endif
    for (int item = 0; item < items; ++item) kernels_->film_item(&film, item);
}

void Plan::start(const SolverStart& start, const float* presence) {
    const Caller caller(this);
    std::copy_n(presence, static_cast<std::size_t>(solver_.batch) * solver_.maps, const_cast<float*>(solver_.presence));
    const SolverStep* solver = &solver_;
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads_)
#endif
    for (int image = 0; image < solver->batch; ++image) kernels_->start_item(solver, &start, image);
}

void Plan::execute(const float* film, const SolverStep* solver) {
    seconds_.resize(operations_.size() + 1, 0.0);
    for (Operation& op : operations_) {
        op.conv.scale = op.film_scale < 0 ? nullptr : film + op.film_scale;
        op.conv.shift = op.film_shift < 0 ? nullptr : film + op.film_shift;
    }
    const int left_out = solver && solver->spread ? both_heads_ - 1 : both_heads_;
    const int count = static_cast<int>(operations_.size()), images = solver ? solver->batch : 0;
#ifdef _OPENMP
#pragma omp parallel num_threads(threads_)
#endif
    {
#ifdef _OPENMP
        const int thread = omp_get_thread_num();
#else
        const int thread = 0;
#endif
        float* scratch = scratch_[thread].data();
        double before = now_seconds();
        for (int i = 0; i < count + (solver ? 1 : 0); ++i) {
            if (i == left_out) continue;
            const Operation* op = i < count ? &operations_[i] : nullptr;
            const int items = op ? op->items : images;
#ifdef _OPENMP
#pragma omp for schedule(dynamic, 1)
#endif
            for (int item = 0; item < items; ++item) {
                if (!op)
                    kernels_->solver_item(solver, item, scratch);
                else if (op->kind == Kind::conv)
                    op->kernels->item(&op->conv, item, scratch);
                else
                    kernels_->attention_item(&op->attention, item, scratch);
            }
            if (thread == 0) {
                const double after = now_seconds();
                seconds_[i] += after - before;
                before = after;
            }
        }
    }
}

void Plan::evaluate(const float* film) {
    const Caller caller(this);
    execute(film, nullptr);
}

void Plan::run(const std::vector<StepCoefficients>& steps, const float* film,
               const std::function<void(int)>& before_noise, const std::function<void(int)>& after_step, bool spread) {
    const Caller caller(this);
    if (spread && both_heads_ < 0) throw std::runtime_error("this network has no head for the spread.");
    const std::size_t row = film_width_ * solver_.batch;
    for (std::size_t i = 0; i < steps.size(); ++i) {
        const StepCoefficients& c = steps[i];
        SolverStep s = solver_;
        s.c_skip = static_cast<float>(c.c_skip), s.c_out = static_cast<float>(c.c_out),
        s.base_c = static_cast<float>(c.base);
        s.now = static_cast<float>(c.now), s.prev_c = static_cast<float>(c.prev),
        s.noise_c = static_cast<float>(c.noise);
        s.next_c_in = static_cast<float>(c.next_c_in), s.commit = c.commit;
        if (spread) s.head = at(both_out_), s.head_channels *= 2, s.spread = at(spread_);
        if (s.noise_c != 0.0f) before_noise(static_cast<int>(i));
        execute(film + i * row, &s);
        after_step(static_cast<int>(i));
    }
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

std::vector<double> Plan::take_seconds() {
    std::vector<double> seconds(operations_.size() + 1, 0.0);
    seconds.swap(seconds_);
    return seconds;
}

}  // namespace mrsi_fast
