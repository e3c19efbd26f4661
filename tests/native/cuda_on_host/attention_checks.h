// Compares fused attention and its gradients, with terms of the scores or without, with the
// definition.
//
// Inputs are small multiples of 1/8, which every dtype holds. Exponentials are not exact:
// tolerances are bounds of the roundings in the type that is summed in. An entry too many or too
// few, or in the wrong place, is far above them.
#pragma once

#include <limits>

#include "../../../csrc/cuda/attention_mma.h"
#include "../../../csrc/cuda/attention_sums.h"
#include "attention_reference.h"

namespace check {

using circulant::AttentionProblem;

inline int64_t size_of(const std::vector<double>& x) { return static_cast<int64_t>(x.size()); }

template <class T>
void compare_within(const Case& c, const std::string& what, const std::vector<T>& got,
                    const std::vector<double>& expected, double tolerance) {
  ++comparisons;
  for (size_t i = 0; i < got.size(); ++i) {
    const double have = static_cast<double>(got[i]), want = expected[i];
    if (std::isnan(want) && std::isnan(have)) continue;
    if (want == have || std::abs(want - have) <= tolerance) continue;
    return report(c, what,
                  "element " + std::to_string(i) + " is " + std::to_string(have) + " instead of " +
                      std::to_string(want) + ", tolerance " + std::to_string(tolerance));
  }
}

// Fills results with NaN (all bits set).
template <class... Arrays>
void unset(const Arrays&... arrays) {
  ((arrays.size > 0 ? check_cuda(cudaMemset(arrays.at, 0xff, arrays.bytes())) : void()), ...);
}

// The terms of a reference on the device, and the gradients of attention with them.
template <class A>
struct DeviceTerms {
  const AttentionReference& r;
  const Array<A> bias{values(r.bias)}, key_bias{values(r.key_bias)}, dlse{values(r.dlse)};
  const Array<A> dbias{size_of(r.bias)}, dkey_bias{size_of(r.key_bias)};
  circulant::ScoreTerms<A> terms;

  explicit DeviceTerms(const AttentionReference& r) : r(r) {
    const Case& c = r.a.c;
    terms = {bias.at,
             key_bias.at,
             static_cast<int>(r.heads),
             static_cast<int>(r.key_bias.empty() ? 1 : c.groups / r.rows),
             static_cast<int>(c.offsets()),
             static_cast<int>(c.keys())};
  }

  // Numbers per query that the gradients need beside attention_scratch.
  int scratch_rows() const { return 1 + (terms.any() || dlse.size > 0); }

  // Calls make(sums), then sums up the sums.
  template <class Make>
  void sum_up(const AttentionProblem& p, int64_t tiles, const Make& make) const {
    const Array<A> offset_sums(p.groups * tiles * terms.offsets),
        key_sums(terms.row_groups > 1 ? p.groups * terms.keys : 0);
    unset(offset_sums, key_sums, dbias, dkey_bias);
    make(circulant::ScoreTermSums<A>{offset_sums.at, tiles,
                                     terms.row_groups > 1 ? key_sums.at : dkey_bias.at});
    if (terms.bias) {
      circulant::sum_rows<A>("sum_rows", offset_sums.at, dbias.at, terms.heads,
                             p.groups / terms.heads * tiles, terms.offsets, nullptr);
    }
    if (terms.row_groups > 1) {
      circulant::sum_rows<A>("sum_rows", key_sums.at, dkey_bias.at, r.rows, terms.row_groups,
                             terms.keys, nullptr);
    }
  }

 private:
  static std::vector<A> values(const std::vector<double>& x) { return {x.begin(), x.end()}; }
};

template <class T>
void check_dtype(const AttentionCase& a, AttentionReference& r, const std::string& dtype) {
  using A = circulant::accumulate_t<T>;
  const Case& c = a.c;
  const double eps = std::numeric_limits<A>::epsilon();
  const double coarse = spacing<T>();
  const DeviceTerms<A> terms(r);
  std::string name = std::string(a.distance ? "distance " : "dot ") + dtype + ", values " +
                     std::to_string(a.value_channels);
  if (!r.bias.empty()) name += ", heads " + std::to_string(r.heads);
  if (!r.key_bias.empty()) name += ", rows of keys " + std::to_string(r.rows);
  const AttentionProblem p = a.problem();
  const double K = static_cast<double>(c.offsets());
  try {
    const Array<T> q(rounded<T>(r.q)), k(rounded<T>(r.k)), dy(rounded<T>(r.dy));
    std::vector<double> finite = r.v;
    // Tensor cores have other rules for what is not finite: see check_attention_mma.cpp.
    if (c.infinite && !(circulant::is_half<T> && circulant::uses_mma(p)))
      r.v[infinite_at(c, r.v.size())] = std::numeric_limits<double>::infinity();
    r.forward();
    // The relative error of a weight: of a score and of lse, of exp2 and its argument, of the sum
    // and its reciprocal.
    const double score_error = (static_cast<double>(c.channels) + 8) * eps * r.products;
    const double weight_error = 2 * score_error + (K + 16 + 4 * r.scores) * eps;
    {
      const Array<T> v(rounded<T>(r.v));
      const Array<T> y(size_of(r.y));
      const Array<A> lse(size_of(r.lse));
      const Array<A> scratch(size_of(r.lse) * circulant::attention_scratch<T>(p));
      unset(y, lse, scratch);
      circulant::attention(q.at, k.at, v.at, y.at, lse.at, scratch.at, terms.terms, p, nullptr);
      compare_within(c, "attention y " + name, y.read(0, y.size), r.y,
                     (weight_error + K * eps + coarse) * r.largest);
      compare_within(c, "attention lse " + name, lse.read(0, lse.size), r.lse,
                     score_error + (K + 16 + 4 * r.scores) * eps);
    }
    r.v = finite;
    r.forward();
    // The gradients are those at the y and lse that are given.
    const std::vector<T> y_given = rounded<T>(r.y);
    const std::vector<A> lse_given(r.lse.begin(), r.lse.end());
    r.y.assign(y_given.begin(), y_given.end());
    r.lse.assign(lse_given.begin(), lse_given.end());
    const Array<T> v(rounded<T>(r.v)), y(y_given);
    const Array<A> lse(lse_given);
    const Array<A> scratch(size_of(r.lse) *
                           (terms.scratch_rows() + circulant::attention_scratch<T>(p)));
    const Array<T> dq(size_of(r.dq)), dk(size_of(r.dk)), dv(size_of(r.dv));
    unset(scratch, dq, dk, dv);
    const int64_t tiles = r.bias.empty() ? 0 : circulant::attention_tiles<T>(p);
    terms.sum_up(p, tiles, [&](const circulant::ScoreTermSums<A>& sums) {
      circulant::attention_backward(dy.at, q.at, k.at, v.at, y.at, lse.at, terms.dlse.at,
                                    scratch.at, dq.at, dk.at, dv.at, terms.terms, sums, p, nullptr);
    });
    r.backward();
    const double sums = std::max(1.0, r.column_sum);
    const double ds_error = 2 * r.value_products *
                            (weight_error + (static_cast<double>(a.value_channels) + 8 + K) * eps);
    const double ds = sums * ds_error;
    const double tolerance = 2 * std::abs(a.scale) * ds * r.largest;
    compare_within(c, "attention dq " + name, dq.read(0, dq.size), r.dq,
                   tolerance + coarse * largest(r.dq));
    compare_within(c, "attention dk " + name, dk.read(0, dk.size), r.dk,
                   tolerance + coarse * largest(r.dk));
    compare_within(c, "attention dv " + name, dv.read(0, dv.size), r.dv,
                   sums * (weight_error + K * eps) * r.largest + coarse * largest(r.dv));
    // Sums over the queries of some groups.
    const double queries = static_cast<double>(c.groups * c.pixels());
    compare_within(c, "attention dbias " + name, terms.dbias.read(0, terms.dbias.size), r.dbias,
                   r.offset_sum * (ds_error + 2 * r.value_products * queries * eps));
    compare_within(c, "attention dkey_bias " + name, terms.dkey_bias.read(0, terms.dkey_bias.size),
                   r.dkey_bias, static_cast<double>(terms.terms.row_groups) * ds);
  } catch (const std::exception& error) {
    report(c, "attention " + name, error.what());
  }
}

}  // namespace check
