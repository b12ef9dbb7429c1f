/*
 * codes.c - the pure functions over result codes. The names are the ones of
 * package crust; tests/abi holds the two lists together.
 */
#include "shim_internal.h"

#define CODES(X)                                                                                        \
    X(CRUST_OK, "ok", "success")                                                                        \
    X(CRUST_ERR_INVALID, "invalid", "an argument is malformed or out of bounds")                        \
    X(CRUST_ERR_BAD_HANDLE, "bad_handle", "the handle is unknown, stale or freed")                      \
    X(CRUST_ERR_STATE, "state", "not possible in the present state")                                    \
    X(CRUST_ERR_NO_MEMORY, "no_memory", "out of memory")                                                \
    X(CRUST_ERR_WOULD_BLOCK, "would_block", "the send queue is full; wait for the WRITABLE event")      \
    X(CRUST_ERR_TIMEOUT, "timeout", "no answer in time")                                                \
    X(CRUST_ERR_CANCELED, "canceled", "given up by the program or by closing the service")              \
    X(CRUST_ERR_CLOSED, "closed", "the service is closed")                                              \
    X(CRUST_ERR_BUFFER_TOO_SMALL, "buffer_too_small", "the buffer is too small")                        \
    X(CRUST_ERR_TOO_BIG, "too_big", "the message is over the limit")                                    \
    X(CRUST_ERR_UNSUPPORTED, "unsupported", "this build or platform cannot do that")                    \
    X(CRUST_ERR_WOULD_DEADLOCK, "would_deadlock", "a blocking call inside a callback")                  \
    X(CRUST_ERR_FORKED, "forked", "the process forked after the library was loaded")                    \
    X(CRUST_ERR_PANICKED, "panicked", "a fault inside the library was caught; the service is closed")   \
    X(CRUST_ERR_INTERNAL, "internal", "a fault inside the library")                                     \
    X(CRUST_ERR_ABI, "abi", "the struct_size or the ABI version is not acceptable")                     \
    X(CRUST_ERR_IO, "io", "the operating system refused")                                               \
    X(CRUST_ERR_ADDRESS_IN_USE, "address_in_use", "another program uses the address")                   \
    X(CRUST_ERR_ADDRESS, "address", "the address does not exist on this machine or is malformed")       \
    X(CRUST_ERR_UNREACHABLE, "unreachable", "no route to the address")                                  \
    X(CRUST_ERR_REFUSED, "refused", "nothing listens at the address")                                   \
    X(CRUST_ERR_RESET, "reset", "the connection broke")                                                 \
    X(CRUST_ERR_PERMISSION, "permission", "the operating system forbids it")                            \
    X(CRUST_ERR_LIMIT, "limit", "a limit on connections, handshakes, services or descriptors")          \
    X(CRUST_ERR_SELF, "self", "the peer is this service itself")                                        \
    X(CRUST_ERR_UNKNOWN_PEER, "unknown_peer", "not connected to that peer")                             \
    X(CRUST_ERR_CONNECTED, "connected", "already connected to that peer")                               \
    X(CRUST_ERR_BANNED, "banned", "the peer or its address is banned")                                  \
    X(CRUST_ERR_NOT_ALLOWED, "not_allowed", "the peer does not accept us")                              \
    X(CRUST_ERR_BAD_INFO, "bad_info", "the connection info is malformed, forged or expired")            \
    X(CRUST_ERR_HANDSHAKE, "handshake", "the other end did not complete the handshake")                 \
    X(CRUST_ERR_CRYPTO, "crypto", "data failed authentication")                                         \
    X(CRUST_ERR_NETWORK_NAME, "network_name", "no answer: another network name, or no libcrust there")  \
    X(CRUST_ERR_WRONG_PEER, "wrong_peer", "somebody else than the expected peer answered")              \
    X(CRUST_ERR_NO_ENDPOINT, "no_endpoint", "no endpoint or contact to try")                            \
    X(CRUST_ERR_DISCONNECTED, "disconnected", "the connection was closed in order")                     \
    X(CRUST_ERR_PEER_SILENT, "peer_silent", "nothing was heard from the peer for the whole timeout")    \
    X(CRUST_ERR_PROTOCOL, "protocol", "the peer broke the protocol")                                    \
    X(CRUST_ERR_REPLACED, "replaced", "the peer restarted and came back")                               \
    X(CRUST_ERR_EXPIRED, "expired", "a message grew too old in the queue")

const char *CRUST_CALL crust_strerror(crust_result code) {
    switch (code) {
#define X(number, name, sentence) case number: return sentence;
        CODES(X)
#undef X
    }
    return "unknown code";
}

const char *CRUST_CALL crust_error_name(crust_result code) {
    switch (code) {
#define X(number, name, sentence) case number: return name;
        CODES(X)
#undef X
    }
    return "unknown";
}
