// Where the keys of a work item, and the queries in their windows, are in packed rows of sums.
#pragma once

#include <cstdint>

#include "../params.h"
#include "arena.h"
#include "packing.h"

namespace circulant::simd::CIRCULANT_INSTRUCTION_SET {

// The columns of the keys that a work item adds to.
//
// An item as wide as a circle has the columns of the grid, and windows wrap around its border.
// Others have the keys at all of their offsets that are not absent.
struct KeyColumns {
  Span queries;
  Dim dim;
  Span offsets;

  bool wrap() const { return dim.circular && queries.size() == dim.size; }
  // The offsets of the item, and the distance from a query to the key at the first of them.
  int64_t window() const { return offsets.size(); }
  int64_t shift() const { return dim.dilation * (offsets.begin - dim.before); }
  // The distance from the first to the last key of a query.
  int64_t reach() const { return dim.dilation * (window() - 1); }
  // The grid's columns of the keys; those of a circle may be outside of the grid.
  Span keys() const {
    if (wrap()) return {0, dim.size};
    return present(dim, queries.begin + shift(), queries.end + shift() + reach());
  }
  int64_t count() const { return keys().size(); }
  // The most keys that an item of this size has, wherever it is: items of the same size need the
  // same scratch memory.
  int64_t most() const {
    const int64_t keys = queries.size() + reach();
    return wrap() ? dim.size : dim.circular ? keys : smaller(keys, dim.keys);
  }
  int64_t begin() const { return keys().begin; }
  // The key at the first offset of the item's first query, counted from the first key; negative if
  // it is beyond a border.
  int64_t first_key() const { return queries.begin + shift() - begin(); }
  // Packs a row of queries so that the query that has key n at offset d is at [n + reach() - d *
  // dilation]. Queries outside of the item are zeros, and those without keys are left out.
  Placement packed_queries() const {
    const Dim of_queries = dim.transposed();
    const int64_t first = first_key() + reach(), end = count() + reach();
    if (wrap()) return {-first, end, 0, of_queries};
    const int64_t at = smaller(larger(first, 0), end);
    const int64_t last = larger(smaller(first + queries.size(), end), at);
    return {queries.begin + at - first, last - at, at, of_queries};
  }
  template <class T>
  int64_t query_pitch() const {
    return odd_unaligned_pitch<T>(round_up(most(), kLanes<T>) + reach());
  }
  template <class T>
  int64_t key_pitch() const {
    return odd_pitch<T>(round_up(most(), kLanes<T>));
  }
};

}  // namespace circulant::simd::CIRCULANT_INSTRUCTION_SET
