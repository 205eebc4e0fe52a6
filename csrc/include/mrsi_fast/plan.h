// The native engine's plan: the operations of one network evaluation and the solver step that follows, over one arena.
//
// A plan is filled once (weights are copied, packed for the kernels in use) and then run for any number of
// batches of its shape. Offsets count floats from the start of the arena; -1 stands for "none".
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "mrsi_fast/memory.h"
#include "mrsi_fast/network.h"
#include "mrsi_fast/packed_weights.h"

namespace mrsi_fast {

struct SourceSpec {
    std::int64_t data = -1, stats = -1;
    int channels = 0;
    bool upsample = false;
};

struct ConvSpec {
    std::string name;
    std::vector<SourceSpec> sources;
    int batch = 0, height = 0, width = 0;
    int groups = 0;
    double eps = 0.0;
    const float *gamma = nullptr, *beta = nullptr;  // [in_channels], null where groups is 0
    std::int64_t film_scale = -1, film_shift = -1;
    ConvMethod method = kDirect;
    int kernel = 3, stride = 1, out_channels = 0;
    const float *weight = nullptr, *bias = nullptr;  // [out][in][kernel][kernel], [out]
    std::int64_t residual = -1, out = -1, out_stats = -1;
    std::int64_t key = -1;  // of the weights among PackedWeights, -1: they are this plan's own
};

struct AttentionSpec {
    std::string name;
    std::int64_t qkv = -1, out = -1;
    int batch = 0, tokens = 0, heads = 0, head_channels = 0;
};

struct SolverSpec {
    int batch = 0, maps = 0, x = 0, y = 0, factor = 1, grid_x = 0, grid_y = 0, stem_channels = 0;
    std::int64_t head = -1, stem = -1, eval = -1, base = -1, previous = -1, noise = -1, presence = -1;
    // Where the network has two heads: the operation added last takes the place of the one before it when the spread is
    // wanted too. It leaves the channels of both at `both_heads`, the solver step the standard deviation
    // [N][K][X][Y] at `spread`.
    std::int64_t both_heads = -1, spread = -1;
};

// Coefficients of one step, see SolverStep.
struct StepCoefficients {
    double c_skip = 0.0, c_out = 0.0, base = 0.0, now = 0.0, prev = 0.0, noise = 0.0, next_c_in = 0.0;
    bool commit = true;
};

// What a plan calls for one of its operations, for people and tests.
struct OperationInfo {
    std::string name;
    const char* kind;     // "convolution" or "self-attention"
    const char* kernels;  // instruction set: "plain", "avx2", "avx512" or "amx"
    ConvMethod method;    // of a convolution, as are all that follow
    int kernel, stride, in_channels, out_channels, height, width;
    int items;  // work items
};

class Plan {
  public:
    Plan(std::size_t arena_floats, std::size_t film_width, int threads, std::shared_ptr<PackedWeights> weights);

    void add_conv(const ConvSpec& spec);
    void add_attention(const AttentionSpec& spec);
    void set_solver(const SolverSpec& spec);
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
    std::vector<OperationInfo> operations() const;
    // Seconds spent in each operation since the last call, the solver step last.
    std::vector<double> take_seconds();

  private:
    enum class Kind { conv, attention };
    struct Operation {
        std::string name;
        Kind kind;
        Conv conv;
        const ConvKernels* kernels;
        Attention attention;
        std::int64_t film_scale, film_shift;
        int items;
    };

    // Holds the plan for one call: its buffers serve one run at a time.
    class Caller {
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

    float* at(std::int64_t offset) { return offset < 0 ? nullptr : arena_.data() + offset; }
    // The same for a value of `count` floats: refused where it does not lie within the arena. -1 is "none" if allowed.
    float* place(const std::string& what, std::int64_t offset, std::int64_t count, bool none = false);
    const float* keep(const float* values, std::size_t count);
    void need_scratch(std::size_t floats);
    void execute(const float* film, const SolverStep* solver);

    const NetworkKernels* kernels_;
    Isa isa_;  // of these kernels
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
