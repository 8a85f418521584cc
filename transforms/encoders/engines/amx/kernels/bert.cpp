// BERT (Devlin et al., 2018) on processors with AMX: texts lie one after another, without padding.
//
// A call computes on its own thread; calls may run at the same time. All names are of C, for ctypes.
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <new>
#include <vector>

#include "attention.h"
#include "functions.h"
#include "linear.h"
#include "memory.h"
#include "tiles.h"

namespace vecbeam {

constexpr int32_t VERSION = 2;        // of what ctypes sees
constexpr int64_t MOST_TOKENS = 768;  // of texts that pass through the layers together, so that they stay in the cache
constexpr int64_t ROWS = 384;         // that pass through the second half of a layer together

struct Norm {
  std::vector<float> scale, shift;
};

struct Layer {
  Linear attention, output, up, down;  // attention: queries, keys and values
  Norm after_attention, after_output;
};

}  // namespace vecbeam

extern "C" {

// What a model is like. Sizes are multiples of 32, and so is a head's.
struct vecbeam_shape {
  int64_t hidden, heads, layers, between, first_position;
  float epsilon;
  int32_t numbers;  // as vecbeam::Numbers says
  int32_t pooling;  // 0: mean over a text's tokens, 1: its first token
};
}

namespace vecbeam {

struct Bert {
  vecbeam_shape shape;
  const float *words, *positions, *kinds;  // not owned
  Norm after_embedding;
  std::vector<Layer> layers;
};

struct Space {  // What a thread computes in.
  Memory<float> states, scores, open_context, open_between;
  RowsMemory rounded, context, between;
  HalvesMemory attention, keys, values, shares;
};

Norm norm(const float *const *&tensor, int64_t size) {
  Norm made{{tensor[0], tensor[0] + size}, {tensor[1], tensor[1] + size}};
  tensor += 2;
  return made;
}

void linear(const float *const *&tensor, Numbers numbers, int64_t columns, int64_t depth, Linear &to,
            int64_t all_columns = 0) {
  to.add(numbers, tensor[0], tensor[1], columns, depth, all_columns ? all_columns : columns);
  tensor += 2;
}

// Layer normalisation of a row in place (Ba et al., 2016), which is a row of `to` as well.
template <Numbers NUMBERS>
void normalise(float *row, const Norm &norm, int64_t size, float epsilon, Rows<NUMBERS> to, int64_t to_row) {
  __m512 sum = _mm512_setzero_ps();
  for (int64_t at = 0; at < size; at += TILE) sum = _mm512_add_ps(sum, _mm512_load_ps(row + at));
  const __m512 mean = vecbeam::all(_mm512_reduce_add_ps(sum) / size);
  __m512 squares = _mm512_setzero_ps();
  for (int64_t at = 0; at < size; at += TILE) {
    const __m512 away = _mm512_sub_ps(_mm512_load_ps(row + at), mean);
    squares = _mm512_fmadd_ps(away, away, squares);
  }
  const __m512 part = vecbeam::all(1 / std::sqrt(_mm512_reduce_add_ps(squares) / size + epsilon));
  const float *const scale = norm.scale.data(), *const shift = norm.shift.data();
  for (int64_t at = 0; at < size; at += TILE) {
    const __m512 away = _mm512_mul_ps(_mm512_sub_ps(_mm512_load_ps(row + at), mean), part);
    const __m512 done = _mm512_fmadd_ps(away, _mm512_loadu_ps(scale + at), _mm512_loadu_ps(shift + at));
    _mm512_store_ps(row + at, done);
    to.put(to_row, at, done);
  }
  to.close(to_row);
}

template <Numbers NUMBERS>
void embed(const Bert &bert, const int32_t *ids, int64_t length, float *states, Rows<NUMBERS> to, int64_t to_row) {
  const int64_t hidden = bert.shape.hidden, first = bert.shape.first_position;
  int64_t counted = 0;
  for (int64_t token = 0; token < length; token++, states += hidden) {
    // RoBERTa's positions begin after that of padding, which a padding token in the middle of a text keeps.
    const bool padding = first > 0 && ids[token] == first - 1;
    const float *word = bert.words + ids[token] * hidden;
    const float *position = bert.positions + (padding ? first - 1 : first + counted++) * hidden;
    for (int64_t at = 0; at < hidden; at += TILE) {
      const __m512 sum = _mm512_add_ps(_mm512_loadu_ps(word + at), _mm512_loadu_ps(bert.kinds + at));
      _mm512_store_ps(states + at, _mm512_add_ps(sum, _mm512_loadu_ps(position + at)));
    }
    normalise(states, bert.after_embedding, hidden, bert.shape.epsilon, to, to_row + token);
  }
}

template <Numbers NUMBERS>
int64_t run(const Bert &bert, const int32_t *ids, const int64_t *offsets, int64_t texts, float *vectors, Space &space) {
  constexpr bool TWO = NUMBERS != BFLOAT16;  // bfloat16 a number in attention
  const auto &shape = bert.shape;
  const int64_t hidden = shape.hidden, size = hidden / shape.heads, tokens = offsets[texts] - offsets[0];
  const int64_t rows = (tokens + BLOCK - 1) / BLOCK * BLOCK, wide = 3 * hidden;
  const auto first = [&](int64_t text) { return offsets[text] - offsets[0]; };
  const auto length = [&](int64_t text) { return offsets[text + 1] - offsets[text]; };
  int64_t most = 0;
  for (int64_t text = 0; text < texts; text++) most = std::max(most, length(text));
  most = (most + BLOCK - 1) / BLOCK * BLOCK;

  float *states = space.states.of(rows * hidden);
  const Rows<NUMBERS> rounded{space.rounded, rows, hidden, states};
  const auto open = [&](Memory<float> &memory, int64_t numbers) { return NUMBERS == FIXED ? memory.of(numbers) : nullptr; };
  const Rows<NUMBERS> context{space.context, rows, hidden, open(space.open_context, rows * hidden)};
  const Rows<NUMBERS> between{space.between, ROWS, shape.between, open(space.open_between, BLOCK * shape.between)};
  const Out attention = space.attention.of((rows + BLOCK) * wide, TWO);
  const AttentionSpace attending{space.keys.of(most * size, TWO), space.values.of(most * size, TWO),
                                 space.shares.of(BLOCK * most, TWO), space.scores.of(BLOCK * most)};

  for (int64_t text = 0; text < texts; text++)
    embed(bert, ids + offsets[text], length(text), states + first(text) * hidden, rounded, first(text));
  // Rows after the last token take part in products; whatever they hold must be numbers.
  std::fill(states + tokens * hidden, states + rows * hidden, 0.0f);
  for (int64_t row = tokens; row < rows; row++) {
    for (int64_t at = 0; at < hidden; at += TILE) {
      rounded.put(row, at, _mm512_setzero_ps());
      context.put(row, at, _mm512_setzero_ps());
    }
    rounded.close(row);
  }

  const Tiles tiles;
  const __m512 scale = all(1.4426950408889634f / std::sqrt(static_cast<float>(size)));
  for (const Layer &layer : bert.layers) {
    apply(layer.attention, rounded, rows, [attention, wide, hidden, scale](int64_t row, int64_t column, __m512 sums) {
      put<TWO>(attention.at(row * wide + column), column < hidden ? _mm512_mul_ps(sums, scale) : sums);
    });
    for (int64_t text = 0; text < texts; text++)
      for (int64_t head = 0; head < shape.heads; head++) {
        const In query = in(attention.at(first(text) * wide + head * size));
        attend<TWO>(query, query.at(hidden), query.at(2 * hidden), wide, length(text), size, attending,
                    [context, text_row = first(text), first_column = head * size](int64_t row, int64_t column, __m512 numbers) {
                      context.put(text_row + row, first_column + column, numbers);
                    });
      }
    for (int64_t start = 0; start < rows; start += ROWS) {
      const int64_t count = std::min(ROWS, rows - start);
      float *const here = states + start * hidden;
      const auto add_to_states = [&](const Linear &linear, const Norm &norm, Rows<NUMBERS> left) {
        apply(linear, left, count, [here, hidden](int64_t row, int64_t column, __m512 sums) {
          float *state = here + row * hidden + column;
          _mm512_store_ps(state, _mm512_add_ps(_mm512_load_ps(state), sums));
        });
        for (int64_t row = 0; row < count; row++)
          normalise(here + row * hidden, norm, hidden, shape.epsilon, rounded, start + row);
      };
      for (int64_t row = start; row < start + count; row++) context.close(row);
      add_to_states(layer.output, layer.after_attention, context.from(start));
      for (int64_t row = 0; row < count; row += BLOCK) {
        const Rows<NUMBERS> made = between.from(row);
        apply(layer.up, rounded.from(start + row), BLOCK,
              [made](int64_t line, int64_t column, __m512 sums) { made.put(line, column, gelu<TWO>(sums)); });
        for (int64_t line = 0; line < BLOCK; line++) made.close(line);
      }
      add_to_states(layer.down, layer.after_output, between);
    }
  }
  for (int64_t text = 0; text < texts; text++) {
    const float *state = states + first(text) * hidden;
    const int64_t counted = shape.pooling ? 1 : std::max<int64_t>(1, length(text));
    for (int64_t at = 0; at < hidden; at += TILE) {
      __m512 sum = _mm512_setzero_ps();
      for (int64_t token = 0; token < std::min(counted, length(text)); token++)
        sum = _mm512_add_ps(sum, _mm512_load_ps(state + token * hidden + at));
      _mm512_storeu_ps(vectors + text * hidden + at, _mm512_div_ps(sum, all(static_cast<float>(counted))));
    }
  }
  return rows - tokens;
}

// How many of the next texts pass through the layers together: of the counts that fill half of MOST_TOKENS at least, the
// one with the smallest share of rows beyond the last token; one text at least.
int64_t group(const int64_t *offsets, int64_t texts) {
  int64_t best = 1;
  double best_share = 1;
  for (int64_t count = 1; count <= texts; count++) {
    const int64_t tokens = offsets[count] - offsets[0];
    if (count > 1 && tokens > MOST_TOKENS) break;
    const double share = static_cast<double>((tokens + BLOCK - 1) / BLOCK * BLOCK - tokens) / std::max<int64_t>(1, tokens);
    if (share <= best_share || tokens < MOST_TOKENS / 2) best = count, best_share = tokens < MOST_TOKENS / 2 ? 1 : share;
  }
  return best;
}

}  // namespace vecbeam

extern "C" {

int vecbeam_version() { return vecbeam::VERSION; }

// Asks the kernel for the tile registers, once for the whole process. Returns 0, or the error.
int vecbeam_permit() {
  constexpr long REQUEST = 0x1023, TILE_DATA = 18;  // arch/x86/include/uapi/asm/prctl.h
  return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0 ? 0 : 1;
}

// tensors: float32 arrays, linear layers as [out, in]. word, position and kind embeddings, which must outlive the model,
// their norm; then for each layer query, key, value, output, its norm, up, down, its norm; each with its weights before
// its bias. Returns null where memory ends.
void *vecbeam_new(const vecbeam_shape *shape, const float *const *tensors) try {
  using namespace vecbeam;
  auto bert = std::make_unique<Bert>();
  const int64_t hidden = shape->hidden, between = shape->between;
  const auto numbers = static_cast<Numbers>(shape->numbers);
  bert->shape = *shape;
  bert->words = *tensors++;
  bert->positions = *tensors++;
  bert->kinds = *tensors++;
  bert->after_embedding = norm(tensors, hidden);
  for (int64_t at = 0; at < shape->layers; at++) {
    Layer layer;
    for (int part = 0; part < 3; part++) linear(tensors, numbers, hidden, hidden, layer.attention, 3 * hidden);
    linear(tensors, numbers, hidden, hidden, layer.output);
    layer.after_attention = norm(tensors, hidden);
    linear(tensors, numbers, between, hidden, layer.up);
    linear(tensors, numbers, hidden, between, layer.down);
    layer.after_output = norm(tensors, hidden);
    bert->layers.push_back(std::move(layer));
  }
  return bert.release();
} catch (const std::bad_alloc &) {
  return nullptr;
}

void vecbeam_delete(void *model) { delete static_cast<vecbeam::Bert *>(model); }

// ids: int32[tokens] of texts one after another, each with a row in words; offsets: int64[texts + 1], from 0, of texts
// no longer than there are positions. vectors: float32[texts, hidden]. Returns how many rows were computed beyond the
// tokens there are, as tiles have 32, or -1 where memory ends.
int64_t vecbeam_run(const void *model, const int32_t *ids, const int64_t *offsets, int64_t texts, float *vectors) try {
  thread_local vecbeam::Space space;
  const auto &bert = *static_cast<const vecbeam::Bert *>(model);
  const auto numbers = static_cast<vecbeam::Numbers>(bert.shape.numbers);
  const auto run = numbers == vecbeam::FIXED   ? vecbeam::run<vecbeam::FIXED>
                   : numbers == vecbeam::SPLIT ? vecbeam::run<vecbeam::SPLIT>
                                               : vecbeam::run<vecbeam::BFLOAT16>;
  int64_t beyond = 0;
  for (int64_t text = 0, end = 0; text < texts; text = end) {
    end = text + vecbeam::group(offsets + text, texts - text);
    beyond += run(bert, ids, offsets + text, end - text, vectors + text * bert.shape.hidden, space);
  }
  return beyond;
} catch (const std::bad_alloc &) {
  return -1;
}
}
