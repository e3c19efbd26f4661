// What is added to the scores of fused attention: biases of the offsets and of the keys, and
// -infinity where a key is absent. Biases are multiplied by log2(e), as scores are.
#pragma once

#include <cstdint>

#include "../../common/constants.h"
#include "../params.h"
#include "arena.h"
#include "image.h"
#include "microkernels.h"
#include "packing.h"
#include "presence.h"
#include "row_block.h"

namespace circulant::simd::CIRCULANT_INSTRUCTION_SET {

// The biases of the keys in packed rows, as KeyRows packs their features; -infinity where a key is
// absent.
template <class T>
class KeyBiasRows : public RowsAround<T> {
  using RowsAround<T>::ring_;

 public:
  KeyBiasRows(Arena& arena, const Image<const T>& image, const Geometry& g, const WorkItem& item,
              int64_t pitch)
      : RowsAround<T>(arena, image, g, item.rows, image.channels, pitch) {}

  // Call this once, before all others.
  void clear() { ring_.clear(); }

  void pack_until(int64_t until, const Placement& placement) {
    this->pack_rows_until(until, [&](const T* const* from, T* const* to, int64_t count) {
      for (int64_t r = 0; r < count; ++r) pack(placement, from[r], to[r]);
    });
  }
  // Packs rows from `first` on again.
  void start_segment(int64_t first) { this->restart(first); }

 private:
  static void pack(const Placement& placement, const T* row, T* to) {
    placement.for_each_piece([=](int64_t column, int64_t at, int64_t count) {
      for (int64_t i = 0; i < count; ++i) to[at + i] = T(kLog2E) * row[column + i];
    });
    placement.for_each_absent([=](int64_t at, int64_t count) {
      for (int64_t i = at; i < at + count; ++i) to[i] = T(-__builtin_inf());
    });
  }
};

// Of one work item. Without biases, only of absent keys.
template <class T>
class ScoreBiases {
 public:
  // `whole` is the geometry of the grid, `g` that of the item's classes, `pitch` the length of
  // packed rows.
  ScoreBiases(Arena& arena, const Biases& biases, const Geometry& whole, const Geometry& g,
              const WorkItem& item, int64_t key_rows, int64_t pitch)
      : dims_{g.dims[1], g.dims[2]},
        has_keys_(biases.keys != nullptr),
        count_(biases.offsets != nullptr ? g.offsets() : 0),
        given_(static_cast<const T*>(biases.offsets) + item.group % biases.heads * count_),
        offsets_(arena.take<T>(count_)),
        presence_(arena, g.dims[2], pitch),
        keys_(arena, image(biases, item, whole), g, item, pitch),
        key_rows_(arena.take<const T*>(has_keys_ ? key_rows : 0)) {}

  bool any() const { return has_keys_ || count_ > 0; }

  // Starts key rows packed by `placement`, with the keys at `offsets`. Call this once, before all
  // others.
  void start(const Placement& placement, const Span& offsets) {
    for (int64_t i = 0; i < count_; ++i) offsets_[i] = T(kLog2E) * given_[i];
    if (has_keys_) keys_.clear();
    segment_ = offsets;
    presence_.start(placement, offsets);
  }
  // The same from row `first` on.
  void start_segment(int64_t first, const Placement& placement, const Span& offsets) {
    segment_ = offsets;
    presence_.start(placement, offsets);
    keys_.start_segment(first);
  }
  void start_plane(int64_t d, const Span& planes, int64_t first) {
    keys_.start_plane(d, planes, first);
  }

  // Packs the key rows before `until`, and selects those of the block that starts at row i.
  void pack(const RowBlock& block, int64_t i, int64_t until, const Placement& placement) {
    if (!has_keys_) return;
    keys_.pack_until(until, placement);
    point_to_key_rows(keys_, block, i, key_rows_);
  }

  // What to add to the scores of a tile without biases: of the queries in `columns`, whose keys are
  // packed from `at` on.
  ScoreStart<T> of_tile(const Span& columns, int64_t at) const {
    return {presence_.biases(columns, at), nullptr, dims_[1].window};
  }
  // The same with the biases of key row j.
  ScoreStart<T> of_key_row(ScoreStart<T> tile, const RowBlock& block, int64_t j, int64_t at) const {
    if (has_keys_) tile.keys = key_rows_[j] + at;
    if (count_ > 0) tile.offsets = offsets_ + first_offset(block, j) + segment_.begin;
    return tile;
  }

  // The number of the first offset along columns of key row j, for the first of its query rows. For
  // each next row it is one window of columns less.
  int64_t first_offset(const RowBlock& block, int64_t j) const {
    const int64_t plane = block.planes == 1 ? 0 : j / block.plane_rows();
    const int64_t row = block.in_plane(j) - block.first_query(j);
    return (plane * dims_[0].window + row) * dims_[1].window;
  }

 private:
  static Image<const T> image(const Biases& biases, const WorkItem& item, const Geometry& whole) {
    WorkItem row = item;
    row.group = item.group / biases.groups_per_row;
    return key_image<const T>(biases.keys, row, biases.keys != nullptr, whole);
  }

  Dim dims_[2];  // rows and columns
  bool has_keys_;
  int64_t count_;  // of the biases of the offsets
  const T* given_;
  T* offsets_;
  Presence<T> presence_;
  KeyBiasRows<T> keys_;
  const T** key_rows_;
  Span segment_{};
};

}  // namespace circulant::simd::CIRCULANT_INSTRUCTION_SET
