// Prints the work items of a grid, for test_schedule.py.
//
//   items D H W  d h w  groups channels threads  truncated
//
// One line per item of the forward ops: "item" and the spans of planes, rows and columns. One
// line per phase of attention_backward, "phase", and one per item in it: "pairs", the group, the
// spans of the queries, of the key planes, key rows and offsets, whether dq is stored, and the
// stored rows.

#include <cstdio>
#include <cstdlib>

#include "../../../csrc/cpu/items.h"
#include "../../../csrc/cpu/pairs.h"

using namespace circulant;

void print(const Span& span) {
  std::printf(" %lld %lld", static_cast<long long>(span.begin), static_cast<long long>(span.end));
}

void print(const WorkItem& item) {
  std::printf(" %lld", static_cast<long long>(item.group));
  for (const Span& span : {item.planes, item.rows, item.columns}) print(span);
}

int main(int, char** arguments) {
  const auto number = [&](int i) -> int64_t { return std::atoll(arguments[1 + i]); };
  Geometry g{{number(0), number(1), number(2)}, {number(3), number(4), number(5)}};
  for (Dim& dim : g.dims) dim.circular = number(9) == 0 || dim.window == 1;
  for (const WorkItem& item : independent_items(g, number(6), number(8))) {
    std::printf("item");
    print(item);
    std::printf("\n");
  }
  const PairPhases all = pair_phases(g, number(6), pair_cut(g, number(6), number(7)));
  std::printf("zeros %d\n", all.zeros);
  for (const std::vector<PairItem>& phase : all.phases) {
    std::printf("phase\n");
    for (const PairItem& item : phase) {
      std::printf("pairs");
      print(item.queries);
      for (const Span& span : {item.key_planes, item.key_rows, item.offsets}) print(span);
      std::printf(" %d", !item.add_dq);
      print(item.stored_rows);
      std::printf("\n");
    }
  }
}
