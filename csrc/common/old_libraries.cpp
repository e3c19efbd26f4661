// What newer C++ and C libraries have and older ones lack, so that a library built here runs there:
// with glibc 2.28 and the libstdc++ of GCC 8, as torch's own.
#include <new>
#include <sstream>

#if defined(__GLIBCXX__)

// Default constructors, of libstdc++ 9: these are copies of our own.
template std::stringstream::basic_stringstream();
template std::ostringstream::basic_ostringstream();

extern "C" {

// Of glibc 2.32: whether the process has one thread, so that reference counts need no atomics. It
// has more than one.
__attribute__((visibility("hidden"))) char __libc_single_threaded = 0;

// std::__throw_bad_array_new_length, of libstdc++ 11.
[[noreturn]] __attribute__((visibility("hidden"))) void throw_bad_array_new_length() __asm__(
    "_ZSt28__throw_bad_array_new_lengthv");
void throw_bad_array_new_length() { throw std::bad_array_new_length(); }
}

#endif
