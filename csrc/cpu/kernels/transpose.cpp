// The transposed matrix in CSR order. Entry (i, j) of the result is entry (j, i) of the input: in
// the row of key j, the value at query i. Here queries and keys are those of the result.
//
// A row of queries at a time, and for it a few rows of keys: their values are read with keys in the
// lanes and stored shifted, so that those of one query are in one column.
#include <cstdint>
#include <type_traits>

#include "../params.h"
#include "csr.h"
#include "entry.h"
#include "packing.h"
#include "row_block.h"
#include "weights.h"

namespace circulant::simd::CIRCULANT_INSTRUCTION_SET {

// S is float, double, or Bits for the half types.
template <class S>
class BitTranspose {
  using T = Compute<S>;
  static constexpr int64_t L = kLanes<T>;

 public:
  BitTranspose(const TransposeParams& a, const WorkItem& item, Arena& arena)
      : geometry_(geometry_of_classes(a.geometry.transposed(), item)),
        item_(item),
        values_(a.values, a.geometry.transposed(), item),
        result_(static_cast<S*>(a.result), item, a.geometry.transposed()),
        // The margins on both sides take the values at queries outside of the item.
        segment_(largest_segment(geometry_.dims[2].window)),
        margin_(round_up(geometry_.dims[2].dilation * (segment_.size() - 1), L)),
        pitch_(odd_pitch<T>(2 * margin_ + round_up(item.columns.size(), L) + L)),
        rows_(smaller(rows_at_a_time(segment_.size()), geometry_.dims[1].window)),
        turned_(arena.take<T>(rows_ * segment_.size() * pitch_)),
        first_offsets_(arena.take<int64_t>(pitch_)) {}

  void run() {
    for_each_segment(geometry_.dims[2].window, [this](const Span& offsets) {
      const Placement keys = placement(offsets);
      find_first_offsets(keys);
      // Only absent rows overwrite the zeros of absent keys, with zeros.
      if (keys.any_absent()) fill_zero(turned_, rows_ * segment_.size() * pitch_);
      for (int64_t d = item_.planes.begin; d < item_.planes.end; ++d) {
        for (int64_t h = item_.rows.begin; h < item_.rows.end; ++h) {
          for (int64_t p = 0; p < geometry_.dims[0].window; ++p) add_plane(d, h, p, offsets, keys);
        }
      }
    });
  }

 private:
  // Whether the item has all columns of a circle. Then it reads each key once: values at queries
  // beyond one border of the grid are moved to the other.
  bool wraps(const Span& offsets) const {
    const Dim& dim = geometry_.dims[2];
    return dim.circular && item_.columns.size() == dim.size && offsets.size() == dim.window;
  }

  // The keys at `offsets` of the item's columns, each at the column of the query that has it at the
  // first of these offsets.
  Placement placement(const Span& offsets) const {
    const Dim& dim = geometry_.dims[2];
    if (wraps(offsets)) return {0, dim.size, dim.dilation * dim.before, dim};
    return {item_.columns.begin + dim.dilation * (offsets.begin - dim.before),
            item_.columns.size() + dim.dilation * (offsets.size() - 1), 0, dim};
  }

  // Of the rows of keys.
  void find_first_offsets(const Placement& keys) {
    keys.for_each_piece([this](int64_t column, int64_t at, int64_t count) {
      Rotation rotation(geometry_.dims[2].transposed(), column);
      for (int64_t i = 0; i < count; ++i) {
        if (column + i == rotation.end) rotation.next();
        first_offsets_[at + i] = rotation.first;
      }
    });
  }

  // Row h of plane d, at `offsets` in plane p of the window, which are the columns `keys`.
  void add_plane(int64_t d, int64_t h, int64_t p, const Span& offsets, const Placement& keys) {
    const int64_t window = geometry_.dims[1].window;
    result_.start_segment(offsets);
    for (int64_t o = 0; o < window; o += rows_) {
      const int64_t end = smaller(o + rows_, window);
      for (int64_t i = o; i < end; ++i) read_row(d, h, p, i, offsets, keys, turned_row(i - o));
      write_rows(d, h, p, o, end);
    }
  }

  int64_t rows_at_a_time(int64_t window) const {
    constexpr int64_t bytes = 262144;  // They stay in the second-level cache.
    return larger(1, bytes / (window * pitch_ * static_cast<int64_t>(sizeof(T))));
  }

  T* turned_row(int64_t i) const { return turned_ + i * segment_.size() * pitch_ + margin_; }

  // Reads the values at row h of plane d from the row of keys at offset (p, o). Those of offset n
  // of `offsets` go to to[n * pitch], at the columns of their queries.
  void read_row(int64_t d, int64_t h, int64_t p, int64_t o, const Span& offsets,
                const Placement& keys, T* to) {
    const Dim &planes = geometry_.dims[0], &rows = geometry_.dims[1], &dim = geometry_.dims[2];
    const int64_t plane = planes.neighbour(d, p), row = rows.neighbour(h, o);
    if (plane < 0 || row < 0) return fill_zero(to - margin_, offsets.size() * pitch_);
    // From the key, the query is at the opposite offset.
    const Span own{dim.window - offsets.end, dim.window - offsets.begin};
    const S* values = values_.row(d, h, p, o);
    const bool prefetches = h + 1 < item_.rows.end && rows.neighbour(h + 1, o) >= 0;
    const S* ahead = prefetches ? values_.row(d, h + 1, p, o) : nullptr;
    const auto read = [&](int64_t column, int64_t at, int64_t lanes) {
      if (prefetches) prefetch(ahead + column * row_size_, lanes, own);
      const bool rotated = column < in_order_.begin || column + lanes > in_order_.end;
      const Slots<const S> slots{values + column * row_size_,
                                 row_size_,
                                 1,
                                 dim.window,
                                 own,
                                 rotated ? first_offsets_ + at : nullptr,
                                 &rotation_};
      read_slots(slots, lanes, [&](int64_t back, Vec<T> v) {
        const int64_t n = offsets.size() - 1 - back;
        store(to + at + n * (pitch_ - dim.dilation), v);
      });
    };
    // In vectors that stay inside the grid; lanes after the last key are overwritten later.
    keys.for_each_piece([&](int64_t column, int64_t at, int64_t count) {
      for (int64_t i = 0; i < count; i += L) read(column + i, at + i, smaller(L, count - i));
    });
    if (!wraps(offsets)) return;
    for (int64_t n = 0; n < dim.window; ++n) {
      wrap_queries(dim.dilation * (n - dim.before), to + n * pitch_);
    }
  }

  // Prefetches the values at `offsets` of `count` keys: of their cache lines those that row h - 1
  // of the queries does not read.
  void prefetch(const S* values, int64_t count, const Span& offsets) const {
    constexpr int64_t line = kCacheLine / static_cast<int64_t>(sizeof(S));
    for (int64_t i = 0; i < count; ++i, values += row_size_) {
      for (int64_t n = offsets.end - 1; n >= offsets.begin; n -= line) {
        __builtin_prefetch(values + n, 0, 2);
      }
    }
  }

  // Moves the values at queries beyond a border, up to `distance`: before the first one, or after
  // the last one if it is negative. Lanes of no query overwrite those of other queries that are
  // outside of the grid.
  void wrap_queries(int64_t distance, T* to) const {
    const int64_t size = geometry_.dims[2].size;
    T* last = to + size - distance;
    for (int64_t i = 0; i < distance; i += L) store(last + i, load(to - distance + i));
    for (int64_t i = -distance; i > 0; i -= L) store(to + i - L, load(to + size + i - L));
  }

  void write_rows(int64_t d, int64_t h, int64_t p, int64_t first, int64_t last) {
    for (int64_t w = 0; w < item_.columns.size(); w += L) {
      const int64_t lanes = smaller(L, item_.columns.size() - w);
      const int64_t column = item_.columns.begin + w;
      result_.start_tile({column, column + lanes});
      result_.for_each_slots(d, h, p, first, last, [&](int64_t offset, const Slots<S>& slots) {
        const T* from = turned_row(offset - first) + w;
        const int64_t pitch = pitch_;
        write_slots(slots, lanes, [=](int64_t n) { return load(from + n * pitch); });
      });
    }
  }

  Geometry geometry_;  // of the classes of the result
  const WorkItem& item_;
  Weights<S, true> values_;
  CsrRows<S> result_;
  Span segment_;
  int64_t margin_, pitch_, rows_;
  T* turned_;
  int64_t* first_offsets_;
  int64_t row_size_ = geometry_.offsets();
  Span in_order_ = unrotated(geometry_.dims[2].transposed());
  WindowRotation<T> rotation_{geometry_.dims[2].window};
};

template <class S>
using TransposeKernel = BitTranspose<std::conditional_t<sizeof(S) == sizeof(Bits), Bits, S>>;

CIRCULANT_DEFINE_KERNEL(transpose, TransposeParams, TransposeKernel)

}  // namespace circulant::simd::CIRCULANT_INSTRUCTION_SET
