// Checks of what Python hands over: addresses, sizes, places in an arena. Each failure is a std::invalid_argument, in
// Python a ValueError, that names the argument. What an address points to cannot be checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>

namespace mrsi_fast {

constexpr int kMostThreads = 4096;

inline void require(bool holds, const std::string& sentence) {
    if (!holds) throw std::invalid_argument(sentence);
}

// Product of sizes as a count of values; a size below `least` or a product that no tensor can have is refused.
inline std::int64_t values_of(const char* what, std::initializer_list<std::int64_t> sizes, std::int64_t least = 0) {
    std::int64_t product = 1;
    for (const std::int64_t size : sizes) {
        require(size >= least, std::string(what) + ": a size is " + std::to_string(size) + ", the least is " +
                                   std::to_string(least) + ".");
        require(size == 0 || product <= (INT64_C(1) << 46) / size, std::string(what) + ": the sizes are too large.");
        product *= size;
    }
    return product;
}

// An address that `count` values are read from or written to.
template <class T>
void require_tensor(const char* what, const T* address, std::int64_t count = 1) {
    require(address || count == 0, std::string(what) + " is missing.");
    require(reinterpret_cast<std::uintptr_t>(address) % alignof(T) == 0, std::string(what) + " is not aligned.");
}

template <class T>
void require_aligned(const char* what, const T* address) {
    if (address) require_tensor(what, address);
}

inline void require_threads(int threads) {
    require(threads >= 1 && threads <= kMostThreads,
            "threads is " + std::to_string(threads) + ", it must be 1 to " + std::to_string(kMostThreads) + ".");
}

inline void require_groups(std::int64_t groups, std::int64_t channels) {
    require(groups >= 1 && channels >= 1 && channels % groups == 0,
            "groups is " + std::to_string(groups) + ", it must divide the " + std::to_string(channels) + " channels.");
}

}  // namespace mrsi_fast
