/* Prints the layout of every struct and every number of crust.h, for layout.golden. */
#include "crust.h"

#include <stddef.h>
#include <stdio.h>

#define STRUCT(type) printf("%s size %lu\n", #type, (unsigned long)sizeof(type))
#define FIELD(type, field) \
    printf("%s.%s offset %lu size %lu\n", #type, #field, (unsigned long)offsetof(type, field), (unsigned long)sizeof(((type *)0)->field))
#define NUMBER(name) printf("%s %ld\n", #name, (long)name)

int main(void) {
#include "layout.inc"
    return 0;
}
