/*
 * prng.c - the one function of bcryptprimitives.dll, which every Windows since 7 has
 * and wine before version 9 has not. Programs in Go take their random numbers there
 * and do not start without it. The test puts this into the system directory of its
 * wine when that has none; it is no part of libcrust.
 */
#include <windows.h>
#include <ntsecapi.h>

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T size) {
    while (size > 0) {
        ULONG piece = size > 0x10000000 ? 0x10000000 : (ULONG)size;
        if (!RtlGenRandom(data, piece)) return FALSE;
        data += piece;
        size -= piece;
    }
    return TRUE;
}
