// The place of a block, a warp and a thread of fused attention on tensor cores: in the grid, in the
// halo, and in the window.
#pragma once

#include <cuda_runtime.h>

#include "attention_mma.h"
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
  Extents origin;           // the first pixel of the tile
  MmaLimits planes, bands;  // of the halo that exist

  __device__ __forceinline__ explicit MmaPlace(const MmaPlan& p) : p(p) {
    const int row = blockIdx.x / p.tiles_across;
    origin = {row / p.tiles_down, row % p.tiles_down * p.tile_h,
              int(blockIdx.x) % p.tiles_across * p.tile_w};
    const int d = origin.d - p.before.d, h = origin.h - p.before.h;
    planes = {max(p.planes_present.low - d, 0), min(p.planes_present.high - d, p.window.d - 1)};
    bands = {max(p.rows_present.low - h, 0) / 2, min((p.rows_present.high - h) / 2, p.bands - 1)};
  }

  // Of the thread: see warp.cuh.
  static __device__ __forceinline__ int lane() { return opaque(threadIdx.x) % 32; }
  static __device__ __forceinline__ int r() { return lane() / 4; }
  static __device__ __forceinline__ int t() { return lane() % 4; }
  // Of the warp, in the tile.
  static __device__ __forceinline__ int warp() { return opaque(threadIdx.x) / 32; }
  __device__ __forceinline__ int band() const { return warp() >> p.log_across; }
  __device__ __forceinline__ int octet() const { return warp() & (p.across - 1); }

  // Where a line begins: the first pixel of its grid row, and its first column, not wrapped.
  struct Line {
    int start, column;
  };
  __device__ __forceinline__ Line tile_line(int line) const {
    const Extents& size = p.tile.size;
    const int h = min(origin.h + line * p.line_h, size.h - 1);
    return {(origin.d * size.h + h) * size.w, origin.w + line * p.line_w};
  }
  __device__ __forceinline__ Line halo_line(const MmaStep& step, int line) const {
    const Extents& size = p.halo.size;
    const int d = wrapped(origin.d + step.plane - p.before.d, size.d, p.planes_present);
    const int h = wrapped(top(step) + line * p.line_h, size.h, p.rows_present);
    return {(d * size.h + h) * size.w, origin.w + first_column(step) + line * p.line_w};
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
    const Extents& size = p.tile.size;
    const int h = origin.h + (2 * band() + line) * p.line_h, w = first_pixel(line) + r();
    return h < size.h && w < size.w ? (origin.d * size.h + h) * size.w + w : -1;
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
    const int low = max(w - p.before.w, p.columns_present.low);
    const int end = min(w + p.after.w, p.columns_present.high) + 1;
    const int first = first_pixel(line) + first_column(step) + 2 * t();
    return bits_before(end - first) & ~bits_before(low - first);
  }
  // The same in the rows of the windows. Unless the grid is flat, columns are the same for both
  // lines; with one step per band, `in_line` has those of every step.
  __device__ __forceinline__ MmaWindow window(const MmaStep& step, uint32_t in_line) const {
    const int rows = 2 * (step.band - band());  // from the window's first row of the upper pixel
    const bool differs = p.is_flat() || p.chunks > 1;
    MmaWindow window;
#pragma unroll
    for (int line = 0; line < 2; ++line) {
      const int h = top(step) + line * p.line_h;
      const bool exists = p.rows_present.low <= h && h <= p.rows_present.high;
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
