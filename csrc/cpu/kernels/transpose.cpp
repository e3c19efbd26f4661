// The values of the transposed matrix. Entry (i, j) of the result is entry (j, i) of the input:
// from the row of each neighbour, the value that points back. Values are moved as integers of their
// size.
#include "engines.h"
#include "rows.h"

namespace circulant::CIRCULANT_INSTRUCTION_SET {
namespace {

template <class T>
struct Buffers {
  using W = Wide<T>;
  Plan plan;
  RowBuffers<W> rows;
  W* values;
  // From the values of one line of queries, or of keys, to those of the next.
  int64_t values_line, values_key;

  Buffers(const TransposeProblem& p, Arena& arena)
      : plan(plan_tiles<W>(p.geometry, p.groups, 0)),
        rows(max(plan.lines, plan.keys) * plan.taps, arena),
        values_line(plan.taps * plan.pitch),
        values_key(plan.lines * values_line) {
    values = arena.take<W>(plan.keys * values_key);
  }
};

template <class T>
void run(const TransposeProblem& problem, char* scratch, int64_t* next) {
  Arena arena(scratch);
  const Buffers<T> b(problem, arena);
  const Plan& p = b.plan;
  for (int64_t tile; (tile = take_task(next)) < p.tiles;) {
    for_each_step(p, [&](const Step& step) {
      const auto row = [&](int64_t l, int64_t key) {
        return b.values + l * b.values_line + (key - step.first) * b.values_key;
      };
      load_step_back(p, tile, step, b.rows, static_cast<const T*>(problem.values), row);
      store_step(p, tile, step, b.rows, static_cast<T*>(problem.result),
                 [&](int64_t l, int64_t key, int64_t t) {
                   return row(l, key) + (step.taps - 1 - t) * p.pitch + t;
                 });
    });
  }
}

// f(T{}) with the unsigned type T of `bytes` bytes.
template <class F>
auto visit_bytes(int64_t bytes, const F& f) {
  switch (bytes) {
    case 2:
      return f(uint16_t{});
    case 4:
      return f(uint32_t{});
    default:
      return f(uint64_t{});
  }
}

}  // namespace

Work transpose_work(const TransposeProblem& problem) {
  return visit_bytes(problem.element_bytes, [&](auto zero) {
    Arena arena(nullptr);
    const Buffers<decltype(zero)> b(problem, arena);
    return Work{b.plan.tiles, arena.used()};
  });
}

void transpose_run(const TransposeProblem& problem, char* scratch, int64_t* next) {
  visit_bytes(problem.element_bytes,
              [&](auto zero) { run<decltype(zero)>(problem, scratch, next); });
}

}  // namespace circulant::CIRCULANT_INSTRUCTION_SET
