// The cut of attention_backward into pairs of blocks of queries and of keys.
//
// Its items add to dq of their queries and to dk and dv of their keys, so items that run at the
// same time must not share any of them. The planes, the rows and the columns of the grid are cut
// into blocks of queries, and phases follow each other:
//
// Rotating dims (planes, rows): in phase s, the queries of block i meet the keys of block i + s,
// modulo the number of blocks, for s = 0, 1, -1, 2 ... up to the reach of the window. Blocks have
// any size, but each phase packs its queries and keys. In a dim that is not circular the keys
// beyond its ends are absent, or are those of a halo.
//
// Alternating dims (rows, columns): the queries of a block meet all of their keys, up to the reach
// of the window beyond the block: first those of every second block, then of the others. Blocks are
// at least as long as the window.
//
// Segments: of a long window, some offsets along columns at a time. The columns alternate, with
// blocks at least as long as a segment.
//
// Classes of dilated planes or rows share no keys: all of them run in each phase.
//
// The cut depends on the shape alone, and with it the order of all additions: results have the same
// bits for any number of threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../common/integers.h"
#include "classes.h"
#include "params.h"

namespace circulant {

// The number of blocks of planes, rows and columns, and of segments of the offsets along columns.
// Planes rotate, columns alternate, and rows do as `rows_rotate` says.
struct PairCut {
  int64_t planes, rows, columns, segments;
  bool rows_rotate;
};

constexpr int64_t kPairRowsTogether = 4;

// The estimated time of the phases on some threads, in units of a pair of a query and a key. Planes
// and rows are those of the smallest class.
class PairCost {
 public:
  PairCost(const Geometry& g, int64_t groups, int64_t channels)
      : planes_(g.dims[0].of_class(g.dims[0].classes() - 1)),
        rows_(g.dims[1].of_class(g.dims[1].classes() - 1)),
        columns_(g.dims[2]),
        groups_(groups * g.dims[0].classes() * g.dims[1].classes()),
        channels_(std::max<int64_t>(channels, 1)) {}

  double time(const PairCut& cut, int64_t threads) const {
    // The fraction of the blocks that run in one phase.
    const int64_t alternating =
        (cut.columns > 1 ? 2 : 1) * (cut.rows > 1 && !cut.rows_rotate ? 2 : 1);
    const int64_t items = groups_ * cut.planes * cut.rows * cut.columns / alternating;
    const double phases = alternating * cut.segments * rotations(planes_, planes(cut)) *
                          (cut.rows_rotate ? rotations(rows_, rows(cut)) : 1);
    return alternating * divide_up(items, threads) * block_time(cut) + phases * kPhase / channels_;
  }

  // The segments whose weights fit the scratch memory of a thread; 0 if no cut fits.
  int64_t segments(const PairCut& cut) const {
    const int64_t key_rows = std::min<int64_t>(4, planes_.window * (rows_.window + 3));
    const int64_t query_rows = std::min<int64_t>(4, rows_.size);
    const int64_t width = columns(cut), window = columns_.window;
    for (int64_t n = 1;; ++n) {
      const int64_t segment = divide_up(window, n);
      if (segment < std::min(window, kShortestSegment)) return 0;
      const int64_t reach = columns_.dilation * (segment - 1);
      if (cut.columns > 1 && columns_.size / cut.columns <= reach) continue;
      const bool wrap = cut.columns == 1 && columns_.circular;
      const int64_t keys = wrap ? width : std::min(width + reach, columns_.keys);
      if (2 * key_rows * query_rows * segment * keys <= kWeights) return n;
    }
  }

 private:
  // A pixel packed or stored, and the start of a phase in all channels.
  static constexpr double kPacking = 35, kPhase = 80000;
  // Elements of the weights of an item, and the least offsets of a segment.
  static constexpr int64_t kWeights = 1 << 19, kShortestSegment = 32;

  int64_t planes(const PairCut& cut) const { return divide_up(planes_.size, cut.planes); }
  int64_t rows(const PairCut& cut) const {
    const int64_t count = divide_up(divide_up(rows_.size, kPairRowsTogether), cut.rows);
    return std::min(rows_.size, count * kPairRowsTogether);
  }
  int64_t columns(const PairCut& cut) const { return divide_up(columns_.size, cut.columns); }
  // The phases of a rotating dim with blocks of `block` planes or rows.
  static int64_t rotations(const Dim& dim, int64_t block) {
    return block >= dim.size ? 1 : 1 + divide_up(dim.before, block) + divide_up(dim.after(), block);
  }

  // All phases of one block of queries.
  double block_time(const PairCut& cut) const {
    const int64_t d = planes(cut), h = rows(cut), c = columns(cut);
    const double window = double(planes_.window) * double(rows_.window) * double(columns_.window);
    const double segment = columns_.dilation * divide_up(columns_.window, cut.segments);
    const double key_rows = h + rows_.window - 1, query_rows = cut.rows_rotate ? key_rows : h;
    const double query_planes = cut.planes > 1 ? d + planes_.window - 1 : d;
    const double pairs = double(d * h * c) * window;
    const double packed = cut.segments * (d * planes_.window * key_rows * (c + segment) +
                                          query_planes * query_rows * c);
    // Products with transposed weights, 2 of 5, are computed for all keys of an item.
    return pairs * (cut.columns > 1 ? 1 + 0.4 * segment / c : 1) + kPacking * packed;
  }

  const Dim planes_, rows_, columns_;
  const int64_t groups_, channels_;
};

// The rows of the shortest block of alternating rows. The last block may lack some of its last
// four.
inline int64_t shortest_block(int64_t rows, int64_t blocks) {
  const int64_t shortest = divide_up(rows, kPairRowsTogether) / blocks * kPairRowsTogether;
  return std::min(shortest, part_of(rows, blocks - 1, blocks, kPairRowsTogether).size());
}

// The cut with the least sum of the times on 1, 2, 4, 8 and 16 threads.
inline PairCut pair_cut(const Geometry& g, int64_t groups, int64_t channels) {
  constexpr int64_t kFewestColumns = 64;
  const PairCost cost(g, groups, channels);
  // Those of the smallest class.
  const int64_t plane_count = g.dims[0].of_class(g.dims[0].classes() - 1).size;
  const int64_t row_count = g.dims[1].of_class(g.dims[1].classes() - 1).size;
  const int64_t blocks_of_rows = divide_up(row_count, kPairRowsTogether);
  PairCut best{1, 1, 1, 0, false};
  double best_time = 0;
  for (int64_t columns = 1; columns == 1 || g.dims[2].size / columns >= kFewestColumns;
       columns *= 2) {
    for (int64_t planes = 1; planes <= plane_count; planes *= 2) {
      for (int64_t rows : {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64}) {
        if (rows > blocks_of_rows) break;
        for (const bool rotate : {false, true}) {
          if (rotate ? rows == 1 : rows % 2 == 1 && rows > 1) continue;
          if (!rotate && rows > 1 && shortest_block(row_count, rows) < g.dims[1].window) continue;
          PairCut cut{planes, rows, columns, 0, rotate};
          cut.segments = cost.segments(cut);
          if (cut.segments == 0) continue;
          double time = 0;
          for (int64_t threads : {1, 2, 4, 8, 16}) time += cost.time(cut, threads);
          if (best.segments == 0 || time < best_time) {
            best = cut;
            best_time = time;
          }
        }
      }
    }
  }
  return best;
}

// The queries and the keys of an item along one dim, and the keys that the item is the first to
// meet.
struct PairSpans {
  Span queries, keys, first;
};

// Block i of a rotating dim in phase s, without queries and keys that have no partner.
inline PairSpans rotating_spans(const Dim& dim, int64_t blocks, int64_t multiple, int64_t i,
                                int64_t s) {
  const auto begin_of = [&](int64_t n) {
    const int64_t turn = n >= 0 ? n / blocks : -divide_up(-n, blocks);
    return turn * dim.size + part_of(dim.size, n - turn * blocks, blocks, multiple).begin;
  };
  const Span queries{begin_of(i), begin_of(i + 1)};
  Span keys{begin_of(i + s), begin_of(i + s + 1)};
  if (!dim.circular) keys = {std::max<int64_t>(keys.begin, 0), std::min(keys.end, dim.keys)};
  return {{std::max(queries.begin, keys.begin - dim.after()),
           std::min(queries.end, keys.end + dim.before)},
          {std::max(keys.begin, queries.begin - dim.before),
           std::min(keys.end, queries.end + dim.after())},
          s == 0 ? keys : Span{}};
}

// Block i of an alternating dim, and all of its keys. A single block is the first to meet the keys
// of the grid, but windows may reach around a circle.
inline PairSpans alternating_spans(const Dim& dim, int64_t blocks, int64_t multiple, int64_t i) {
  const Span queries = part_of(dim.size, i, blocks, multiple);
  const Span keys{queries.begin - dim.before, queries.end + dim.after()};
  if (blocks == 1) {
    const int64_t first = dim.circular ? keys.begin : 0;
    return {queries, keys, {first, first + dim.keys}};
  }
  if (i % 2 == 0) return {queries, keys, keys};
  const bool at_end = !dim.circular && i == blocks - 1;
  return {
      queries, keys, {queries.begin + dim.after(), at_end ? dim.keys : queries.end - dim.before}};
}

// The numbers of the phases of a rotating dim; phases without work are among them.
inline std::vector<int64_t> rotation_numbers(const Dim& dim, int64_t blocks) {
  const Dim smallest = dim.of_class(dim.classes() - 1);
  const int64_t last = blocks > 1 ? blocks * divide_up(smallest.keys, smallest.size) : 0;
  std::vector<int64_t> numbers{0};
  for (int64_t s = 1; s <= last; ++s) numbers.insert(numbers.end(), {s, -s});
  return numbers;
}

// The items of all groups in one phase of rows and of planes.
struct PairPhase {
  int64_t plane_rotation, row_phase, column_parity;
  Span offsets;
  // Whether items store what they are the first to meet; if not, they add.
  bool stores_dq, stores_dk_dv;
};

inline std::vector<PairItem> pair_items(const Geometry& g, int64_t groups, const PairCut& cut,
                                        const PairPhase& phase) {
  std::vector<PairItem> items;
  int64_t first_block = 0;
  const bool rows_alternate = !cut.rows_rotate && cut.rows > 1;
  const auto add_items = [&](int64_t group, int64_t plane_class, int64_t row_class,
                             const Geometry& own) {
    for (int64_t p = 0; p < cut.planes; ++p) {
      const PairSpans d = cut.planes == 1
                              ? alternating_spans(own.dims[0], 1, 1, 0)
                              : rotating_spans(own.dims[0], cut.planes, 1, p, phase.plane_rotation);
      if (d.queries.size() <= 0 || d.keys.size() <= 0) continue;
      for (int64_t r = rows_alternate ? phase.row_phase : 0; r < cut.rows;
           r += rows_alternate ? 2 : 1) {
        const PairSpans h =
            cut.rows_rotate
                ? rotating_spans(own.dims[1], cut.rows, kPairRowsTogether, r, phase.row_phase)
                : alternating_spans(own.dims[1], cut.rows, kPairRowsTogether, r);
        if (h.queries.size() <= 0 || h.keys.size() <= 0) continue;
        for (int64_t c = phase.column_parity; c < cut.columns; c += 2) {
          const int64_t block = ((first_block + p) * cut.rows + r) * cut.columns + c;
          items.push_back({{group, d.queries, h.queries, part_of(g.dims[2].size, c, cut.columns),
                            plane_class, row_class},
                           d.keys,
                           h.keys,
                           phase.offsets,
                           !phase.stores_dq,
                           phase.stores_dk_dv ? h.first : Span{},
                           block});
        }
      }
    }
  };
  for (int64_t group = 0; group < groups; ++group) {
    for_each_class(g, [&](int64_t plane_class, int64_t row_class, const Geometry& own) {
      add_items(group, plane_class, row_class, own);
      first_block += cut.planes;
    });
  }
  return items;
}

// The blocks of queries of a group.
inline int64_t blocks_of_group(const Geometry& g, const PairCut& cut) {
  return g.dims[0].classes() * g.dims[1].classes() * cut.planes * cut.rows * cut.columns;
}

struct PairPhases {
  std::vector<std::vector<PairItem>> phases;
  // Whether dk and dv must be zero at the start; otherwise the items store all of them.
  bool zeros;
};

inline PairPhases pair_phases(const Geometry& g, int64_t groups, const PairCut& cut) {
  // Items meet parts of rows, or, for several planes of queries, the same rows again, or, in a halo
  // or where segments of the columns do not wrap, not all of them.
  const bool parts = cut.columns > 1 || (cut.segments > 1 && !g.dims[2].circular);
  PairPhases result{{}, g.dims[0].window > 1 || parts || g.dims[1].keys != g.dims[1].size};
  const std::vector<int64_t> alternation{0, 1};
  for (int64_t segment = 0; segment < cut.segments; ++segment) {
    const Span offsets = part_of(g.dims[2].window, segment, cut.segments);
    for (int64_t plane_rotation : rotation_numbers(g.dims[0], cut.planes)) {
      for (int64_t row_phase :
           cut.rows_rotate || cut.rows == 1 ? rotation_numbers(g.dims[1], cut.rows) : alternation) {
        const bool first_queries = plane_rotation == 0 && segment == 0;
        const bool stores_dq = first_queries && (!cut.rows_rotate || row_phase == 0);
        for (int64_t parity = 0; parity < std::min<int64_t>(2, cut.columns); ++parity) {
          auto items = pair_items(g, groups, cut,
                                  {plane_rotation, row_phase, parity, offsets, stores_dq,
                                   first_queries && !result.zeros});
          if (!items.empty()) result.phases.push_back(std::move(items));
        }
      }
    }
  }
  return result;
}

}  // namespace circulant
