// Matrix products on AMX tiles (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18).
//
// A number is held as one bfloat16, or as the sum of two ("split"): hi is the number rounded, lo is the rest rounded.
// A product of split numbers is hi*hi + hi*lo + lo*hi, summed in float32: 16 bits of significand at a third of the rate
// (Henry, Tang, Heinecke: Leveraging the bfloat16 Artificial Intelligence Datatype For Higher-Precision Computations, 2019).
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace vecbeam {

using bf16 = uint16_t;

// Tiles are 16 rows of 64 bytes: 16 x 32 numbers of a left matrix, 32 x 16 of a right one whose rows are interleaved in
// pairs, 16 x 16 sums.
constexpr int TILE = 16, DEPTH = 32, BLOCK = 32, TILE_NUMBERS = 512;

// One matrix of bfloat16, or two of which the second holds what the first leaves over.
template <class T>
struct Halves {
  T *hi, *lo;
  Halves at(int64_t offset) const { return {hi + offset, lo ? lo + offset : nullptr}; }
};
using In = Halves<const bf16>;
using Out = Halves<bf16>;
inline In in(Out halves) { return {halves.hi, halves.lo}; }

struct Tiles {  // The configuration of this thread's tile registers, for as long as this lives.
  Tiles() {
    alignas(64) uint8_t config[64] = {1};
    for (int tile = 0; tile < 8; tile++) {
      config[16 + 2 * tile] = 64;
      config[48 + tile] = TILE;
    }
    _tile_loadconfig(config);
  }
  ~Tiles() { _tile_release(); }
};

inline __m512 widened(__m256i half) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16)); }

// 16 numbers to bfloat16, rounded to nearest even.
template <bool SPLIT>
inline void put(Out to, __m512 values) {
  const __m256i hi = (__m256i)_mm512_cvtneps_pbh(values);
  _mm256_storeu_si256((__m256i *)to.hi, hi);
  if (SPLIT) _mm256_storeu_si256((__m256i *)to.lo, (__m256i)_mm512_cvtneps_pbh(_mm512_sub_ps(values, widened(hi))));
}

// Adds one step of depth to the block of sums in tiles 0 ... 3: top and below are its 16 rows of the left matrix, panel and
// next its 16 columns of the right one. HELD: top and below are in tiles 4 and 5 already; not with SPLIT.
template <bool SPLIT, bool HELD = false>
inline void accumulate(In top, In below, int64_t pitch, In panel, In next) {
  if (!HELD) _tile_loadd(4, top.hi, pitch);
  if (SPLIT) {
    _tile_loadd(6, panel.lo, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, next.lo, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, below.hi, pitch);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_loadd(6, panel.hi, 64);
  _tile_dpbf16ps(0, 4, 6);
  _tile_loadd(7, next.hi, 64);
  _tile_dpbf16ps(1, 4, 7);
  if (!SPLIT && !HELD) _tile_loadd(5, below.hi, pitch);
  _tile_dpbf16ps(2, 5, 6);
  _tile_dpbf16ps(3, 5, 7);
  if (SPLIT) {
    _tile_loadd(4, top.lo, pitch);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, below.lo, pitch);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
}

inline void zero_sums() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

// Tiles 0 ... 3 as float32[32, 32], rows `stride` numbers apart.
inline void store_sums(float *to, int64_t stride) {
  _tile_stored(0, to, stride * sizeof(float));
  _tile_stored(1, to + TILE, stride * sizeof(float));
  _tile_stored(2, to + TILE * stride, stride * sizeof(float));
  _tile_stored(3, to + TILE * stride + TILE, stride * sizeof(float));
}

// left[rows, depth] x right[depth, columns], in 32 x 32 blocks.
//
// `left` has rows of `stride` numbers; `right` as `interleave` leaves it. rows and columns: multiples of 32.
// take(row, column, sums): gets 16 that begin there, while the next block's products are under way.
template <bool SPLIT, class Take>
inline void product(In left, int64_t stride, int64_t rows, In right, int64_t depth, int64_t columns, Take take) {
  alignas(64) float sums[2][BLOCK * BLOCK];
  const int64_t pitch = stride * sizeof(bf16), half = TILE * stride;
  const int64_t steps = depth / DEPTH, lines = (BLOCK + steps - 1) / steps;
  int64_t row_before = -1, column_before = 0;
  int turn = 0;
  const auto give = [&](const float *block, int64_t line) {
    for (int64_t at = 0; at < BLOCK; at += TILE)
      take(row_before + line, column_before + at, _mm512_load_ps(block + line * BLOCK + at));
  };
  for (int64_t row = 0; row < rows; row += BLOCK) {
    const In top = left.at(row * stride);
    for (int64_t column = 0; column < columns; column += BLOCK) {
      const In panel = right.at(column * depth), next = panel.at(TILE * depth);
      int64_t line = row_before < 0 ? BLOCK : 0;
      zero_sums();
      for (int64_t at = 0; at < depth; at += DEPTH) {
        accumulate<SPLIT>(top.at(at), top.at(half + at), pitch, panel.at(at * TILE), next.at(at * TILE));
        for (const int64_t stop = std::min<int64_t>(line + lines, BLOCK); line < stop; line++) give(sums[turn ^ 1], line);
      }
      store_sums(sums[turn], BLOCK);
      row_before = row;
      column_before = column;
      turn ^= 1;
    }
  }
  for (int64_t line = 0; line < BLOCK; line++) give(sums[turn ^ 1], line);
}

// weights[columns, depth] of a linear layer, as `product` needs its right side: tiles of 32 x 16 numbers, those of 16
// columns one after another, and in a tile two numbers of a column next to each other. to: columns * depth numbers.
template <bool SPLIT>
inline void interleave(const float *weights, int64_t columns, int64_t depth, Out to) {
  alignas(64) float numbers[TILE];
  for (int64_t column = 0; column < columns; column += TILE)
    for (int64_t at = 0; at < depth; at += 2) {
      const int64_t row = column * depth + at / DEPTH * TILE_NUMBERS + at % DEPTH / 2 * DEPTH;
      for (int part = 0; part < 2; part++) {
        for (int n = 0; n < TILE; n++) {
          const float *number = weights + (column + part * 8 + n / 2) * depth + at + n % 2;
          numbers[n] = *number;
        }
        put<SPLIT>(to.at(row + part * TILE), _mm512_load_ps(numbers));
      }
    }
}

}  // namespace vecbeam
