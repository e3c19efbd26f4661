// The place of a block, a warp and a thread of fused attention on tensor cores: in the grid, in the
// halo, and in the window.
#pragma once

#include <cuda_runtime.h>

#include "attention_mma.h"
#include "launch.h"
#include "mma_step.cuh"
#include "octets.cuh"

namespace circulant {

struct MmaPlace : ThreadPlace {
  const MmaPlan& p;
  Extents origin;        // the first position of the tile in its class
  Limits planes, bands;  // of the halo that exist

  // After the next barrier, of_class() and the tables are complete.
  __device__ __forceinline__ explicit MmaPlace(const MmaPlan& p) : p(p) {
    // Neighbouring blocks have other classes of the same tile: they read the same sectors of
    // memory.
    const int index = blockIdx.x, tile = index / p.class_count, row = tile / p.tiles_across;
    origin = {row / p.tiles_down, row % p.tiles_down * p.tile_h, tile % p.tiles_across * p.tile_w};
    const int number = index % p.class_count;
    const Extents class_number{number / p.classes.w / p.classes.h,
                               number / p.classes.w % p.classes.h, number % p.classes.w};
    // Other classes have one pixel less.
    const Extents& longest = p.halo.longest;
    const int last_plane = p.planes_present.high - (class_number.d >= longest.d),
              last_row = p.rows_present.high - (class_number.h >= longest.h),
              last_column = p.columns_present.high - (class_number.w >= longest.w);
    const Extents &length = p.tile.length, &tile_longest = p.tile.longest;
    const MmaClass c{{length.d - (class_number.d >= tile_longest.d),
                      length.h - (class_number.h >= tile_longest.h),
                      length.w - (class_number.w >= tile_longest.w)},
                     last_row + 1,
                     last_column + 1};
    if (threadIdx.x == 0) of_class() = c;
    const int d = origin.d - p.before.d, h = origin.h - p.before.h;
    planes = {max(p.planes_present.low - d, 0), min(last_plane - d, p.window.d - 1)};
    bands = {max(p.rows_present.low - h, 0) / 2, min((last_row - h) / 2, p.bands - 1)};
    tabulate(class_number, last_plane, c);
  }
  __device__ __forceinline__ MmaClass& of_class() const {
    return *reinterpret_cast<MmaClass*>(dynamic_shared_memory + p.place);
  }
  // Positions of neighbours that exist.
  __device__ __forceinline__ Limits rows() const {
    return {p.rows_present.low, of_class().row_end - 1};
  }
  __device__ __forceinline__ Limits columns() const {
    return {p.columns_present.low, of_class().column_end - 1};
  }
  // Of the warp, in the tile.
  __device__ __forceinline__ int band() const { return warp() >> p.log_across; }
  __device__ __forceinline__ int octet() const { return warp() & (p.across - 1); }

  // The first pixel of a line of the tile; beyond the grid, of any line.
  __device__ __forceinline__ int tile_start(int line) const {
    return table()[p.tile_rows_at + line];
  }
  // The same of the halo.
  __device__ __forceinline__ int halo_start(const MmaStep& step, int line) const {
    return table()[step.plane] + table()[p.rows_at + 2 * step.band + line * p.line_h];
  }
  // The pixels of a line of the tile, from its first one on. Those beyond the grid are any others.
  __device__ __forceinline__ const int* tile_columns(int line) const {
    return table() + p.tile_columns_at + line * p.line_w;
  }
  // The same for a step of the halo.
  __device__ __forceinline__ const int* halo_columns(const MmaStep& step, int line) const {
    return table() + p.columns_at + step.chunk * p.span * p.octet_step + line * p.line_w;
  }
  // The row of line 0 of a step, not wrapped.
  __device__ __forceinline__ int top(const MmaStep& step) const {
    return origin.h + 2 * step.band - p.before.h;
  }
  // The first column of a step, relative to that of the tile.
  __device__ __forceinline__ int first_column(const MmaStep& step) const {
    return (step.chunk * p.span - p.margin) * p.octet_step;
  }

  // The offset of the first neighbour of a step from the first pixel of its line.
  __device__ __forceinline__ int first_offset(const MmaStep& step) const {
    const int h = 2 * (step.band - band());
    return (step.plane * p.window.h + h) * p.window.w + p.before.w + first_column(step);
  }

  // The column of the first pixel of this warp's octet in a line.
  __device__ __forceinline__ int first_pixel(int line) const {
    return origin.w + octet() * p.octet_step + line * p.line_w;
  }
  // This thread's pixel in a line of its warp, row r of the octet; -1 beyond the grid.
  __device__ __forceinline__ int pixel(int line) const {
    const MmaClass& c = of_class();
    const int d = origin.d, h = origin.h + (2 * band() + line) * p.line_h;
    const int w = first_pixel(line) + r();
    if (d >= c.length.d || h >= c.length.h || w >= c.length.w) return -1;
    return tile_start(2 * band() + line) + tile_columns(line)[octet() * p.octet_step + r()];
  }
  // The same, or any pixel of the grid.
  __device__ __forceinline__ int some_pixel(int line) const { return max(pixel(line), 0); }

  // Whether this warp meets a band.
  __device__ __forceinline__ bool meets(const MmaStep& step) const {
    return unsigned(step.band - band()) <= unsigned(p.window.h) / 2;
  }
  // Octets of a step that each warp meets in a line.
  __device__ __forceinline__ int octets(const MmaStep& step) const {
    return min(p.span, p.octets - step.chunk * p.span);
  }
  // The columns of a step, in `line`, that lie in the window of this thread's pixel in `of_line`
  // and exist: a word of MmaWindow.
  __device__ __forceinline__ uint32_t columns(const MmaStep& step, int line, int of_line) const {
    const int w = first_pixel(of_line) + r();
    const Limits present = columns();
    const int low = max(w - p.before.w, present.low);
    const int end = min(w + p.after.w, present.high) + 1;
    const int first = first_pixel(line) + first_column(step) + 2 * t();
    return bits_before(end - first) & ~bits_before(low - first);
  }
  // The same in the rows of the windows. Unless the grid is flat, columns are the same for both
  // lines; with one step per band, `in_line` has those of every step.
  __device__ __forceinline__ MmaWindow window(const MmaStep& step, uint32_t in_line) const {
    const int rows = 2 * (step.band - band());  // from the window's first row of the upper pixel
    const bool differs = p.is_flat() || p.chunks > 1;
    const Limits present = this->rows();
    MmaWindow window;
#pragma unroll
    for (int line = 0; line < 2; ++line) {
      const int h = top(step) + line * p.line_h;
      const bool exists = present.low <= h && h <= present.high;
#pragma unroll
      for (int of_line = 0; of_line < 2; ++of_line) {
        const int offset = rows + (line - of_line) * p.line_h;
        const bool is_inside = exists && unsigned(offset) < unsigned(p.window.h);
        const uint32_t inside = differs ? columns(step, line, of_line) : in_line;
        window.inside[line][of_line] = is_inside ? inside : 0;
      }
    }
    return window;
  }

 private:
  __device__ __forceinline__ int* table() const {
    return reinterpret_cast<int*>(dynamic_shared_memory + p.table);
  }

  // Fills the table: where planes, rows and columns of the halo are in memory, and rows and columns
  // of the tile. The place of a pixel is a sum of these.
  __device__ __forceinline__ void tabulate(const Extents& class_number, int last_plane,
                                           const MmaClass& c) const {
    const Extents &size = p.halo.size, &length = p.halo.length;
    // A class without neighbours reads any pixels.
    const Extents first{min(class_number.d, size.d - 1), min(class_number.h, size.h - 1),
                        min(class_number.w, size.w - 1)};
    for (int i = threadIdx.x; i < p.table_size; i += kMmaThreads) {
      int at;
      if (i < p.rows_at) {
        const int d =
            wrapped(origin.d - p.before.d + i, length.d, {p.planes_present.low, last_plane});
        at = (first.d + p.stride_d.at(d)) * size.h * size.w;
      } else if (i < p.columns_at) {
        const int j = i - p.rows_at;
        const int h =
            wrapped(origin.h - p.before.h + j, length.h, {p.rows_present.low, c.row_end - 1});
        at = (first.h + p.stride_h.at(h)) * size.w;
      } else if (i < p.tile_rows_at) {
        const int w = origin.w - p.margin * p.octet_step + i - p.columns_at;
        const int high = p.granule > 1 ? p.granules.high : c.column_end - 1;
        at = first.w + pixel_at(w, length.w, {p.granules.low, high});
      } else if (i < p.tile_columns_at) {
        const int h = min(origin.h + i - p.tile_rows_at, c.length.h - 1);
        const int plane = class_number.d + p.stride_d.at(min(origin.d, c.length.d - 1));
        at = (plane * p.tile.size.h + class_number.h + p.stride_h.at(h)) * p.tile.size.w;
      } else {
        at = class_number.w +
             pixel_at(origin.w + i - p.tile_columns_at, c.length.w, {0, c.length.w - p.granule});
      }
      table()[i] = at;
    }
  }
  // The pixel at column `w`, wrapped, of `n` from the first one on. Pixels of a granule stay
  // together, of which the first one is in `limits`.
  __device__ __forceinline__ int pixel_at(int w, int n, const Limits& limits) const {
    const int of_granule = w & (p.granule - 1);
    return p.stride_w.at(wrapped(w - of_granule, n, limits)) + of_granule;
  }

  // The bits of a word of MmaWindow for columns before `column`, from that of bit 0 on.
  __device__ __forceinline__ uint32_t bits_before(int column) const {
    column = max(column, 0);
    const int bits = (column >> p.log_octet_step) * 2 + min(column & (p.octet_step - 1), 2);
    return static_cast<uint32_t>((uint64_t(1) << min(bits, 32)) - 1);
  }
};

}  // namespace circulant
