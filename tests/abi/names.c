/* Prints code and name of every code there may be, to compare with package crust. */
#include "crust.h"

#include <stdio.h>
#include <string.h>

int main(void) {
    int code;
    for (code = 0; code > -1000; code--) {
        const char *name = crust_error_name(code);
        if (strcmp(name, "unknown") == 0) continue;
        if (strcmp(crust_strerror(code), "unknown code") == 0) printf("no sentence for ");
        printf("%d %s\n", code, name);
    }
    return 0;
}
