// The native engine's plan: the operations of one network evaluation and the solver step that follows, over one arena.
//
// A plan is filled once (weights are copied, packed for the kernels in use) and then run for any number of
// batches of its shape. Offsets count floats from the start of the arena; -1 stands for "none".
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <tuple>
#include <vector>

#include "mrsi_fast/network.h"

namespace mrsi_fast {

struct SourceSpec {
    std::int64_t data, stats;
    int channels;
    bool upsample;
};

struct ConvSpec {
    std::vector<SourceSpec> sources;
    int batch, height, width;
    int groups;
    double eps;
    const float *gamma, *beta;  // [in_channels], null where groups is 0
    std::int64_t film_scale, film_shift;
    Method method;
    int kernel, stride, out_channels;
    const float *weight, *bias;  // [out][in][kernel][kernel], [out]
    std::int64_t residual, out, out_stats;
    std::int64_t key;  // of the weights among PackedWeights, -1: they are this plan's own
};

struct SolverSpec {
    int batch, maps, x, y, factor, grid_x, grid_y, stem_channels;
    std::int64_t head, stem, eval, base, previous, noise, presence;
};

// Coefficients of one step, see SolverStep.
struct StepCoefficients {
    double c_skip, c_out, base, now, prev, noise, next_c_in;
    bool commit;
};

// Memory on cache-line boundaries, not initialised; its address never changes. From 2 MiB on it asks for huge pages: the
// Winograd transforms write to 36 places at once, more than the processor's first page table cache follows.
class Block {
  public:
    explicit Block(std::size_t floats = 0);
    float* data() { return memory_.get(); }
    std::size_t size() const { return size_; }

  private:
    struct Free {
        void operator()(float* memory) const { std::free(memory); }
    };
    std::unique_ptr<float, Free> memory_;
    std::size_t size_;
};

// Memory of the calling thread, kept for its next call: allocating it anew costs page faults.
Block& thread_scratch(std::size_t floats);

// Packed weights of one network, for plans of several batch shapes.
class PackedWeights {
  public:
    // Packs on the first call for this key, method and panel.
    const float* get(std::int64_t key, const Filters& filters, const ConvKernels& kernels, int threads);
    std::size_t floats() const { return used_; }

  private:
    std::map<std::tuple<std::int64_t, int, int>, const float*> packed_;
    std::vector<Block> slabs_;  // many weights in one, so that huge pages waste little
    std::size_t left_ = 0, used_ = 0;
};

// Sets how a convolution is cut into work items for so many threads; `panel` is that of its kernels.
void cut_work(Conv* conv, int threads, int panel);

class Plan {
  public:
    Plan(std::size_t arena_floats, std::size_t film_width, int threads, std::shared_ptr<PackedWeights> weights);

    void add_conv(const ConvSpec& spec);
    void add_attention(std::int64_t qkv, std::int64_t out, int batch, int tokens, int heads, int head_channels);
    void set_solver(const SolverSpec& spec);
    // The operation added last takes the place of the one before it where the spread is wanted too: it leaves the
    // channels of both heads at `head`, and the solver step leaves the standard deviation [N][K][X][Y] at `spread`.
    void set_spread(std::int64_t head, std::int64_t spread);
    // Hard data consistency with qx [rank_x][X], qy [rank_y][Y], kept [rank_x][rank_y] or null; rank_x = 0 ends it.
    void set_projection(int rank_x, int rank_y, const float* qx, const float* qy, const float* kept);

    // FiLM rows: weight [depth][film_width], bias [film_width]; embedding [rows][depth], out [rows][film_width].
    void set_film(int depth, const float* weight, const float* bias);
    void film_rows(const double* embedding, int rows, float* out) const;
    // Writes the first input of the network and the state of a run.
    void start(const SolverStart& start, const float* presence);
    // One network evaluation. film: [batch][film_width].
    void evaluate(const float* film);
    // All steps. film: [steps][batch][film_width]. before_noise(i) fills the noise of step i, if it adds some;
    // after_step(i) follows each step. Both run on the calling thread; an exception from them ends the run. `spread`:
    // steps also leave the standard deviation that the network tells.
    void run(const std::vector<StepCoefficients>& steps, const float* film,
             const std::function<void(int)>& before_noise, const std::function<void(int)>& after_step, bool spread);

    float* arena() { return arena_.data(); }
    std::size_t arena_floats() const { return arena_.size(); }
    std::size_t weight_floats() const;
    std::size_t scratch_floats() const;
    // Seconds spent in each operation since the last call, the solver step last.
    std::vector<double> take_seconds();

  private:
    enum class Kind { conv, attention };
    struct Operation {
        Kind kind;
        Conv conv;
        const ConvKernels* kernels;
        Attention attention;
        std::int64_t film_scale, film_shift;
        int items;
    };
    class Caller;

    float* at(std::int64_t offset) { return offset < 0 ? nullptr : arena_.data() + offset; }
    const float* keep(const float* values, std::size_t count);
    void need_scratch(std::size_t floats);
    void execute(const float* film, const SolverStep* solver);

    const NetworkKernels* kernels_;
    int threads_;
    std::size_t film_width_;
    Block arena_;
    std::shared_ptr<PackedWeights> weights_;
    std::vector<Block> kept_;
    std::vector<Block> scratch_;  // one per thread
    std::vector<Operation> operations_;
    std::vector<double> seconds_;
    SolverStep solver_{};
    int both_heads_ = -1;  // the operation, or -1
    std::int64_t both_out_ = -1, spread_ = -1;
    Film film_{};
    Block projection_[5];
    std::atomic<bool> busy_{false};
};

}  // namespace mrsi_fast
