// What a product with the matrix prefetches while it computes.
#pragma once

#include <cstdint>

#include "../params.h"
#include "../simd/prefetch.h"
#include "broadcast.h"
#include "channel_rows.h"
#include "row_block.h"
#include "weights.h"

namespace circulant::simd::CIRCULANT_INSTRUCTION_SET {

// Key rows [begin, end), all of plane p of the window, at `offsets` along columns, for rows h.. of
// plane d of y.
struct ProductStep {
  int64_t d, h, p, begin, end;
  Span offsets;
};

// The next weights and rows of x of a work item with padded channels.
template <class S, bool transposed>
class ProductAhead {
  using T = Compute<S>;

 public:
  ProductAhead(const Weights<S, transposed>& values, const ChannelRows<S>& x, const WorkItem& item,
               int64_t channels)
      : values_(values), x_(x), item_(item), channels_(channels) {}

  // During the block of rows h..: the rows of x for the next rows of y.
  void rows(const RowBlock& block, int64_t h) {
    const int64_t rows = rows_after(block, h);
    rows_ahead_.clear();
    if (rows > 0) x_.prefetch(rows_ahead_, rows);
    rows_ahead_.spread(steps(block.key_rows(), item_.columns.size()));
  }

  // During `part` of the columns: the weights of the next ones, at most `most`, or of the first
  // ones of the next rows of y.
  void columns(const RowBlock& block, const ProductStep& step, const Span& part, int64_t most) {
    int64_t w = part.end, h = step.h, rows = block.rows;
    if (w == item_.columns.size()) {
      w = 0;
      rows = rows_after(block, h);
      h += block.rows;
    }
    values_ahead_.clear();
    values_.prefetch(values_ahead_, step.d, h, rows, w, smaller(most, item_.columns.size() - w),
                     step.offsets);
    values_ahead_.spread(steps(step.end - step.begin, part.size()));
  }

  // Transposed, during a step: the weights of the next key rows, at most `most`, of this or the
  // next plane of the window, or of the first ones of the next rows of y.
  void key_rows(RowBlock block, const ProductStep& step, int64_t most) {
    int64_t h = step.h, begin = step.end;
    if (begin == block.key_rows()) {
      const int64_t rows = rows_after(block, h);
      h += block.rows;
      block.rows = rows;
      begin = 0;
    }
    values_ahead_.clear();
    if (block.rows <= 0) return;
    const int64_t plane_end = (begin / block.plane_rows() + 1) * block.plane_rows();
    for (int64_t j = begin; j < smaller(begin + most, plane_end); ++j) {
      values_.prefetch_key_row(values_ahead_, block, step.d, h, j);
    }
    values_ahead_.spread(steps(step.end - step.begin, item_.columns.size()));
  }

  // After each key row of a tile and kTileVectors vectors of its channels.
  void step() {
    values_ahead_.step();
    rows_ahead_.step();
  }

 private:
  // The rows of y in the block after that of rows h...
  int64_t rows_after(const RowBlock& block, int64_t h) const {
    return smaller(kTileRows, item_.rows.end - h - block.rows);
  }
  // The calls of step() during this many key rows and columns.
  int64_t steps(int64_t key_rows, int64_t columns) const {
    return key_rows * divide_up(channels_, kTileVectors * kLanes<T>) *
           divide_up(columns, kTileColumns);
  }

  const Weights<S, transposed>& values_;
  const ChannelRows<S>& x_;
  const WorkItem& item_;
  int64_t channels_;
  Prefetcher values_ahead_, rows_ahead_;
};

}  // namespace circulant::simd::CIRCULANT_INSTRUCTION_SET
