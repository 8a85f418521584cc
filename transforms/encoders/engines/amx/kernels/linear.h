// What linear layers take and are, in each kind of numbers.
#pragma once

#include <cstdint>
#include <vector>

#include "fixed.h"
#include "memory.h"
#include "tiles.h"

namespace vecbeam {

enum Numbers : int32_t {
  BFLOAT16 = 0,
  SPLIT = 1,  // the sum of two bfloat16
  FIXED = 2,  // in linear layers integers of 16 bits, elsewhere the sum of two bfloat16
};

struct HalvesMemory {
  Memory<bf16> hi, lo;
  Out of(int64_t numbers, bool split) { return {hi.of(numbers), split ? lo.of(numbers) : nullptr}; }
};

struct FixedMemory {
  Memory<int8_t> tiles;
  Memory<float> scales;
  Fixed of(int64_t rows, int64_t depth) {
    return {tiles.of(Fixed::bytes(rows, depth)), scales.of(rows), Fixed::steps_of(depth)};
  }
};

struct RowsMemory {
  HalvesMemory halves;
  FixedMemory fixed;
};

// Rows of numbers that a linear layer takes. A row is put together from pieces, then closed.
template <Numbers NUMBERS>
class Rows {
 public:
  // open: float32, FIXED puts rows together there, from the one on that a view begins with.
  Rows(RowsMemory &memory, int64_t rows, int64_t size, float *) : size_(size), halves_(memory.halves.of(rows * size, TWO)) {}

  void put(int64_t row, int64_t column, __m512 numbers) const { vecbeam::put<TWO>(halves_.at(row * size_ + column), numbers); }
  void close(int64_t) const {}
  Rows from(int64_t row) const { return {size_, halves_.at(row * size_)}; }
  int64_t size() const { return size_; }
  In halves() const { return in(halves_); }

 private:
  static constexpr bool TWO = NUMBERS == SPLIT;
  Rows(int64_t size, Out halves) : size_(size), halves_(halves) {}
  int64_t size_;
  Out halves_;
};

template <>
class Rows<FIXED> {
 public:
  Rows(RowsMemory &memory, int64_t rows, int64_t size, float *open)
      : size_(size), fixed_(memory.fixed.of(rows, size)), open_(open) {}

  void put(int64_t row, int64_t column, __m512 numbers) const { _mm512_store_ps(open_ + row * size_ + column, numbers); }
  void close(int64_t row) const { fixed_.set(row, open_ + row * size_, size_); }
  Rows from(int64_t row) const { return {size_, fixed_.from(row), open_}; }
  int64_t size() const { return size_; }
  const Fixed &fixed() const { return fixed_; }

 private:
  Rows(int64_t size, Fixed fixed, float *open) : size_(size), fixed_(fixed), open_(open) {}
  int64_t size_;
  Fixed fixed_;
  float *open_;
};

// A layer's weights [columns, depth], put together from layers that take the same rows.
class Linear {
 public:
  void add(Numbers numbers, const float *weights, const float *bias, int64_t columns, int64_t depth, int64_t all_columns) {
    const int64_t first = static_cast<int64_t>(this->bias.size());
    if (numbers == FIXED) {
      fixed_ = fixed_memory_.of(all_columns, depth);
      const Fixed mine = fixed_.from(first);
      for (int64_t column = 0; column < columns; column++) mine.set(column, weights + column * depth, depth);
      mine.turn(columns);
    } else {
      halves_ = halves_memory_.of(all_columns * depth, numbers == SPLIT);
      const Out mine = halves_.at(first * depth);
      (numbers == SPLIT ? interleave<true> : interleave<false>)(weights, columns, depth, mine);
    }
    this->bias.insert(this->bias.end(), bias, bias + columns);
  }
  In halves() const { return in(halves_); }
  const Fixed &fixed() const { return fixed_; }

  std::vector<float> bias;

 private:
  HalvesMemory halves_memory_;
  FixedMemory fixed_memory_;
  Out halves_{};
  Fixed fixed_{};
};

// The first `count` rows (a multiple of 32) through a layer. take(row, column, sums): gets 16, to which the bias is added.
template <Numbers NUMBERS, class Take>
void apply(const Linear &linear, Rows<NUMBERS> rows, int64_t count, Take take) {
  const float *bias = linear.bias.data();
  const int64_t columns = linear.bias.size();
  const auto with_bias = [bias, take](int64_t row, int64_t column, __m512 sums) {
    take(row, column, _mm512_add_ps(sums, _mm512_loadu_ps(bias + column)));
  };
  if constexpr (NUMBERS == FIXED)
    product(rows.fixed(), count, linear.fixed(), columns, with_bias);
  else
    product<NUMBERS == SPLIT>(rows.halves(), rows.size(), count, linear.halves(), rows.size(), columns, with_bias);
}

}  // namespace vecbeam
