// The place of a block, a warp and a thread of fused attention on tensor cores: in the grid, in the
// halo, and in the window.
#pragma once

#include <cuda_runtime.h>

#include "attention_mma.h"
#include "launch.h"
#include "mma_step.cuh"
#include "packed.cuh"

namespace circulant {

// The coordinate of a position of the halo in a dim of n pixels. Positions beyond `limits` are in
// no window; they are clamped, so that one addition wraps.
__device__ __forceinline__ int wrapped(int i, int n, const MmaLimits& limits) {
  i = min(max(i, limits.low), limits.high);
  return i < 0 ? i + n : (i >= n ? i - n : i);
}

struct MmaPlace {
  const MmaPlan& p;
  Extents origin;           // the first position of the tile in its class
  MmaLimits planes, bands;  // of the halo that exist

  // After the next barrier, of_class() is complete.
  __device__ __forceinline__ explicit MmaPlace(const MmaPlan& p) : p(p) {
    // Neighbouring blocks have other classes of the same tile: they read the same sectors of
    // memory.
    const int index = blockIdx.x, tile = index / p.class_count, row = tile / p.tiles_across;
    origin = {row / p.tiles_down, row % p.tiles_down * p.tile_h, tile % p.tiles_across * p.tile_w};
    const int number = index % p.class_count, number_d = number / p.classes.w / p.classes.h,
              number_h = number / p.classes.w % p.classes.h, number_w = number % p.classes.w;
    // Other classes have one pixel less.
    const Extents& longest = p.halo.longest;
    const int last_plane = p.planes_present.high - (number_d >= longest.d),
              last_row = p.rows_present.high - (number_h >= longest.h);
    if (threadIdx.x == 0) {
      const Extents &tile_size = p.tile.size, &size = p.halo.size, &length = p.tile.length;
      of_class() = {
          (number_d * tile_size.h + number_h) * tile_size.w + number_w,
          // A class without neighbours reads any, at position 0.
          (min(number_d, size.d - 1) * size.h + min(number_h, size.h - 1)) * size.w +
              min(number_w, size.w - 1),
          {length.d - (number_d >= p.tile.longest.d), length.h - (number_h >= p.tile.longest.h),
           length.w - (number_w >= p.tile.longest.w)},
          last_row + 1,
          p.columns_present.high + 1 - (number_w >= longest.w)};
    }
    const int d = origin.d - p.before.d, h = origin.h - p.before.h;
    planes = {max(p.planes_present.low - d, 0), min(last_plane - d, p.window.d - 1)};
    bands = {max(p.rows_present.low - h, 0) / 2, min((last_row - h) / 2, p.bands - 1)};
  }
  __device__ __forceinline__ MmaClass& of_class() const {
    return *reinterpret_cast<MmaClass*>(dynamic_shared_memory + p.place);
  }
  // Positions of neighbours that exist.
  __device__ __forceinline__ MmaLimits rows() const {
    return {p.rows_present.low, of_class().row_end - 1};
  }
  __device__ __forceinline__ MmaLimits columns() const {
    return {p.columns_present.low, of_class().column_end - 1};
  }
  // The first pixel of a line at positions d and h of the class that begins with pixel `first`.
  // With `hides`, nothing of it is kept in registers: kernels with 128 channels have none.
  template <bool hides = false>
  __device__ __forceinline__ int row_start(const MmaGrid& grid, int first, int d, int h) const {
    if (hides ? opaque(p.is_dilated) : p.is_dilated) {
      if (hides) d = opaque(d), h = opaque(h);
      d = p.stride_d.at(d), h = p.stride_h.at(h);
    }
    return first + (d * grid.size.h + h) * grid.size.w;
  }
  // The pixel at position w of a line, from its first one on.
  __device__ __forceinline__ int column(int w) const {
    return opaque(p.is_dilated) ? p.stride_w.at(opaque(w)) : w;
  }

  // Of the thread: see warp.cuh.
  static __device__ __forceinline__ int lane() { return opaque(threadIdx.x) % 32; }
  static __device__ __forceinline__ int r() { return lane() / 4; }
  static __device__ __forceinline__ int t() { return lane() % 4; }
  // Of the warp, in the tile.
  static __device__ __forceinline__ int warp() { return opaque(threadIdx.x) / 32; }
  __device__ __forceinline__ int band() const { return warp() >> p.log_across; }
  __device__ __forceinline__ int octet() const { return warp() & (p.across - 1); }

  // Where a line begins: its first pixel, and its first column, not wrapped.
  struct Line {
    int start, column;
  };
  __device__ __forceinline__ Line tile_line(int line) const {
    const MmaClass& c = of_class();
    const int d = min(origin.d, c.length.d - 1);
    const int h = min(origin.h + line * p.line_h, c.length.h - 1);
    return {row_start(p.tile, c.tile, d, h), origin.w + line * p.line_w};
  }
  template <bool hides>
  __device__ __forceinline__ Line halo_line(const MmaStep& step, int line) const {
    const Extents& length = p.halo.length;
    const int d = wrapped(origin.d + step.plane - p.before.d, length.d, p.planes_present);
    const int h = wrapped(top(step) + line * p.line_h, length.h, rows());
    return {row_start<hides>(p.halo, of_class().halo, d, h),
            origin.w + first_column(step) + line * p.line_w};
  }
  // The row of line 0 of a step, not wrapped.
  __device__ __forceinline__ int top(const MmaStep& step) const {
    return origin.h + 2 * step.band - p.before.h;
  }
  // The first column of a step, from that of the tile on.
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
    return row_start(p.tile, c.tile, d, h) + column(w);
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
    const MmaLimits present = columns();
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
    const MmaLimits present = this->rows();
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
  // The bits of a word of MmaWindow for columns before `column`, from that of bit 0 on.
  __device__ __forceinline__ uint32_t bits_before(int column) const {
    column = max(column, 0);
    const int bits = (column >> p.log_octet_step) * 2 + min(column & (p.octet_step - 1), 2);
    return static_cast<uint32_t>((uint64_t(1) << min(bits, 32)) - 1);
  }
};

}  // namespace circulant
