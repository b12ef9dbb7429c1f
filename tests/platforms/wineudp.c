/*
 * wineudp.c - lets programs in Go use UDP under wine 8, which does not know a setting
 * that Go makes of each UDP socket, SIO_UDP_NETRESET, and that every Windows since 10
 * has. Once this is loaded, who asks ws2_32.dll for WSAIoctl gets the function
 * below, which says yes to that setting and passes on all else. It has to be loaded
 * before crust.dll is, and is no part of libcrust.
 */
#include <winsock2.h>

#include <windows.h>

#include <stdio.h>
#include <string.h>

#define NETRESET (IOC_IN | IOC_VENDOR | 15)

typedef int(WSAAPI *ioctl_function)(SOCKET, DWORD, LPVOID, DWORD, LPVOID, DWORD, LPDWORD, LPWSAOVERLAPPED, LPWSAOVERLAPPED_COMPLETION_ROUTINE);

static ioctl_function theirs;

static int WSAAPI ours(SOCKET s, DWORD code, LPVOID in, DWORD in_len, LPVOID out, DWORD out_len, LPDWORD done, LPWSAOVERLAPPED overlapped,
                       LPWSAOVERLAPPED_COMPLETION_ROUTINE routine) {
    int r = theirs(s, code, in, in_len, out, out_len, done, overlapped, routine);
    if (r == 0 || code != NETRESET) return r;
    if (done) *done = 0;
    return 0;
}

/* Makes a jump to ours that lies at most 4 GiB above a module, as far as its table of
 * exports reaches. NULL when there is no room. */
static BYTE *jump_above(BYTE *module) {
    static const BYTE code[] = {0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xe0}; /* mov rax, ours; jmp rax */
    ULONG_PTR to = (ULONG_PTR)ours, at;
    for (at = 0x100000; at < 0x7fff0000; at += 0x10000) {
        BYTE *page = VirtualAlloc(module + at, 0x1000, MEM_RESERVE | MEM_COMMIT, PAGE_EXECUTE_READWRITE);
        if (!page) continue;
        memcpy(page, code, sizeof code);
        memcpy(page + 2, &to, sizeof to);
        return page;
    }
    return NULL;
}

__attribute__((constructor)) static void hook(void) {
    BYTE *module = (BYTE *)LoadLibraryA("ws2_32.dll"), *jump;
    IMAGE_NT_HEADERS *nt;
    IMAGE_EXPORT_DIRECTORY *table;
    DWORD i, old, *names, *functions;
    WORD *ordinals;
    if (!module || !(jump = jump_above(module))) goto failed;
    theirs = (ioctl_function)(void *)GetProcAddress((HMODULE)module, "WSAIoctl");
    nt = (IMAGE_NT_HEADERS *)(module + ((IMAGE_DOS_HEADER *)module)->e_lfanew);
    table = (IMAGE_EXPORT_DIRECTORY *)(module + nt->OptionalHeader.DataDirectory[IMAGE_DIRECTORY_ENTRY_EXPORT].VirtualAddress);
    names = (DWORD *)(module + table->AddressOfNames);
    ordinals = (WORD *)(module + table->AddressOfNameOrdinals);
    functions = (DWORD *)(module + table->AddressOfFunctions);
    for (i = 0; i < table->NumberOfNames; i++) {
        DWORD *entry = &functions[ordinals[i]];
        if (strcmp((char *)module + names[i], "WSAIoctl") != 0) continue;
        if (!VirtualProtect(entry, sizeof *entry, PAGE_READWRITE, &old)) goto failed;
        *entry = (DWORD)(jump - module);
        VirtualProtect(entry, sizeof *entry, old, &old);
        return;
    }
failed:
    fprintf(stderr, "wineudp: ws2_32.dll is not as expected; UDP will not work\n");
}
