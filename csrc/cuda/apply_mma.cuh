// A block of apply on tensor cores: the runs of entries of its steps.
#pragma once

#include <type_traits>

#include "entry_runs.cuh"
#include "map_mma.cuh"

namespace circulant {

// Two neighbours of a row of a left factor.
template <class T>
__device__ __forceinline__ uint32_t pair_of(T low, T high) {
  return uint32_t(low.x) | uint32_t(high.x) << 16;
}

// All bits of the halves for which bits 0 and 16 are set.
__device__ __forceinline__ uint32_t mask_of(uint32_t bits) { return (bits & 0x10001u) * 0xffffu; }

// Steps that have a table of runs at a time: up to three in shared memory, and the next one.
constexpr int kTables = 4;

// The runs of a row of the tile in a step.
struct alignas(16) RunsOfRow {
  int64_t entries;  // in a group of A, the run of the pixel in column 0; -1 if there are none
  int shift;        // of the first run, see run_shift
  int has_words;    // whether the last word of 16 bytes of each run lies in A
};

template <class T, int D, bool transposed>
struct ApplyBlock : MapBlock<T, D> {
  using Base = MapBlock<T, D>;
  using Base::p, Base::origin;

  // In shared memory.
  RunsOfRow* const table;         // [kTables][tile_h]
  Column* const columns_of_runs;  // [image_pixels]
  unsigned* const spoiled;        // [stages]: the last step with a value that is not finite

  __device__ __forceinline__ ApplyBlock(const MapMmaPlan& p, int tile)
      : Base(p, tile),
        table(reinterpret_cast<RunsOfRow*>(dynamic_shared_memory + p.numbers)),
        columns_of_runs(reinterpret_cast<Column*>(table + kTables * p.tile_h)),
        spoiled(reinterpret_cast<unsigned*>(columns_of_runs + p.image_pixels)) {}

  __device__ __forceinline__ T* runs(int stage) const {
    return reinterpret_cast<T*>(dynamic_shared_memory + stage * p.stage + p.image);
  }
  // The column of the first run of a row, not wrapped.
  __device__ __forceinline__ int first_run() const {
    return transposed ? this->first_column() : origin.w;
  }
  __device__ __forceinline__ const RunsOfRow* runs_of(const MapStep& step) const {
    return table + step.index % kTables * p.tile_h;
  }

  // Fills the columns of the runs.
  __device__ __forceinline__ void tabulate_columns() const {
    const Axis w = undilated(p.pattern.w()), owner = transposed ? w.transposed() : w;
    for (int q = threadIdx.x; q < p.image_pixels; q += blockDim.x) {
      const int j = first_run() + q;
      const bool exists = transposed ? has_key(w, j) : j < w.size;
      const int pixel = !exists ? -1 : transposed ? wrapped(j, w.keys, p.columns_present) : j;
      const int first = owner.first_offset(max(pixel, 0));
      // A pixel of the tile meets one across a border only if that one's window crosses it, too.
      columns_of_runs[q] = {pixel != j && first == 0 ? -1 : pixel, first};
    }
  }
  // Fills the runs of a step. `values` are those of a group.
  __device__ __forceinline__ void tabulate_runs(const T* values, int64_t g,
                                                const MapStep& step) const {
    const Pattern& pattern = p.pattern;
    const Extents& window = pattern.window;
    const int K = static_cast<int>(pattern.offsets());
    for (int i = threadIdx.x; i < p.tile_h; i += blockDim.x) {
      Axis of_d = undilated(pattern.d()), of_h = undilated(pattern.h());
      int d = origin.d, h = origin.h + i, a = step.plane, b = step.row - i;
      const bool meets = h < of_h.size && unsigned(b) < unsigned(window.h) && this->exists(step);
      int width = pattern.size.w;
      if (transposed) {
        d = step.d;
        h = wrapped(this->step_row(step), of_h.keys, p.rows_present);
        of_d = of_d.transposed();
        of_h = of_h.transposed();
        a = window.d - 1 - a;
        b = window.h - 1 - b;
        width = pattern.keys.w;
      }
      const int slot =
          (of_d.slot_of_offset(d, a) * window.h + of_h.slot_of_offset(h, b)) * window.w;
      const int64_t of_row = int64_t(width) * K, rows = of_d.size * of_h.size;
      const int64_t row = d * of_h.size + h, entries = row * of_row + slot;
      // The first run has the shift of column 0: it is a multiple of 8 columns away.
      table[step.index % kTables * p.tile_h + i] = {
          meets ? entries : -1,
          static_cast<int>((run_shift(values) + unsigned(entries)) & (kRunWord - 1)),
          (p.groups * rows - (g * rows + row + 1)) * of_row >= kRunWord};
    }
  }

  // Starts to copy the runs of a step: words of 16 bytes, or at borders entry by entry.
  __device__ __forceinline__ void copy_runs(const T* values, const MapStep& step) const {
    const int log = p.log_lanes, part = opaque(threadIdx.x) & ((1 << log) - 1);
    const int K = static_cast<int>(p.pattern.offsets()), window = p.pattern.window.w;
    const int count = p.tile_h * p.image_pixels;
    const RunsOfRow* const of_rows = runs_of(step);
    T* const image = runs(step.stage);
#pragma unroll 1
    for (int u = opaque(threadIdx.x) >> log; u < count; u += blockDim.x >> log) {
      const int i = static_cast<int>(uint64_t(p.image_inverse) * unsigned(u) >> 32);
      const int q = u - i * p.image_pixels;
      const RunsOfRow of_row = of_rows[i];
      const Column column = columns_of_runs[q];
      if (of_row.entries < 0 || column.pixel < 0) continue;
      const T* const from = values + (of_row.entries + int64_t(column.pixel) * K);
      T* const to = image + (u * p.pitch + of_row.shift);
      if (column.first == 0 && of_row.has_words) {
        const int shift = (of_row.shift + unsigned(q) * K) & (kRunWord - 1);
#pragma unroll 1
        for (int at = part * kRunWord - shift; at < window; at += kRunWord << log)
          copy_async<16>(to + at, from + at);
      } else {
#pragma unroll 1
        for (int tap = part; tap < window; tap += 1 << log)
          to[tap] = from[rotated(tap, column.first, window)];
      }
    }
  }

  // Whether a feature that this thread copied is not finite: all bits of its exponent are set.
  __device__ __forceinline__ bool copied_spoiled(const MapStep& step, int channels) const {
    constexpr uint32_t one = std::is_same<T, c10::Half>::value ? 0x0400 : 0x0080;
    uint32_t found = 0;
    this->each_octet(p.positions, [&](int o, const Share& share) {
      const T* from = this->halo(step.stage) + o * Base::kOctetValues + share.channel * kOctet;
#pragma unroll 1
      for (int c = share.channel; c < channels; c += share.step, from += share.step * kOctet) {
        const auto octet = *reinterpret_cast<const Pack<uint32_t, 4>*>(from);
#pragma unroll
        for (int i = 0; i < 4; ++i) found |= (octet.at[i] & 0x7fff7fffu) + (one << 16 | one);
      }
    });
    return found & 0x80008000u;
  }
};

}  // namespace circulant
