// Runs plans. All threads go through the operations together, with one barrier after each; work items are dealt out as
// threads become free, which changes no result because every item writes its own values.
#include <algorithm>
#include <stdexcept>

#include "mrsi_fast/checks.h"
#include "mrsi_fast/plan.h"

#ifdef _OPENMP
#include <omp.h>
#endif

namespace mrsi_fast {
namespace {

double now_seconds() {
#ifdef _OPENMP
    return omp_get_wtime();
#else
    return 0.0;
#endif
}

}  // namespace

void Plan::film_rows(const double* embedding, int rows, float* out) const {
    require(rows >= 0, "film: a number of rows is negative.");
    require_tensor("embedding", embedding, rows), require_tensor("out", out, rows);
    require(film_.panels || film_width_ == 0, "film: the plan has no weights for it.");
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
    require(solver_.batch > 0, "this plan has no solver.");
    require_tensor("presence", presence), require_tensor("initial", start.initial), require_tensor("z", start.z);
    require_tensor("mask", start.mask), require_tensor("anatomy", start.anatomy);
    std::copy_n(presence, static_cast<std::size_t>(solver_.batch) * solver_.maps, const_cast<float*>(solver_.presence));
    const SolverStep* solver = &solver_;
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads_)
#endif
    for (int image = 0; image < solver->batch; ++image) kernels_->start_item(solver, &start, image);
}

void Plan::execute(const float* film, const SolverStep* solver) {
    require_tensor("film", film, film_width_ > 0);
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
    require(solver_.batch > 0, "this plan has no solver.");
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

std::vector<double> Plan::take_seconds() {
    std::vector<double> seconds(operations_.size() + 1, 0.0);
    seconds.swap(seconds_);
    return seconds;
}

}  // namespace mrsi_fast
