// Memory that grows and stays.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

namespace vecbeam {

struct Free {
  void operator()(void *memory) const { std::free(memory); }
};

// Numbers on cache lines of their own, zeros at first.
template <class T>
class Memory {
 public:
  T *of(int64_t numbers) {
    if (numbers > size_) {
      held_.reset();
      size_ = 0;
      const size_t bytes = (numbers * sizeof(T) + 63) / 64 * 64;
      held_.reset(static_cast<T *>(std::aligned_alloc(64, bytes)));
      if (!held_) throw std::bad_alloc();
      std::memset(held_.get(), 0, bytes);
      size_ = numbers;
    }
    return held_.get();
  }

 private:
  std::unique_ptr<T, Free> held_;
  int64_t size_ = 0;
};

}  // namespace vecbeam
