// Matrix products of integers of 16 bits on AMX tiles of int8.
//
// A row is integers of at most LARGEST times a scale of its own; an integer is 256 hi + lo, both int8. A product is
// 65536 hi*hi + 256 (hi*lo + lo*hi), summed without rounding in int32 (of 66,000 numbers at most); lo*lo is left out (after
// Ootomo, Ozaki, Yokota: DGEMM on Integer Matrix Multiplication Unit, 2024). A tile holds twice as many int8 as bfloat16, so
// that this takes half of the tile products of two bfloat16 a number.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "tiles.h"

namespace vecbeam {

constexpr int64_t STEP = 64;                 // numbers of a row in a tile
constexpr int64_t TILE_BYTES = TILE * STEP;  // of hi; those of lo follow
constexpr float LARGEST = 127 * 256 + 127;
constexpr float NOTHING = 1e-30f;            // a row below it is taken for zeros: its scale would have no inverse

// A matrix by rows, in tiles: [16 rows][64 numbers][hi, lo][row][number]. The order of the 64 is that which packing leaves.
struct Fixed {
  int8_t *tiles;
  float *scales;  // 16 times what a 1 of a row stands for
  int64_t steps;

  static int64_t steps_of(int64_t depth) { return (depth + STEP - 1) / STEP; }
  static int64_t bytes(int64_t rows, int64_t depth) { return rows * steps_of(depth) * STEP * 2; }

  int8_t *tile(int64_t row, int64_t step) const { return tiles + (row / TILE * steps + step) * 2 * TILE_BYTES; }
  Fixed from(int64_t row) const { return {tile(row, 0), scales + row, steps}; }  // a multiple of 16

  // Rounds a row. depth: a multiple of 32. NaN and infinity make the whole row NaN.
  void set(int64_t row, const float *numbers, int64_t depth) const {
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    __m512i most = _mm512_setzero_si512();
    for (int64_t at = 0; at < depth; at += TILE)  // as integers, of which those of NaN are the largest
      most = _mm512_max_epi32(most, _mm512_and_si512(magnitude, _mm512_loadu_si512(numbers + at)));
    const int32_t bits = _mm512_reduce_max_epi32(most);
    float largest;
    std::memcpy(&largest, &bits, sizeof(largest));
    const bool nothing = largest < NOTHING;
    scales[row] = nothing ? 0 : 16 / LARGEST * largest * (largest - largest + 1);
    const __m512 inverse = _mm512_set1_ps(nothing ? 0 : LARGEST / largest);
    const __m512i low = _mm512_set1_epi16(255), half = _mm512_set1_epi16(128);
    int8_t *to = tile(row, 0) + row % TILE * STEP;
    for (int64_t at = 0; at < depth; at += STEP, to += 2 * TILE_BYTES) {
      __m512i parts[4];
      for (int64_t part = 0; part < 4; part++)
        parts[part] = at + part * TILE < depth
                          ? _mm512_cvtps_epi32(_mm512_mul_ps(inverse, _mm512_loadu_ps(numbers + at + part * TILE)))
                          : _mm512_setzero_si512();
      const __m512i front = _mm512_packs_epi32(parts[0], parts[1]), back = _mm512_packs_epi32(parts[2], parts[3]);
      const auto high = [&](__m512i v) { return _mm512_srai_epi16(_mm512_add_epi16(v, half), 8); };
      _mm512_store_si512(to, _mm512_packs_epi16(high(front), high(back)));
      const __m512i lows = _mm512_packus_epi16(_mm512_and_si512(front, low), _mm512_and_si512(back, low));
      _mm512_store_si512(to + TILE_BYTES, lows);
    }
  }

  // Makes tiles of a left side those of a right one, whose columns these rows are: four numbers of each next to each other.
  void turn(int64_t rows) const {
    int32_t words[TILE][TILE];
    for (int8_t *at = tiles; at < tile(rows, 0); at += TILE_BYTES) {
      std::memcpy(words, at, TILE_BYTES);
      for (int n = 0; n < TILE; n++)
        for (int word = 0; word < TILE; word++)
          std::memcpy(at + (word * TILE + n) * sizeof(int32_t), &words[n][word], sizeof(int32_t));
    }
  }
};

// left[rows, depth] x right[depth, columns], in 32 x 16 blocks.
//
// rows: a multiple of 32; columns: of 16. take(row, column, sums): gets 16 that begin there, while the next block's products
// are under way.
template <class Take>
inline void product(Fixed left, int64_t rows, Fixed right, int64_t columns, Take take) {
  struct Block {
    alignas(64) int32_t high[BLOCK * TILE], crossed[BLOCK * TILE];
  } blocks[2];
  const int64_t steps = left.steps, lines = (BLOCK + steps - 1) / steps;
  int64_t row_before = -1, column_before = 0;
  int turn = 0;
  const auto give = [&](const Block &block, int64_t line) {
    const __m512 high = _mm512_cvtepi32_ps(_mm512_load_si512(block.high + line * TILE));
    const __m512 crossed = _mm512_cvtepi32_ps(_mm512_load_si512(block.crossed + line * TILE));
    const __m512 scale = _mm512_mul_ps(_mm512_set1_ps(left.scales[row_before + line]),
                                       _mm512_loadu_ps(right.scales + column_before));
    const __m512 sum = _mm512_fmadd_ps(high, _mm512_set1_ps(256), crossed);
    take(row_before + line, column_before, _mm512_mul_ps(sum, scale));
  };
  for (int64_t row = 0; row < rows; row += BLOCK)
    for (int64_t column = 0; column < columns; column += TILE) {
      const int8_t *top = left.tile(row, 0), *below = left.tile(row + TILE, 0), *panel = right.tile(column, 0);
      int64_t line = row_before < 0 ? BLOCK : 0;
      zero_sums();
      for (int64_t step = 0; step < steps; step++) {
        _tile_loadd(6, panel, STEP);
        _tile_loadd(4, top, STEP);
        _tile_dpbssd(0, 4, 6);
        _tile_loadd(7, panel + TILE_BYTES, STEP);
        _tile_dpbssd(2, 4, 7);
        _tile_loadd(5, below, STEP);
        _tile_dpbssd(1, 5, 6);
        _tile_dpbssd(3, 5, 7);
        _tile_loadd(4, top + TILE_BYTES, STEP);
        _tile_dpbssd(2, 4, 6);
        _tile_loadd(5, below + TILE_BYTES, STEP);
        _tile_dpbssd(3, 5, 6);
        top += 2 * TILE_BYTES;
        below += 2 * TILE_BYTES;
        panel += 2 * TILE_BYTES;
        for (const int64_t stop = std::min<int64_t>(line + lines, BLOCK); line < stop; line++) give(blocks[turn ^ 1], line);
      }
      _tile_stored(0, blocks[turn].high, STEP);
      _tile_stored(1, blocks[turn].high + TILE * TILE, STEP);
      _tile_stored(2, blocks[turn].crossed, STEP);
      _tile_stored(3, blocks[turn].crossed + TILE * TILE, STEP);
      row_before = row;
      column_before = column;
      turn ^= 1;
    }
  for (int64_t line = 0; line < BLOCK; line++) give(blocks[turn ^ 1], line);
}

}  // namespace vecbeam
