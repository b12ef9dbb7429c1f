/*
 * calls.h - every call on a service with arguments that are fine but for the
 * handle, to see what each says about a handle.
 */
#ifndef CALLS_H
#define CALLS_H

#include "crust.h"

/* Calls each function on the service and checks that each returns want. With
 * poll_want for the calls that only poll mode has. free is not called. */
void check_calls(crust_service service, crust_result want, crust_result poll_want);

#endif
