// Attention of one head over one text: softmax(query x key^T) x value (Vaswani et al., Attention Is All You Need, 2017).
#pragma once

#include <cstdint>

#include "functions.h"
#include "tiles.h"

namespace vecbeam {

// Memory that a text's attention works in. keys, values: [tokens, up to a multiple of 32, size of a head]; shares, scores:
// [32, tokens, up to a multiple of 32].
struct AttentionSpace {
  Out keys, values, shares;
  float *scores;
};

// Keys transposed, as a right side of `product`: [key block of 16][depth block of 32] tiles. The depth's pairs are 32 bits,
// so that a tile is the transpose of 16 rows of 16 such words.
inline void transpose_keys(const bf16 *keys, int64_t stride, int64_t length, int64_t padded, int64_t size, bf16 *to) {
  for (int64_t key = 0; key < padded; key += TILE)
    for (int64_t at = 0; at < size; at += DEPTH, to += TILE_NUMBERS) {
      __m512i row[TILE], pairs[TILE];
      for (int n = 0; n < TILE; n++)
        row[n] = key + n < length ? _mm512_loadu_si512(keys + (key + n) * stride + at) : _mm512_setzero_si512();
      for (int n = 0; n < TILE; n += 2) {
        pairs[n] = _mm512_unpacklo_epi32(row[n], row[n + 1]);
        pairs[n + 1] = _mm512_unpackhi_epi32(row[n], row[n + 1]);
      }
      for (int n = 0; n < TILE; n += 4)
        for (int part = 0; part < 2; part++) {
          row[n + 2 * part] = _mm512_unpacklo_epi64(pairs[n + part], pairs[n + 2 + part]);
          row[n + 2 * part + 1] = _mm512_unpackhi_epi64(pairs[n + part], pairs[n + 2 + part]);
        }
      // row[4 a + b] now holds word 4 c + b of keys 4 a ... 4 a + 3 in its lane c.
      for (int b = 0; b < 4; b++) {
        const __m512i low = _mm512_shuffle_i32x4(row[b], row[4 + b], 0x88);
        const __m512i high = _mm512_shuffle_i32x4(row[8 + b], row[12 + b], 0x88);
        const __m512i low_odd = _mm512_shuffle_i32x4(row[b], row[4 + b], 0xdd);
        const __m512i high_odd = _mm512_shuffle_i32x4(row[8 + b], row[12 + b], 0xdd);
        _mm512_storeu_si512(to + b * DEPTH, _mm512_shuffle_i32x4(low, high, 0x88));
        _mm512_storeu_si512(to + (4 + b) * DEPTH, _mm512_shuffle_i32x4(low_odd, high_odd, 0x88));
        _mm512_storeu_si512(to + (8 + b) * DEPTH, _mm512_shuffle_i32x4(low, high, 0xdd));
        _mm512_storeu_si512(to + (12 + b) * DEPTH, _mm512_shuffle_i32x4(low_odd, high_odd, 0xdd));
      }
    }
}

// Values as a right side whose depth is the keys: [16 numbers of a value][key block of 32] tiles.
inline void interleave_values(const bf16 *values, int64_t stride, int64_t length, int64_t padded, int64_t size, bf16 *to) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5,
                                         20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  for (int64_t at = 0; at < size; at += TILE)
    for (int64_t key = 0; key < padded; key += 2, to += DEPTH) {
      const __m256i none = _mm256_setzero_si256();
      const bf16 *from = values + key * stride + at;
      const __m256i even = key < length ? _mm256_loadu_si256((const __m256i *)from) : none;
      const __m256i odd = key + 1 < length ? _mm256_loadu_si256((const __m256i *)(from + stride)) : none;
      const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(even), odd, 1);
      _mm512_storeu_si512(to, _mm512_permutexvar_epi16(order, both));
    }
}

// query[32, size] x keys, as `transpose_keys` leaves them: float32[32, padded].
template <bool SPLIT>
inline void score(In query, int64_t stride, In keys, int64_t size, int64_t padded, float *scores) {
  const int64_t pitch = stride * sizeof(bf16);
  const In below = query.at(TILE * stride);
  for (int64_t key = 0; key < padded; key += BLOCK) {
    const In panel = keys.at(key * size), next = panel.at(TILE * size);
    zero_sums();
    if (!SPLIT && size == DEPTH && key > 0)
      accumulate<false, true>(query, below, pitch, panel, next);
    else
      for (int64_t at = 0; at < size; at += DEPTH)
        accumulate<SPLIT>(query.at(at), below.at(at), pitch, panel.at(at * TILE), next.at(at * TILE));
    store_sums(scores + key, padded);
  }
}

// A row of scores to shares of one, not yet divided by their sum, which is returned; zeros from `length` to `padded`.
template <bool SPLIT>
inline float softmax(const float *scores, int64_t length, int64_t padded, Out shares) {
  const int64_t whole = length / TILE * TILE;
  const __mmask16 inside = static_cast<__mmask16>((1 << (length - whole)) - 1);  // of the last 16, if they are not whole
  __m512 most = all(-3.0e38f);
  for (int64_t at = 0; at < whole; at += TILE) most = _mm512_max_ps(most, _mm512_load_ps(scores + at));
  if (inside) most = _mm512_mask_max_ps(most, inside, most, _mm512_load_ps(scores + whole));
  most = all(_mm512_reduce_max_ps(most));
  __m512 sum = _mm512_setzero_ps();
  int64_t at = 0;
  for (; at < whole; at += TILE) {
    const __m512 share = power_of_two<SPLIT>(_mm512_sub_ps(_mm512_load_ps(scores + at), most));
    sum = _mm512_add_ps(sum, share);
    put<SPLIT>(shares.at(at), share);
  }
  if (inside) {
    const __m512 share = power_of_two<SPLIT>(_mm512_sub_ps(_mm512_load_ps(scores + at), most));
    sum = _mm512_mask_add_ps(sum, inside, sum, share);
    put<SPLIT>(shares.at(at), _mm512_maskz_mov_ps(inside, share));
    at += TILE;
  }
  if (at < padded) put<SPLIT>(shares.at(at), _mm512_setzero_ps());
  return _mm512_reduce_add_ps(sum);
}

// query, key, value: [length, size] of one head, rows `stride` numbers apart; queries hold log2(e) / sqrt(size) already.
// 31 rows after the last query are read, and left alone. take(row, column, numbers): gets 16 of [length, size].
template <bool SPLIT, class Take>
inline void attend(In query, In key, In value, int64_t stride, int64_t length, int64_t size, AttentionSpace space,
                   Take take) {
  const int64_t padded = (length + BLOCK - 1) / BLOCK * BLOCK;
  transpose_keys(key.hi, stride, length, padded, size, space.keys.hi);
  interleave_values(value.hi, stride, length, padded, size, space.values.hi);
  if (SPLIT) {
    transpose_keys(key.lo, stride, length, padded, size, space.keys.lo);
    interleave_values(value.lo, stride, length, padded, size, space.values.lo);
  }
  float parts[BLOCK];  // one by the sum of a row's shares
  for (int64_t first = 0; first < length; first += BLOCK) {
    const int64_t rows = length - first < BLOCK ? length - first : BLOCK;
    score<SPLIT>(query.at(first * stride), stride, in(space.keys), size, padded, space.scores);
    for (int64_t row = 0; row < rows; row++)
      parts[row] = 1 / softmax<SPLIT>(space.scores + row * padded, length, padded, space.shares.at(row * padded));
    product<SPLIT>(in(space.shares), padded, BLOCK, in(space.values), padded, size,
                   [&parts, rows, first, take](int64_t row, int64_t column, __m512 sum) {
                     if (row < rows) take(first + row, column, _mm512_mul_ps(sum, all(parts[row])));
                   });
  }
}

}  // namespace vecbeam
