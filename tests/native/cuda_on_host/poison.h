// AddressSanitizer's functions, which do nothing without it.
#pragma once

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else
#define ASAN_POISON_MEMORY_REGION(from, size) (void)(from), (void)(size)
#define ASAN_UNPOISON_MEMORY_REGION(from, size) (void)(from), (void)(size)
#endif
