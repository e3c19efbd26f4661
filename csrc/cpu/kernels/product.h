// The product of the matrix and an image, y_i = sum_j A_ij x_j, and of its transpose and an image,
// y_j = sum_i A_ij x_i.
//
// The transposed pattern is of the same kind, so both are sums over the pixels of x in the window
// of a pixel of y, here called its keys. A block of rows of y at a time, and for it the weights of
// a few key rows at a time: the rows of x in the windows of the block.
#pragma once

#include <cstdint>

#include "../params.h"
#include "broadcast.h"
#include "channel_rows.h"
#include "packing.h"
#include "product_ahead.h"
#include "row_block.h"
#include "weights.h"

namespace circulant::simd::CIRCULANT_INSTRUCTION_SET {

template <class S, bool transposed>
class ProductKernel {
  using T = Compute<S>;
  static constexpr int64_t L = kLanes<T>;
  static constexpr bool kInPlace = Weights<S, transposed>::kInPlace;

 public:
  ProductKernel(const ProductParams& a, const WorkItem& item, Arena& arena)
      : ProductKernel(a, transposed ? a.geometry.transposed() : a.geometry, item, arena) {}

  void run() {
    sums_.start();
    if (segments(geometry_.dims[2].window) == 1) find_places(segment_);
    for_each_row_block(
        geometry_, item_, block_,
        [this](int64_t d) { x_.start_plane(d, block_.present_planes, 0); },
        [this](int64_t d, int64_t h, int64_t i) {
          sums_.clear();
          for_each_segment(geometry_.dims[2].window,
                           [&](const Span& offsets) { add_segment(d, h, i, offsets); });
          sums_.store(y_, d, h, block_.rows);
        });
  }

 private:
  // `g` relates y to x.
  ProductKernel(const ProductParams& a, const Geometry& g, const WorkItem& item, Arena& arena)
      : geometry_(geometry_of_classes(g, item)),
        item_(item),
        columns_(item.columns.size()),
        dilation_(g.dims[2].dilation),
        values_(a.values, g, item),
        y_(query_image<S>(a.y, item, a.channels, g)),
        channels_(padded_channels<T>(a.channels)),
        segment_(largest_segment(g.dims[2].window)),
        x_(arena, key_image<const S>(a.x, item, a.channels, g), geometry_, item, segment_),
        sums_(arena, item.columns, dilation_, a.channels),
        block_{kTileRows, g.dims[0].window, g.dims[1].window},
        together_(key_rows_together()),
        most_columns_(columns_together()),
        copy_size_(kInPlace ? 0 : values_.pixels(most_columns_, segment_) * segment_.size() + L),
        key_rows_(arena.take<const T*>(block_.key_rows())),
        parts_(arena.take<RowsAlike>(together_)),
        rows_(arena.take<const S*>(together_ * kTileRows)),
        weights_(arena.take<const T*>(together_ * kTileRows)),
        copies_(arena.take<T>(together_ * kTileRows * copy_size_)),
        places_(arena.take<int64_t>(values_.finds_places() ? columns_ * values_.places(segment_)
                                                           : 0)) {}

  // The number of key rows to treat together. All of them, so that rows of the matrix are read from
  // end to end; transposed, a row of y needs only a part of each.
  int64_t key_rows_together() const {
    if (!transposed) return block_.plane_rows();
    constexpr int64_t bytes = 131072;
    const int64_t one = kTileRows * values_.pixels(columns_, segment_) * segment_.size() *
                        static_cast<int64_t>(sizeof(T));
    return smaller(block_.plane_rows(), larger(1, bytes / one));
  }
  // The number of columns to treat together: those of adjacent tiles, so that prefetching is even.
  // Where the weights of all columns are copied, more, so that these are long pieces.
  int64_t columns_together() const {
    if (transposed) return columns_;
    if (kInPlace) return smaller(columns_, kTileColumns * dilation_);
    constexpr int64_t bytes = 131072;
    const int64_t tile =
        kTileColumns * kTileRows * together_ * segment_.size() * static_cast<int64_t>(sizeof(T));
    return smaller(columns_, kTileColumns * dilation_ * larger(1, bytes / (dilation_ * tile)));
  }

  // Adds the pixels of x at `offsets` to rows h.. of plane d, row i of the item.
  void add_segment(int64_t d, int64_t h, int64_t i, const Span& offsets) {
    const int64_t plane_rows = block_.plane_rows();
    if (offsets.size() < geometry_.dims[2].window) {
      x_.start_segment(i, offsets);
      find_places(offsets);
    }
    x_.pack_until(i + plane_rows);
    for (int64_t j = 0; j < block_.key_rows(); ++j) {
      key_rows_[j] = x_.row(j / plane_rows, i + block_.in_plane(j));
    }
    ahead_.rows(block_, h);
    for (int64_t p = block_.present_planes.begin; p < block_.present_planes.end; ++p) {
      const int64_t top = p * plane_rows, last = top + block_.present_rows.end;
      for (int64_t j = top + block_.present_rows.begin; j < last; j += together_) {
        add_key_rows({d, h, p, j, smaller(j + together_, last), offsets});
      }
    }
  }

  // Finds the weights of every key row and row of y, and where their copies will be.
  void find_rows(const ProductStep& step) {
    for_each_pair(step, [&](int64_t place, int64_t j, int64_t r) {
      rows_[place] = values_.row(step.d, step.h + r, step.p, block_.in_plane(j) - r);
      if constexpr (kInPlace) {
        weights_[place] = rows_[place];
      } else {
        weights_[place] = copies_ + place * copy_size_;
      }
    });
  }

  // The columns whose weights are found by strides: unrotated ones, less a few that fill the tiles
  // on both sides.
  Span strided_columns(const Span& offsets) const {
    const Span unrotated = values_.unrotated_columns(offsets);
    const int64_t together = tile_columns(offsets) * dilation_;
    const int64_t begin = round_up(unrotated.begin, together);
    const int64_t end = columns_ - round_up(columns_ - unrotated.end, together);
    return begin < end ? Span{begin, end} : unrotated;
  }
  static int64_t tile_columns(const Span& offsets) { return smaller(kTileColumns, offsets.size()); }

  void add_key_rows(const ProductStep& step) {
    // At most 4 key rows, so that prefetching is spread.
    parts_end_ = find_parts(block_, step.begin, step.end, 4, parts_);
    find_rows(step);
    if (transposed && step.offsets.size() == geometry_.dims[2].window) {
      ahead_.key_rows(block_, step, together_);
    }
    const int64_t classes = smaller(dilation_, columns_);
    if constexpr (!kInPlace) {
      add_copies(step, {0, classes});
    } else {
      // Transposed, a row of the matrix has weights of one class: class by class it is read once.
      const int64_t together = transposed ? 1 : classes;
      for (int64_t c = 0; c < classes; c += together) add_in_place(step, {c, c + together});
    }
  }

  // Adds to the columns of `classes`, with copies of the weights of some columns at a time.
  void add_copies(const ProductStep& step, const Span& classes) {
    const int64_t window = step.offsets.size(), first = values_.first_in_copy(step.offsets);
    for_each_part(step, {0, columns_}, [&](const Span& part) {
      values_.copy(part, step.offsets, [&](auto&& copy) {
        for_each_pair(step, [&](int64_t place, int64_t, int64_t) {
          copy(rows_[place], copies_ + place * copy_size_);
        });
      });
      add_tiles(step, part, classes, first - part.begin * window, window, nullptr);
    });
  }

  // The same with weights in place: by strides, or by their places near the border of a circle.
  void add_in_place(const ProductStep& step, const Span& classes) {
    const Span strided = strided_columns(step.offsets);
    const int64_t first = values_.first_in_row(step.offsets);
    const auto add_listed = [&](const Span& part) {
      add_tiles(step, part, classes, 0, values_.places(step.offsets), places_);
    };
    for_each_part(step, {0, strided.begin}, add_listed);
    for_each_part(step, strided, [&](const Span& part) {
      add_tiles(step, part, classes, first, geometry_.offsets(), nullptr);
    });
    for_each_part(step, {strided.end, columns_}, add_listed);
  }

  // Calls f(part) for parts of `columns`, and prefetches during each.
  template <class F>
  void for_each_part(const ProductStep& step, const Span& columns, F&& f) {
    for (int64_t w = columns.begin; w < columns.end; w += most_columns_) {
      const Span part{w, smaller(w + most_columns_, columns.end)};
      if (!transposed) ahead_.columns(block_, step, part, most_columns_);
      f(part);
    }
  }

  // Finds the places of the weights near a border.
  void find_places(const Span& offsets) {
    if (!values_.finds_places()) return;
    const Span strided = strided_columns(offsets);
    values_.find_places({0, strided.begin}, offsets, places_);
    values_.find_places({strided.end, columns_}, offsets, places_);
  }

  // Calls f(place, j, r) for every key row j and row r of y: `place` is theirs in rows_, weights_
  // and copies_.
  template <class F>
  void for_each_pair(const ProductStep& step, F&& f) {
    for (int64_t j = step.begin; j < step.end; ++j) {
      const int64_t first = block_.first_query(j);
      for (int64_t r = first; r < first + block_.queries(j); ++r) {
        f((j - step.begin) * kTileRows + r, j, r);
      }
    }
  }

  // Adds the key rows to those of `columns` in `classes`. The weights of column w, or their places
  // unless these are null, begin at first + w * stride.
  void add_tiles(const ProductStep& step, const Span& columns, const Span& classes, int64_t first,
                 int64_t stride, const int64_t* places) {
    const int64_t next = dilation_ * stride - 1;
    const bool by_pixel = transposed && places == nullptr;
    const auto add = [&](int64_t w, int64_t width) {
      const int64_t at = first + w * stride;
      add_tile(step, w, width,
               {weights_, at, by_pixel ? 1 : next, by_pixel ? next : 1, places,
                present_pixels(w, width, step.offsets)});
    };
    for_each_tile(columns, classes, tile_columns(step.offsets), dilation_, add);
  }

  // Those of the pixels of x at `offsets` of a tile that are not beyond a border.
  Span present_pixels(int64_t w, int64_t width, const Span& offsets) const {
    const Dim& dim = geometry_.dims[2];
    const int64_t count = offsets.size() + width - 1;
    if (dim.circular) return {0, count};
    const int64_t first = item_.columns.begin + w + dilation_ * (offsets.begin - dim.before);
    return {divide_up(larger(0, -first), dilation_),
            smaller(count, divide_up(larger(0, dim.keys - first), dilation_))};
  }

  // `pixels` is the number of those of the tile. In a truncated dim all weights are given by
  // strides.
  static auto products_of(const TileWeights<T>& weights, int64_t pixels) {
    constexpr Places listed = transposed ? Places::kOfPixels : Places::kOfWeights;
    if (weights.places != nullptr) return add_products_of<T, listed, true>;
    return weights.pixels.size() == pixels ? add_products_of<T, Places::kStrides, true>
                                           : add_products_of<T, Places::kStrides, false>;
  }

  // Adds the key rows to `width` columns, w and those a dilation apart. `weights` are those of the
  // first key row and row of y.
  void add_tile(const ProductStep& step, int64_t w, int64_t width, TileWeights<T> weights) {
    const auto of = products_of(weights, step.offsets.size() + width - 1);
    const int64_t pixel = x_.place(w) * channels_;
    for (const RowsAlike* part = parts_; part < parts_end_; ++part) {
      weights.first = weights_ + (part->key_row - step.begin) * kTileRows + part->row;
      for (int64_t c = 0; c < channels_; c += kTileVectors * L) {
        const int64_t vectors = smaller(kTileVectors, (channels_ - c) / L);
        of(part->rows, width, vectors)(weights, key_rows_ + part->key_row, pixel + c, part->count,
                                       step.offsets.size(), channels_, sums_.at(w, part->row) + c);
        for (int64_t n = 0; n < part->count; ++n) ahead_.step();
      }
    }
  }

  Geometry geometry_;  // of the classes; relates y to x
  const WorkItem& item_;
  int64_t columns_, dilation_;
  Weights<S, transposed> values_;
  Image<S> y_;
  int64_t channels_;
  Span segment_;
  ChannelRows<S> x_;
  ChannelSums<T> sums_;
  RowBlock block_;
  int64_t together_, most_columns_, copy_size_;
  const T** key_rows_;
  RowsAlike *parts_, *parts_end_ = nullptr;
  const S** rows_;
  const T** weights_;
  T* copies_;
  int64_t* places_;  // [column][place]
  ProductAhead<S, transposed> ahead_{values_, x_, item_, channels_};
};

}  // namespace circulant::simd::CIRCULANT_INSTRUCTION_SET
