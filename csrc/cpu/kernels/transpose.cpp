// The values of the transposed matrix. Entry (i, j) of the result is entry (j, i) of the input:
// from the row of every key, the value that points back to the query.
//
// A row of queries at a time, and for it a few rows of keys: their values are read with keys in the
// lanes and stored shifted, so that those of one query are below each other.
#include <cstdint>

#include "../params.h"
#include "entry.h"
#include "csr.h"
#include "packing.h"

namespace circulant::tiled::CIRCULANT_INSTRUCTION_SET {

template <class S>
class TransposeEngine {
  using T = Compute<S>;
  static constexpr int64_t L = kLanes<T>;

 public:
  TransposeEngine(const Transpose& a, const Chunk& chunk, Arena& arena)
      : geometry_(a.geometry),
        chunk_(chunk),
        values_(static_cast<const S*>(a.values), chunk.group, a.geometry),
        result_(static_cast<S*>(a.result), chunk.group, a.geometry),
        // Keys whose query is not in the chunk go to the margins on both sides.
        margin_(round_up(a.geometry.window[2] - 1, L)),
        pitch_(odd_pitch<T>(2 * margin_ + round_up(chunk.columns.size(), L) + L)),
        rows_(smaller(rows_at_a_time(a.geometry.window[2]), a.geometry.window[1])),
        turned_(arena.take<T>(rows_ * a.geometry.window[2] * pitch_)) {}

  void run() {
    const int64_t window = geometry_.window[1];
    for (int64_t d = chunk_.planes.begin; d < chunk_.planes.end; ++d) {
      for (int64_t h = chunk_.rows.begin; h < chunk_.rows.end; ++h) {
        for (int64_t p = 0; p < geometry_.window[0]; ++p) {
          for (int64_t o = 0; o < window; o += rows_) {
            const int64_t end = smaller(o + rows_, window);
            for (int64_t i = o; i < end; ++i) read_row(d, h, p, i, turned_row(i - o));
            write_rows(d, h, p, o, end);
          }
        }
      }
    }
  }

 private:
  int64_t rows_at_a_time(int64_t window) const {
    constexpr int64_t bytes = 262144;  // that fit into the second-level cache
    return larger(1, bytes / (window * pitch_ * static_cast<int64_t>(sizeof(T))));
  }

  T* turned_row(int64_t i) const { return turned_ + i * geometry_.window[2] * pitch_ + margin_; }

  // The values that point back to row h of plane d, from the row of keys at offset (p, o): those of
  // offset n along the row go to to[n * pitch], at their queries.
  void read_row(int64_t d, int64_t h, int64_t p, int64_t o, T* to) {
    const int64_t *size = geometry_.size, *window = geometry_.window;
    const int64_t plane = neighbour(d, p, size[0], window[0]);
    const int64_t row = neighbour(h, o, size[1], window[1]);
    int64_t left = chunk_.columns.size() + window[2] - 1, lanes = 0;
    int64_t column = wrap(chunk_.columns.begin - window[2] / 2, size[2]);
    // In vectors that stay inside the grid; the lanes behind the last key are overwritten.
    for (; left > 0; left -= lanes, to += lanes, column = wrap(column + lanes, size[2])) {
      lanes = smaller(L, smaller(left, size[2] - column));
      values_.start_tile({column, column + lanes});
      values_.for_each_slots(plane, row, window[0] - 1 - p, window[1] - 1 - o, window[1] - o,
                             [&](int64_t, const Slots<const S>& slots) {
                               read_slots(slots, lanes, [&](int64_t back, Vec<T> v) {
                                 const int64_t n = window[2] - 1 - back;
                                 store(to + n * pitch_ - n, v);
                               });
                             });
    }
  }

  void write_rows(int64_t d, int64_t h, int64_t p, int64_t first, int64_t last) {
    for (int64_t w = 0; w < chunk_.columns.size(); w += L) {
      const int64_t lanes = smaller(L, chunk_.columns.size() - w);
      const int64_t column = chunk_.columns.begin + w;
      result_.start_tile({column, column + lanes});
      result_.for_each_slots(d, h, p, first, last, [&](int64_t offset, const Slots<S>& slots) {
        const T* from = turned_row(offset - first) + w;
        const int64_t pitch = pitch_;
        write_slots(slots, lanes, [=](int64_t n) { return load(from + n * pitch); });
      });
    }
  }

  Geometry geometry_;
  const Chunk& chunk_;
  CsrRows<const S> values_;
  CsrRows<S> result_;
  int64_t margin_, pitch_, rows_;
  T* turned_;
};

int64_t transpose(const Transpose& problem, const Chunk& chunk, void* scratch) {
  switch (problem.dtype) {
    case Dtype::kFloat16:
    case Dtype::kBFloat16:
      return run<TransposeEngine<Bits>>(problem, chunk, scratch);
    case Dtype::kFloat32:
      return run<TransposeEngine<float>>(problem, chunk, scratch);
    default:
      return run<TransposeEngine<double>>(problem, chunk, scratch);
  }
}

}  // namespace circulant::tiled::CIRCULANT_INSTRUCTION_SET
