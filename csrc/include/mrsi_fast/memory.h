// Memory for tensors and scratch: on cache lines, in huge pages where it is large.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>

namespace mrsi_fast {

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

// Memory of the calling thread, kept for its next call: allocating it anew costs page faults. Null where there is none:
// this is called inside parallel regions, which an exception must not leave.
float* thread_scratch(std::size_t floats) noexcept;

}  // namespace mrsi_fast
