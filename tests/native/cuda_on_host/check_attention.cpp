// Compares fused attention and its gradients with the definition, computed in float64.
#include "../../../csrc/cuda/attention_plan.h"
#include "attention_checks.h"

namespace check {

void check_attention(const Case& c) {
  if (c.channels == 0) return;  // the ops refuse it
  static int count = 0;
  // More and fewer channels of values than of keys, sometimes more than a block has.
  const auto value_channels = [&c](int count) {
    return count % 3 == 0 ? c.channels + 61 : c.channels % 7 + 1;
  };
  check_kinds(c, count, value_channels, [](AttentionReference& r, auto dtype, const char* name) {
    check_dtype<decltype(dtype)>(r.a, r, name);
  });
}

// Two blocks fit a multiprocessor of 164 or 228 KiB, for the problem of the README and a larger
// one. For that of the README, terms of the scores change neither that nor its steps. With few
// channels a step has as many strips as there are warps, since each step waits.
void check_attention_plan() {
#ifdef CUDA_ON_HOST
  const auto plan_of = [](const Case& c, bool has_terms) {
    const circulant::AttentionPlan plan =
        circulant::plan_attention("attention", Pattern(c.geometry()), c.groups, int(c.channels),
                                  int(c.channels), sizeof(float), has_terms);
    ++comparisons;
    if (circulant::current_device().resident(plan.shared) < 2) {
      report(c, "attention plan",
             "one block of " + std::to_string(plan.shared) + " bytes on a multiprocessor");
    }
    return plan;
  };
  const Case readme{2, 64, {1, 128, 96}, {1, 15, 15}}, large{1, 64, {1, 240, 160}, {1, 35, 35}},
      heads{8, 16, {1, 128, 96}, {1, 15, 15}};
  for (const int shared_memory : {164, 228}) {
    choose_device(108, shared_memory);
    plan_of(large, false);
    const int steps = plan_of(readme, false).strips.steps();
    if (plan_of(readme, true).strips.steps() != steps) {
      report(readme, "attention plan", "more steps with terms of the scores");
    }
    if (plan_of(heads, false).strips.per_step < circulant::kAttentionWarps) {
      report(heads, "attention plan", "more steps than necessary");
    }
  }
#endif
}

// With one pixel, S = lse = q k, y = v, and the gradients at another y are not zero.
void check_attention_groups() {
  const int64_t step = circulant::kMaxGridGroups, groups = step + 3;
  const Case c{groups, 1, {1, 1, 1}, {1, 1, 1}};
  const AttentionCase a{c, 1, false, 0.5};
  std::vector<double> q = random_eighths(groups), k = random_eighths(groups),
                      v = random_eighths(groups), dy = random_eighths(groups);
  std::vector<double> lse(groups), dq(groups), dk(groups);
  for (int64_t g = 0; g < groups; ++g) {
    lse[g] = 0.5 * q[g] * k[g];
    dq[g] = 0.5 * dy[g] * (v[g] - k[g]) * k[g];  // k stands for y
    dk[g] = 0.5 * dy[g] * (v[g] - k[g]) * q[g];
  }
  const Array<float> q_(rounded<float>(q)), k_(rounded<float>(k)), v_(rounded<float>(v)),
      dy_(rounded<float>(dy)), y_(groups), lse_(rounded<float>(lse)), delta_(groups), dq_(groups),
      dk_(groups), dv_(groups);
  const Only only(3, 0, 3);
  try {
    circulant::attention(q_.at, k_.at, v_.at, y_.at, lse_.at, nullptr, {}, a.problem(), nullptr);
    circulant::attention_backward(dy_.at, q_.at, k_.at, v_.at, k_.at, lse_.at, nullptr, delta_.at,
                                  dq_.at, dk_.at, dv_.at, {}, {}, a.problem(), nullptr);
  } catch (const std::exception& error) {
    return report(c, "attention of many groups", error.what());
  }
  const auto compare = [&](const std::string& what, const Array<float>& got,
                           const std::vector<double>& expected) {
    for (const int64_t first : {int64_t(0), step}) {
      compare_within(c, what + " of many groups", got.read(first, 3),
                     {expected.begin() + first, expected.begin() + first + 3}, 1e-5);
    }
  };
  compare("attention y", y_, v);
  compare("attention lse", lse_, lse);
  compare("attention dq", dq_, dq);
  compare("attention dk", dk_, dk);
  compare("attention dv", dv_, dy);
}

// Only two features of the last pixel are not zero. The window is one pixel.
void check_attention_offsets() {
  const int64_t C = 1025;
  const Case c{2, C, {1, 1024, 1024}, {1, 1, 1}};
  const AttentionCase a{c, C, false, 0.5};
  const int64_t N = c.pixels(), last = 2 * C * N - 1, other = C * N + N - 1;
  size_t free = 0, total = 0;
  check_cuda(cudaMemGetInfo(&free, &total));
  if (free / sizeof(float) / 6 < static_cast<size_t>(2 * C * N)) {
    std::printf("not checked, too little memory: attention at offsets above 2^31\n");
    return;
  }
  Array<float> x(2 * C * N), other_y(2 * C * N), y(2 * C * N), lse(2 * N), delta(2 * N),
      dk(2 * C * N), dv(2 * C * N);
  for (Array<float>* array : {&x, &other_y, &y, &lse, &delta, &dk, &dv})
    check_cuda(cudaMemset(array->at, 0, array->bytes()));
  x.write(last, 3);
  x.write(other, 2);
  other_y.write(last, 1);
  const Only only(0, 24, 3);
  const auto compare = [&](const std::string& what, const Array<float>& got, double factor) {
    for (const int64_t at : {last, other}) {
      const double expected = factor * (at == last ? 3 : 2);
      compare_within(c, what + " at an offset above 2^31", got.read(at, 1), {expected},
                     1e-5 * expected);
    }
  };
  try {
    // S = 0.5 (3 * 3 + 2 * 2) = lse.
    circulant::attention(x.at, x.at, x.at, y.at, lse.at, nullptr, {}, a.problem(), nullptr);
    compare("attention y", y, 1);
    compare_within(c, "attention lse at the last offset", lse.read(2 * N - 1, 1), {6.5}, 1e-5);
    // With a y of 1 at the last offset, dS = dP - delta = 13 - 3. The memory of y is that of dq
    // from here on.
    circulant::attention_backward(x.at, x.at, x.at, x.at, other_y.at, lse.at, nullptr, delta.at,
                                  y.at, dk.at, dv.at, {}, {}, a.problem(), nullptr);
    compare("attention dq", y, 0.5 * 10);
    compare("attention dk", dk, 0.5 * 10);
    compare("attention dv", dv, 1);
  } catch (const std::exception& error) {
    report(c, "attention at offsets above 2^31", error.what());
  }
}

}  // namespace check
