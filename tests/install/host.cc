// A C++ program with the archive in it: it has a C++ library, exceptions, inline
// functions and an operator new of its own, none of which may mix with those
// inside the archive. main.c is in it as consume().
#include <cstdio>
#include <cstdlib>
#include <new>
#include <stdexcept>
#include <string>
#include <typeinfo>
#include <vector>

extern "C" int consume(int argc, char **argv);

static int allocations;

void *operator new(std::size_t size)
{
    allocations++;
    void *p = std::malloc(size);
    if (p == nullptr)
        throw std::bad_alloc();
    return p;
}

void operator delete(void *p) noexcept { std::free(p); }
void operator delete(void *p, std::size_t) noexcept { std::free(p); }

// Whether an exception comes through a frame that has to be cleaned up.
static bool thrown_and_caught(const std::string &text)
{
    try {
        std::vector<std::string> words(3, text);
        throw std::runtime_error(words.at(2));
    } catch (const std::exception &e) {
        return text == e.what() && typeid(e) == typeid(std::runtime_error);
    }
}

int main(int argc, char **argv)
{
    if (!thrown_and_caught("a text that is too long to be stored without allocating"))
        return 2;
    const int before = allocations;
    const int result = consume(argc, argv);
    if (before == 0 || allocations != before) {
        std::fprintf(stderr, "operator new was called %d times before and %d times by the library\n", before, allocations - before);
        return 3;
    }
    if (!thrown_and_caught("another text that is too long to be stored without allocating"))
        return 4;
    return result;
}
