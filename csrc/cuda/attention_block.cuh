// The shared memory of a block of fused attention: its parts, a thread's place in them, copies.
#pragma once

#include <cuda_runtime.h>

#include "attention_plan.h"
#include "copies.cuh"
#include "launch.h"
#include "packed.cuh"
#include "staging.cuh"

namespace circulant {

template <class A>
struct AttentionBlock {
  const AttentionPlan& p;

  static __device__ __forceinline__ int lane() { return opaque(threadIdx.x) % 32; }
  static __device__ __forceinline__ int warp() { return opaque(threadIdx.x) / 32; }
  // A thread's first pixel in the order of AttentionTable::pixel.
  static __device__ __forceinline__ int tile_pixel() { return lane() * kThreadPixels; }
  // The first channel of the block's sums.
  __device__ __forceinline__ int first_channel() const {
    return opaque(blockIdx.x) % p.channel_blocks * kBlockChannels<A>;
  }

  // ---- shared memory ----

  // [strip, tap][kTilePixels]
  __device__ __forceinline__ A* weights() const {
    return reinterpret_cast<A*>(dynamic_shared_memory);
  }
  // This thread's weights for a tap of its warp's strip.
  __device__ __forceinline__ A* thread_weights(int tap) const {
    return weights() + (warp() * kStripTaps + tap) * kTilePixels + tile_pixel();
  }
  // The sum of the weights that a warp has computed for this thread's pixels so far.
  __device__ __forceinline__ A* warp_total(int warp) const { return statistic(warp); }
  __device__ __forceinline__ A* total() const { return warp_total(warp()); }
  // The largest score of this step that a warp has found for this thread's pixels.
  __device__ __forceinline__ A* warp_largest(int warp) const {
    return statistic(kAttentionWarps + warp);
  }
  // The largest score so far for this thread's pixels; each warp has a copy of its own.
  __device__ __forceinline__ A* largest() const { return statistic(2 * kAttentionWarps + warp()); }
  __device__ __forceinline__ AttentionTable& table() const {
    return *reinterpret_cast<AttentionTable*>(dynamic_shared_memory + p.table);
  }
  __device__ __forceinline__ Halo halo() const {
    int* const columns =
        reinterpret_cast<int*>(dynamic_shared_memory + p.table + sizeof(AttentionTable));
    return {columns + p.halo_pitch, columns};
  }
  // In place of the largest scores: two numbers for each pixel of the tile, or of the halo.
  __device__ __forceinline__ A* pixel_numbers() const {
    return reinterpret_cast<A*>(dynamic_shared_memory + p.statistics) +
           kAttentionWarps * kTilePixels;
  }
  // The halos of a pass of the sums, [channel][halo_size].
  __device__ __forceinline__ A* staged() const {
    return reinterpret_cast<A*>(dynamic_shared_memory + p.staging);
  }
  // In its place, one of two chunks of the products, [channel][kTilePixels and halo_size].
  __device__ __forceinline__ A* staged_chunk(int which) const {
    return staged() + which * p.chunk * channel_pitch();
  }
  __device__ __forceinline__ int channel_pitch() const { return kTilePixels + halo_size(); }

  // ---- the table ----

  // How many taps of the window this thread's warp computes products for.
  __device__ __forceinline__ int warp_taps() const {
    return warp() < p.strips.per_step ? table().strip_taps[warp()] : 0;
  }
  // Which of the pixels that this thread meets at the taps of its warp's strip exist: bit i + tap
  // for tap `tap` of pixel i.
  __device__ __forceinline__ unsigned present() const {
    const HaloBounds& bounds = table().bounds;
    const int at = thread_halo() + table().strip_halo[warp()], row = at / p.halo_pitch;
    if (!bounds.has_row(row / table().halo_h, row % table().halo_h)) return 0;
    const int first = at % p.halo_pitch;
    unsigned bits = 0;
#pragma unroll 1
    for (int j = 0; j < kThreadPixels + kStripTaps - 1; ++j) {
      bits |= unsigned(bounds.has_column(first + j)) << j;
    }
    return bits;
  }
  // How many values a channel of the halo has.
  __device__ __forceinline__ int halo_size() const { return table().halo_rows * p.halo_pitch; }
  // Where the halo of this thread's first pixel begins, for the first tap of the step.
  __device__ __forceinline__ int thread_halo() const {
    const int row = p.tile.lane_row(lane());
    return (p.tile.row_d(row) * table().halo_h + p.tile.row_h(row)) * p.halo_pitch +
           p.tile.lane_w(lane(), kLogThreadPixels);
  }

  __device__ __forceinline__ Strips strips() const {
    Strips strips = p.strips;
    strips.in_row = opaque(strips.in_row);
    strips.in_plane = opaque(strips.in_plane);
    return strips;
  }
  __device__ __forceinline__ Place place() const { return {p.pattern, table().spot}; }

  // Fills the part of the tile. Complete after the next barrier.
  __device__ __forceinline__ void tabulate_tile() const {
    const Spot spot =
        Spot::of_block(p.pattern, p.tile, static_cast<int>(blockIdx.x) / p.channel_blocks);
    if (threadIdx.x == 0) table().spot = spot;
    const Place place(p.pattern, spot);
    for (int i = threadIdx.x; i < kTilePixels; i += kAttentionThreads) {
      const int lane = i >> kLogThreadPixels,
                start = place.row_start(p.tile, p.tile.lane_row(lane));
      const int w =
          place.w.pixel(p.tile.lane_w(lane, kLogThreadPixels) + (i & (kThreadPixels - 1)));
      table().pixel[i] = start < 0 || w < 0 ? -1 : start + w;
    }
  }

  // Whether no pixel of the tile has a neighbour in the strips of a step.
  __device__ __forceinline__ bool is_empty(int step) const {
    if (!p.pattern.is_bounded()) return false;
    return HaloBounds(place(), p.tile, StepBox(strips(), step)).is_empty();
  }

  // Fills the part of a step. Complete after the next barrier.
  __device__ __forceinline__ void tabulate_step(int step) const {
    const Extents& window = p.pattern.window;
    const Place place = this->place();
    const Strips strips = this->strips();
    const StepBox box(strips, step);
    const int halo_h = box.halo_h(p.tile);
    halo().tabulate(place, p.tile, box);
    if (static_cast<int>(threadIdx.x) < strips.per_step) {
      const Strip strip(strips, step * strips.per_step + threadIdx.x);
      table().strip_halo[threadIdx.x] =
          ((strip.a - box.a) * halo_h + strip.b - box.b) * p.halo_pitch + strip.tap - box.tap;
      table().strip_taps[threadIdx.x] =
          strip.exists(window) ? min(kStripTaps, window.w - strip.tap) : 0;
    }
    if (threadIdx.x == 0) {
      table().halo_h = halo_h;
      table().halo_rows = box.halo_rows(p.tile);
      table().halo_w = box.halo_w(p.tile, window.w);
      table().bounds = HaloBounds(place, p.tile, box);
    }
  }

  // ---- copies to shared memory; called by all lanes of a warp ----

  // Starts to copy the tile of one channel; the first pixel of the grid where the tile is beyond
  // it.
  template <class T>
  __device__ __forceinline__ void start_tile(const T* from, A* to) const {
    const int* const pixel = table().pixel + lane();
    to += lane();
    start_copies_to<A>(
        from, 0, kTilePixels / 32, 1, [&](int i) { return max(pixel[i * 32], 0); },
        [&](int i) { return to + i * 32; });
  }

  // Starts to copy the halo of one channel. Lanes take neighbouring columns. Where a thread waits
  // for its loads, it has some of them in flight, in the same column or in the same row.
  template <class T>
  __device__ __forceinline__ void start_halo(const T* from, A* to) const {
    const Halo halo = this->halo();
    const int rows = table().halo_rows, columns = table().halo_w;
    if (rows < kCopyBatch) {
#pragma unroll 1
      for (int r = 0; r < rows; ++r, to += p.halo_pitch) {
        start_copies_to<A>(
            from + halo.rows[r], lane(), columns, 32, [&](int j) { return halo.columns[j]; },
            [&](int j) { return to + j; });
      }
      return;
    }
#pragma unroll 1
    for (int j = lane(); j < columns; j += 32) {
      start_copies_to<A>(
          from + halo.columns[j], 0, rows, 1, [&](int r) { return halo.rows[r]; },
          [&](int r) { return to + r * p.halo_pitch + j; });
    }
  }

  // Waits for the copies of this thread, and fills absent pixels of `count` halos with zeros, the
  // one of this warp and every eighth after it, `pitch` apart. Complete after the next barrier.
  template <class T>
  __device__ __forceinline__ void finish_halos(A* halos, int count, int pitch) const {
    finish_copies<T, A>();
    if (!table().bounds.lacks) return;
#pragma unroll 1
    for (int c = warp(); c < count; c += kAttentionWarps) clear_absent(halos + c * pitch);
  }

  // Copies numbers of the tile, or of the halo. Complete after the next barrier.
  __device__ __forceinline__ void stage_tile(const A* from, A* to) const {
    start_tile(from, to);
    finish_copies<A, A>();
  }
  __device__ __forceinline__ void stage_halo(const A* from, A* to) const {
    start_halo(from, to);
    finish_copies<A, A>();
    if (table().bounds.lacks) clear_absent(to);
  }

 private:
  // Zeros where pixels of a halo are absent, in the columns that this thread has copied: another
  // thread's copy might come later.
  __device__ __forceinline__ void clear_absent(A* to) const {
    const HaloBounds& bounds = table().bounds;
#pragma unroll 1
    for (int r = 0, d = 0, h = 0; r < table().halo_rows; ++r, to += p.halo_pitch) {
      const bool has_row = bounds.has_row(d, h);
#pragma unroll 1
      for (int j = lane(); j < table().halo_w; j += 32) {
        if (!has_row || !bounds.has_column(j)) to[j] = 0;
      }
      if (++h == table().halo_h) h = 0, ++d;
    }
  }

  // Per warp, a value for each of this thread's pixels.
  __device__ __forceinline__ A* statistic(int row) const {
    return reinterpret_cast<A*>(dynamic_shared_memory + p.statistics) + row * kTilePixels +
           tile_pixel();
  }
};

}  // namespace circulant
