// Results that depend on sizes and the device only, kept from call to call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <mutex>
#include <vector>

#include "problem.h"

namespace circulant {

// A program that uses more sizes than this makes plans again.
constexpr size_t kMostCached = 1024;

// make(), or what it returned when it was called for this key before. Each call site has a cache of
// its own.
template <class Value, class Make>
Value cached(const std::vector<int64_t>& key, const Make& make) {
  static std::mutex mutex;
  static std::map<std::vector<int64_t>, Value> values;
  {
    const std::lock_guard<std::mutex> lock(mutex);
    const auto found = values.find(key);
    if (found != values.end()) return found->second;
  }
  const Value value = make();
  const std::lock_guard<std::mutex> lock(mutex);
  if (values.size() >= kMostCached) values.clear();
  values.emplace(key, value);
  return value;
}

// The key of a plan for a pattern, a device and other numbers.
inline std::vector<int64_t> plan_key(const Pattern& pattern, int device,
                                     std::initializer_list<int64_t> others) {
  std::vector<int64_t> key(others);
  key.push_back(device);
  // The classes follow from these.
  for (const Axis& dim : {pattern.d(), pattern.h(), pattern.w()}) {
    key.insert(key.end(), {dim.size, dim.keys, dim.before, dim.window, dim.dilation, dim.circular});
  }
  return key;
}

}  // namespace circulant
