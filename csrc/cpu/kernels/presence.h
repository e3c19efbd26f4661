// The keys of a packed row that are absent: those beyond the ends of a dim that is not circular.
#pragma once

#include <cstdint>

#include "../params.h"
#include "arena.h"
#include "csr.h"
#include "packing.h"
#include "row_block.h"

namespace circulant::simd::CIRCULANT_INSTRUCTION_SET {

// Along the columns of a key row.
template <class T>
class Presence {
 public:
  Presence(Arena& arena, const Dim& dim, int64_t pitch)
      : dim_(dim), pitch_(pitch), biases_(dim.circular ? nullptr : arena.take<T>(pitch)) {}

  // Starts key rows packed by `placement`, with the keys at `offsets`.
  void start(const Placement& placement, const Span& offsets) {
    offsets_ = offsets;
    if (dim_.circular) return;
    fill_zero(biases_, pitch_);
    placement.for_each_absent([this](int64_t at, int64_t count) {
      for (int64_t i = at; i < at + count; ++i) biases_[i] = T(-__builtin_inf());
    });
  }

  // What to add to the scores of the queries in `columns`, whose keys are packed from `at` on:
  // zero, or -infinity where a key is absent. Null if none is.
  const T* biases(const Span& columns, int64_t at) const {
    if (dim_.circular) return nullptr;
    const int64_t first = columns.begin + dim_.dilation * (offsets_.begin - dim_.before);
    const int64_t last = columns.end - 1 + dim_.dilation * (offsets_.end - 1 - dim_.before);
    return first >= 0 && last < dim_.keys ? nullptr : biases_ + at;
  }

 private:
  Dim dim_;
  int64_t pitch_;
  T* biases_;
  Span offsets_{};
};

// Writes zeros to the values of absent key rows, for the current tile's queries in rows h.. of
// plane d, the rows of the block.
template <class S>
inline void clear_absent_rows(const CsrRows<S>& values, const RowBlock& block, int64_t d, int64_t h,
                              int64_t lanes) {
  const Span planes = block.present_planes, rows = block.present_rows;
  if (planes.size() == block.planes && rows.size() == block.plane_rows()) return;
  const auto clear = [&](int64_t r, int64_t p, int64_t first, int64_t last) {
    values.for_each_slots(d, h + r, p, first, last, [&](int64_t, const Slots<S>& slots) {
      write_slots(slots, lanes, [](int64_t) { return Vec<Compute<S>>{}; });
    });
  };
  for (int64_t p = 0; p < block.planes; ++p) {
    const bool absent = p < planes.begin || p >= planes.end;
    for (int64_t r = 0; r < block.rows; ++r) {
      const int64_t first = larger(0, smaller(rows.begin - r, block.window));
      const int64_t last = larger(first, smaller(rows.end - r, block.window));
      clear(r, p, 0, absent ? block.window : first);
      if (!absent) clear(r, p, last, block.window);
    }
  }
}

}  // namespace circulant::simd::CIRCULANT_INSTRUCTION_SET
