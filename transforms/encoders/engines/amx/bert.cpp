// BERT (Devlin et al., 2018) on processors with AMX: texts lie one after another, without padding.
//
// A call computes on its own thread; calls may run at the same time. All names are of C, for ctypes.
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "attention.h"
#include "functions.h"
#include "tiles.h"

namespace vecbeam {

constexpr int32_t VERSION = 1;        // of what ctypes sees
constexpr int64_t MOST_TOKENS = 768;  // of texts that pass through the layers together, so that they stay in the cache
constexpr int64_t ROWS = 384;         // that pass through the second half of a layer together

struct Free {
  void operator()(void *memory) const { std::free(memory); }
};

// Numbers on cache lines of their own. Grows, and stays.
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
  const T *get() const { return held_.get(); }

 private:
  std::unique_ptr<T, Free> held_;
  int64_t size_ = 0;
};

struct HalvesMemory {
  Memory<bf16> hi, lo;
  Out of(int64_t numbers, bool split) { return {hi.of(numbers), split ? lo.of(numbers) : nullptr}; }
  In get() const { return {hi.get(), lo.get()}; }
};

struct Linear {
  HalvesMemory weights;
  std::vector<float> bias;
};

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
  int32_t split;    // whether numbers are sums of two bfloat16
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
  Memory<float> states, scores;
  HalvesMemory rounded, attention, context, between, keys, values, shares;
};

Norm norm(const float *const *&tensor, int64_t size) {
  Norm made{{tensor[0], tensor[0] + size}, {tensor[1], tensor[1] + size}};
  tensor += 2;
  return made;
}

void linear(const float *const *&tensor, int64_t columns, int64_t depth, bool split, Linear &to, int64_t first = 0,
            int64_t of = 0) {
  const Out all = to.weights.of((of ? of : columns) * depth, split);
  (split ? interleave<true> : interleave<false>)(tensor[0], columns, depth, all.at(first * depth));
  to.bias.insert(to.bias.end(), tensor[1], tensor[1] + columns);
  tensor += 2;
}

// Layer normalisation of a row in place (Ba et al., 2016), and the row rounded.
template <bool SPLIT>
void normalise(float *row, const Norm &norm, int64_t size, float epsilon, Out rounded) {
  __m512 sum = _mm512_setzero_ps();
  for (int64_t at = 0; at < size; at += TILE) sum = _mm512_add_ps(sum, _mm512_load_ps(row + at));
  const __m512 mean = vecbeam::all(_mm512_reduce_add_ps(sum) / size);
  __m512 squares = _mm512_setzero_ps();
  for (int64_t at = 0; at < size; at += TILE) {
    const __m512 away = _mm512_sub_ps(_mm512_load_ps(row + at), mean);
    squares = _mm512_fmadd_ps(away, away, squares);
  }
  const __m512 scale = vecbeam::all(1 / std::sqrt(_mm512_reduce_add_ps(squares) / size + epsilon));
  for (int64_t at = 0; at < size; at += TILE) {
    const __m512 away = _mm512_mul_ps(_mm512_sub_ps(_mm512_load_ps(row + at), mean), scale);
    const __m512 done = _mm512_fmadd_ps(away, _mm512_loadu_ps(&norm.scale[at]), _mm512_loadu_ps(&norm.shift[at]));
    _mm512_store_ps(row + at, done);
    put<SPLIT>(rounded.at(at), done);
  }
}

template <bool SPLIT>
void embed(const Bert &bert, const int32_t *ids, int64_t length, float *states, Out rounded) {
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
    normalise<SPLIT>(states, bert.after_embedding, hidden, bert.shape.epsilon, rounded.at(token * hidden));
  }
}

template <bool SPLIT>
int64_t run(const Bert &bert, const int32_t *ids, const int64_t *offsets, int64_t texts, float *vectors, Space &space) {
  const auto &shape = bert.shape;
  const int64_t hidden = shape.hidden, size = hidden / shape.heads, tokens = offsets[texts] - offsets[0];
  const int64_t rows = (tokens + BLOCK - 1) / BLOCK * BLOCK, wide = 3 * hidden;
  const auto first = [&](int64_t text) { return offsets[text] - offsets[0]; };
  const auto length = [&](int64_t text) { return offsets[text + 1] - offsets[text]; };
  int64_t most = 0;
  for (int64_t text = 0; text < texts; text++) most = std::max(most, length(text));
  most = (most + BLOCK - 1) / BLOCK * BLOCK;

  float *states = space.states.of(rows * hidden);
  const Out rounded = space.rounded.of(rows * hidden, SPLIT);
  const Out attention = space.attention.of((rows + BLOCK) * wide, SPLIT);
  const Out context = space.context.of(rows * hidden, SPLIT);
  const Out between = space.between.of(ROWS * shape.between, SPLIT);
  const AttentionSpace attending{space.keys.of(most * size, SPLIT), space.values.of(most * size, SPLIT),
                                 space.shares.of(BLOCK * most, SPLIT), space.scores.of(BLOCK * most)};

  for (int64_t text = 0; text < texts; text++)
    embed<SPLIT>(bert, ids + offsets[text], length(text), states + first(text) * hidden, rounded.at(first(text) * hidden));
  // Rows after the last token take part in products; whatever they hold must be numbers.
  std::fill(states + tokens * hidden, states + rows * hidden, 0.0f);
  for (bf16 *half : {rounded.hi, rounded.lo, context.hi, context.lo})
    if (half) std::fill(half + tokens * hidden, half + rows * hidden, bf16{0});

  const Tiles tiles;
  const __m512 scale = all(1.4426950408889634f / std::sqrt(static_cast<float>(size)));
  for (const Layer &layer : bert.layers) {
    const float *bias = layer.attention.bias.data();
    for (int64_t start = 0; start < rows; start += ROWS)
      product<SPLIT>(in(rounded.at(start * hidden)), hidden, std::min(ROWS, rows - start), layer.attention.weights.get(),
                     hidden, wide, [&](int64_t row, int64_t column, const float *sums) {
                       for (int64_t at = 0; at < BLOCK; at += TILE) {
                         __m512 sum = _mm512_add_ps(_mm512_load_ps(sums + at), _mm512_loadu_ps(bias + column + at));
                         if (column < hidden) sum = _mm512_mul_ps(sum, scale);
                         put<SPLIT>(attention.at((start + row) * wide + column + at), sum);
                       }
                     });
    for (int64_t text = 0; text < texts; text++)
      for (int64_t head = 0; head < shape.heads; head++) {
        const In query = in(attention.at(first(text) * wide + head * size));
        attend<SPLIT>(query, query.at(hidden), query.at(2 * hidden), wide, length(text), size, attending,
                      context.at(first(text) * hidden + head * size), hidden);
      }
    for (int64_t start = 0; start < rows; start += ROWS) {
      const int64_t count = std::min(ROWS, rows - start);
      float *const here = states + start * hidden;
      const auto add_to_states = [&](const Linear &linear, const Norm &norm, In left, int64_t depth) {
        product<SPLIT>(left, depth, count, linear.weights.get(), depth, hidden,
                       [&](int64_t row, int64_t column, const float *sums) {
                         for (int64_t at = 0; at < BLOCK; at += TILE) {
                           float *state = here + row * hidden + column + at;
                           const __m512 bias = _mm512_loadu_ps(&linear.bias[column + at]);
                           const __m512 sum = _mm512_add_ps(_mm512_load_ps(sums + at), bias);
                           _mm512_store_ps(state, _mm512_add_ps(_mm512_load_ps(state), sum));
                         }
                       });
        for (int64_t row = 0; row < count; row++)
          normalise<SPLIT>(here + row * hidden, norm, hidden, shape.epsilon, rounded.at((start + row) * hidden));
      };
      add_to_states(layer.output, layer.after_attention, in(context.at(start * hidden)), hidden);
      const float *bias = layer.up.bias.data();
      product<SPLIT>(in(rounded.at(start * hidden)), hidden, count, layer.up.weights.get(), hidden, shape.between,
                     [&](int64_t row, int64_t column, const float *sums) {
                       for (int64_t at = 0; at < BLOCK; at += TILE) {
                         const __m512 sum = _mm512_add_ps(_mm512_load_ps(sums + at), _mm512_loadu_ps(bias + column + at));
                         put<SPLIT>(between.at(row * shape.between + column + at), gelu<SPLIT>(sum));
                       }
                     });
      add_to_states(layer.down, layer.after_output, in(between), shape.between);
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
  bert->shape = *shape;
  bert->words = *tensors++;
  bert->positions = *tensors++;
  bert->kinds = *tensors++;
  bert->after_embedding = norm(tensors, hidden);
  for (int64_t at = 0; at < shape->layers; at++) {
    Layer layer;
    for (int part = 0; part < 3; part++)
      linear(tensors, hidden, hidden, shape->split, layer.attention, part * hidden, 3 * hidden);
    linear(tensors, hidden, hidden, shape->split, layer.output);
    layer.after_attention = norm(tensors, hidden);
    linear(tensors, between, hidden, shape->split, layer.up);
    linear(tensors, hidden, between, shape->split, layer.down);
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
  int64_t beyond = 0;
  for (int64_t text = 0, end = 0; text < texts; text = end) {
    end = text + vecbeam::group(offsets + text, texts - text);
    const auto run = bert.shape.split ? vecbeam::run<true> : vecbeam::run<false>;
    beyond += run(bert, ids, offsets + text, end - text, vectors + text * bert.shape.hidden, space);
  }
  return beyond;
} catch (const std::bad_alloc &) {
  return -1;
}
}
