// Allocates blocks and asks the system for huge pages.
#include "mrsi_fast/memory.h"

#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace mrsi_fast {
namespace {

constexpr std::size_t kHugePage = 2 << 20;  // bytes

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

float* thread_scratch(std::size_t floats) noexcept {
    static thread_local Block scratch;
    floats = floats ? floats : 1;  // null means failure
    if (scratch.size() < floats) try {
            scratch = Block(floats);
        } catch (const std::bad_alloc&) {
            return nullptr;
        }
    return scratch.data();
}

}  // namespace mrsi_fast
