// The torch op of token embeddings, on the stable ABI.

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

#include "../instruction_set.h"
#include "buffers.h"

namespace eefast::cpu {
namespace {

constexpr int64_t kRowsAtOnce = 16;

// Rows of numbers that tokens choose from.
struct Table {
  const float* rows;  // or null
  int64_t count = 0;
};

Table table_of(const char* name, const Tensor& table, int64_t width) {
  expect_rows(name, table, -1, width);
  return {table.const_data_ptr<float>(), table.size(0)};
}

Table table_of(const char* name, const std::optional<Tensor>& table, int64_t width) {
  return table ? table_of(name, *table, width) : Table{nullptr};
}

template <class Element>
void append(const Tensor& ids, int64_t samples, int64_t tokens, std::vector<int64_t>& all) {
  const auto* elements = static_cast<const Element*>(ids.const_data_ptr());
  const int64_t apart = ids.size(0) == 1 ? 0 : ids.stride(0), step = ids.stride(1);
  for (int64_t n = 0; n < samples; ++n) {
    for (int64_t t = 0; t < tokens; ++t) all.push_back(elements[n * apart + t * step]);
  }
}

// Ids [samples or 1, tokens] as [samples, tokens], all of them rows of a table.
std::vector<int64_t> ids_of(
    const char* name, const Tensor& ids, int64_t samples, int64_t tokens, const Table& table) {
  const bool is_int64 = ids.scalar_type() == ScalarType::Long;
  const bool fits = ids.dim() == 2 && (ids.size(0) == samples || ids.size(0) == 1) &&
      ids.size(1) == tokens && ids.is_cpu() && (is_int64 || ids.scalar_type() == ScalarType::Int);
  if (!fits) {
    fail(name, " must be int64 or int32 [", samples, ", ", tokens, "] on the CPU; got ",
         torch::headeronly::toString(ids.scalar_type()), " with ", ids.dim(), " dimensions, ",
         ids.numel(), " elements");
  }
  std::vector<int64_t> all;
  all.reserve(samples * tokens);
  if (is_int64) {
    append<int64_t>(ids, samples, tokens, all);
  } else {
    append<int32_t>(ids, samples, tokens, all);
  }
  for (const int64_t id : all) expect_in(name, id, 0, table.count - 1);
  return all;
}

// Where each token stands: from 0 on, or, with a padding id, after it and without padding, which
// stays at the place `padding`.
std::vector<int64_t> places_of(
    const std::vector<int64_t>& ids, int64_t tokens, int64_t padding, const Table& table) {
  std::vector<int64_t> places;
  places.reserve(ids.size());
  int64_t count = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (i % tokens == 0) count = 0;
    const bool counts = padding < 0 || ids[i] != padding;
    const int64_t first = padding < 0 ? 0 : padding + 1;
    places.push_back(expect_in("places", counts ? first + count++ : padding, 0, table.count - 1));
  }
  return places;
}

void add(const float* from, int64_t width, float* to) {
  for (int64_t i = 0; i < width; ++i) to[i] += from[i];
}

template <class Bits>
void append_shown(const Tensor& numbers, bool floating, std::vector<char>& shown) {
  const auto* elements = static_cast<const Bits*>(numbers.const_data_ptr());
  // The sign of a floating zero does not count.
  const Bits counts = floating ? static_cast<Bits>(~Bits{0}) >> 1 : static_cast<Bits>(~Bits{0});
  for (int64_t n = 0; n < numbers.size(0); ++n) {
    for (int64_t t = 0; t < numbers.size(1); ++t) {
      const Bits bits = elements[n * numbers.stride(0) + t * numbers.stride(1)];
      shown.push_back((bits & counts) != 0);
    }
  }
}

// Which tokens [samples, tokens] a mask shows: those where it is not zero.
std::vector<char> shown_by(const Tensor& mask, int64_t samples, int64_t tokens) {
  if (mask.dim() != 2 || !mask.is_cpu() || mask.size(0) != samples || mask.size(1) != tokens) {
    fail("mask must be [", samples, ", ", tokens, "] on the CPU; got ", mask.dim(), " dimensions, ",
         mask.numel(), " elements");
  }
  std::vector<char> shown;
  shown.reserve(samples * tokens);
  switch (mask.scalar_type()) {
    case ScalarType::Long:
      append_shown<uint64_t>(mask, false, shown);
      break;
    case ScalarType::Int:
      append_shown<uint32_t>(mask, false, shown);
      break;
    case ScalarType::Short:
      append_shown<uint16_t>(mask, false, shown);
      break;
    case ScalarType::Char:
    case ScalarType::Byte:
    case ScalarType::Bool:
      append_shown<uint8_t>(mask, false, shown);
      break;
    case ScalarType::Double:
      append_shown<uint64_t>(mask, true, shown);
      break;
    case ScalarType::Float:
      append_shown<uint32_t>(mask, true, shown);
      break;
    case ScalarType::Half:
    case ScalarType::BFloat16:
      append_shown<uint16_t>(mask, true, shown);
      break;
    default:
      fail("mask must be of numbers; got ", torch::headeronly::toString(mask.scalar_type()));
  }
  return shown;
}

// The tokens of a call that are embedded.
struct Kept {
  std::vector<int64_t> tokens;   // as numbers of [samples, tokens]
  std::vector<int64_t> lengths;  // how many of each sample: its first ones
  bool hides = false;            // whether the mask hides one of them
};

// All of them or, in a ragged batch, those of each sample up to the last that the mask shows; all
// of a sample that is hidden altogether.
Kept kept_of(
    const std::optional<Tensor>& mask, int64_t samples, int64_t tokens, bool ragged) {
  Kept kept;
  std::vector<char> shown;
  if (mask) shown = shown_by(*mask, samples, tokens);
  kept.tokens.reserve(samples * tokens);
  for (int64_t n = 0; n < samples; ++n) {
    const char* of_sample = mask ? shown.data() + n * tokens : nullptr;
    int64_t length = tokens;
    if (of_sample && ragged) {
      while (length > 0 && !of_sample[length - 1]) --length;
      if (length == 0) length = tokens;
    }
    for (int64_t t = 0; t < length; ++t) {
      kept.tokens.push_back(n * tokens + t);
      kept.hides |= of_sample && !of_sample[t];
    }
    kept.lengths.push_back(length);
  }
  return kept;
}

std::tuple<Tensor, Tensor, bool> embed_tokens(
    const Tensor& ids, std::optional<Tensor> types, std::optional<Tensor> places,
    std::optional<Tensor> mask, const Tensor& token_table, std::optional<Tensor> type_table,
    std::optional<Tensor> place_table, const Tensor& weight, const Tensor& bias, double eps,
    int64_t padding, bool ragged) {
  if (ids.dim() != 2) fail("ids must be [samples, tokens]; got ", ids.dim(), " dimensions");
  if (token_table.dim() != 2) {
    fail("token_table must be [ids, width]; got ", token_table.dim(), " dimensions");
  }
  const int64_t samples = ids.size(0), tokens = ids.size(1), width = token_table.size(1);
  const Table of_ids = table_of("token_table", token_table, width);
  const Table of_types = table_of("type_table", type_table, width);
  const Table of_places = table_of("place_table", place_table, width);
  const float* w = floats_of<1>("weight", weight, {width});
  const float* b = floats_of<1>("bias", bias, {width});
  if (types && !of_types.rows) fail("types must be None without a type_table");
  if (places && !of_places.rows) fail("places must be None without a place_table");

  const std::vector<int64_t> id = ids_of("ids", ids, samples, tokens, of_ids);
  std::vector<int64_t> type, place;
  if (types) type = ids_of("types", *types, samples, tokens, of_types);
  if (of_types.rows && !types) type.assign(id.size(), 0);
  if (places) place = ids_of("places", *places, samples, tokens, of_places);
  if (of_places.rows && !places) place = places_of(id, tokens, padding, of_places);

  const Kept kept = kept_of(mask, samples, tokens, ragged);
  const auto count = static_cast<int64_t>(kept.tokens.size());
  Tensor out = torch::stable::new_empty(token_table, {count, width});
  float* rows = out.mutable_data_ptr<float>();
  const LayerKernels& kernels = active_layer_kernels();
  const auto embed = [&](int64_t at) {
    const int64_t i = kept.tokens[at];
    float* row = rows + at * width;
    std::copy_n(of_ids.rows + id[i] * width, width, row);
    // In the order of transformers' embeddings: rounding then does the same.
    if (of_types.rows) add(of_types.rows + type[i] * width, width, row);
    if (of_places.rows) add(of_places.rows + place[i] * width, width, row);
    kernels.normalise(row, width, w, b, static_cast<float>(eps), row);
  };
  Step step;
  on_threads(threads_for(count * width), [&](int64_t thread) {
    step.run(thread, (count + kRowsAtOnce - 1) / kRowsAtOnce, [&](int64_t item) {
      const int64_t last = std::min((item + 1) * kRowsAtOnce, count);
      for (int64_t i = item * kRowsAtOnce; i < last; ++i) embed(i);
    });
  });
  Tensor lengths = torch::stable::new_empty(token_table, {samples}, ScalarType::Long);
  std::copy(kept.lengths.begin(), kept.lengths.end(), lengths.mutable_data_ptr<int64_t>());
  return {out, lengths, kept.hides};
}

}  // namespace
}  // namespace eefast::cpu

STABLE_TORCH_LIBRARY_FRAGMENT(eefast, m) {
  // norm(token_table[ids] + type_table[types] + place_table[place]) f32 [R, D] of the tokens of all
  // samples, one sample behind the other: ids, types and places int64 or int32 [B or 1, T]. Types
  // that are not given are 0. Places that are not given count from 0 or, with a padding id (not
  // negative), from padding + 1 without padding. R is B T or, if ragged, a sample's tokens end with
  // the last where the mask, numbers [B, T], is not zero. Then how many tokens each sample has,
  // int64 [B], and whether the mask is zero at one of them.
  m.def(
      "embed_tokens(Tensor ids, Tensor? types, Tensor? places, Tensor? mask, Tensor token_table,"
      " Tensor? type_table, Tensor? place_table, Tensor weight, Tensor bias, float eps,"
      " int padding, bool ragged) -> (Tensor, Tensor, bool)");
}

STABLE_TORCH_LIBRARY_IMPL(eefast, CPU, m) {
  m.impl("embed_tokens", TORCH_BOX(&eefast::cpu::embed_tokens));
}
