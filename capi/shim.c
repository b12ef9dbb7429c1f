/*
 * shim.c - the functions of crust.h. The shim does what Go cannot do or what is
 * wrong to do in Go: it refuses work in a forked child before Go is entered,
 * knows whether the thread is inside a callback, keeps the thread's last error,
 * checks pointers and lengths, and clears what is given back.
 *
 * Including crust.h and _cgo_export.h lets the compiler hold the public
 * prototypes, the shim and the Go functions together.
 */
#include "shim_internal.h"
#include "_cgo_export.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#if !defined(_WIN32)
#  include <pthread.h>
#endif

#define CRUST__TEXT1(x) #x
#define CRUST__TEXT(x) CRUST__TEXT1(x)

static atomic_int forked; /* 1 in a child made by fork */
static _Thread_local int callback_depth;
static _Thread_local char last_error[CRUST__ERROR_SIZE];

#if !defined(_WIN32)
/* Only the forking thread lives on in the child, without the Go runtime's
 * threads. The handler must not, and does not, call Go. */
static void in_child(void) { atomic_store_explicit(&forked, 1, memory_order_relaxed); }
__attribute__((constructor)) static void watch_fork(void) { (void)pthread_atfork(NULL, NULL, in_child); }
#endif

static crust_result fail(crust_result code, const char *function, const char *what) {
    (void)snprintf(last_error, sizeof last_error, "%s: %s", function, what);
    return code;
}

static crust_result fail_forked(const char *function) {
    return fail(CRUST_ERR_FORKED, function, "this process was forked after libcrust was loaded");
}

#define FORK_GUARD()                                                                              \
    do {                                                                                          \
        if (atomic_load_explicit(&forked, memory_order_relaxed)) return fail_forked(__func__);    \
    } while (0)
#define BLOCK_GUARD()                                                                                        \
    do {                                                                                                     \
        if (callback_depth > 0)                                                                              \
            return fail(CRUST_ERR_WOULD_DEADLOCK, __func__, "a blocking call is not allowed in a callback"); \
    } while (0)
#define NEED(pointer)                                                                            \
    do {                                                                                         \
        if (!(pointer)) return fail(CRUST_ERR_INVALID, __func__, #pointer " must not be NULL"); \
    } while (0)
#define NEED_BYTES(pointer, len)                                                                                       \
    do {                                                                                                               \
        if (!(pointer) && (len) > 0) return fail(CRUST_ERR_INVALID, __func__, #pointer " is NULL but " #len " is not 0"); \
        if ((uint64_t)(len) > (uint64_t)PTRDIFF_MAX)                                                                   \
            return fail(CRUST_ERR_INVALID, __func__, #len " is larger than any memory block");                         \
    } while (0)

/* ---- pure functions ---- */

const char *CRUST_CALL crust_version_string(void) {
    return CRUST__TEXT(CRUST_VERSION_MAJOR) "." CRUST__TEXT(CRUST_VERSION_MINOR) "." CRUST__TEXT(CRUST_VERSION_PATCH);
}

uint32_t CRUST_CALL crust_version_number(void) {
    return (uint32_t)CRUST_VERSION_MAJOR << 16 | (uint32_t)CRUST_VERSION_MINOR << 8 | (uint32_t)CRUST_VERSION_PATCH;
}

uint32_t CRUST_CALL crust_abi_version(void) { return CRUST_ABI_VERSION; }

int CRUST_CALL crust_has(const char *feature) {
    if (!feature) return 0;
#if !defined(_WIN32)
    if (strcmp(feature, "fd") == 0) return 1;
#endif
    return strcmp(feature, "tcp") == 0 || strcmp(feature, "utp") == 0;
}

const char *CRUST_CALL crust_last_error(void) { return last_error; }

crust_result CRUST_CALL crust_peer_id_format(const crust_peer_id *id, char *out) {
    static const char digits[] = "0123456789abcdef";
    size_t i;
    NEED(out);
    out[0] = 0;
    NEED(id);
    for (i = 0; i < CRUST_PEER_ID_SIZE; i++) {
        out[2 * i] = digits[id->bytes[i] >> 4];
        out[2 * i + 1] = digits[id->bytes[i] & 15];
    }
    out[2 * CRUST_PEER_ID_SIZE] = 0;
    return CRUST_OK;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

crust_result CRUST_CALL crust_peer_id_parse(const char *text, crust_peer_id *out) {
    crust_peer_id id;
    size_t i;
    NEED(out);
    memset(out, 0, sizeof *out);
    NEED(text);
    for (i = 0; i < CRUST_PEER_ID_SIZE; i++) {
        int high = hex_digit(text[2 * i]);
        int low = high < 0 ? -1 : hex_digit(text[2 * i + 1]);
        if (low < 0) return fail(CRUST_ERR_INVALID, __func__, "a peer id is 64 hexadecimal digits");
        id.bytes[i] = (uint8_t)(high << 4 | low);
    }
    if (text[2 * CRUST_PEER_ID_SIZE] != 0) return fail(CRUST_ERR_INVALID, __func__, "a peer id is 64 hexadecimal digits");
    *out = id;
    return CRUST_OK;
}

/* ---- identities and configuration ---- */

crust_result CRUST_CALL crust_identity_generate(uint8_t seed[CRUST_SEED_SIZE], crust_peer_id *id) {
    if (id) memset(id, 0, sizeof *id);
    NEED(seed);
    memset(seed, 0, CRUST_SEED_SIZE);
    FORK_GUARD();
    return goCrustIdentityGenerate(seed, id, last_error);
}

crust_result CRUST_CALL crust_config_new(crust_config **out) {
    uintptr_t handle = 0;
    crust_result r;
    NEED(out);
    *out = NULL;
    FORK_GUARD();
    r = goCrustConfigNew(&handle, last_error);
    *out = (crust_config *)handle; /* never followed, see config.go */
    return r;
}

void CRUST_CALL crust_config_free(crust_config *config) {
    if (config && !atomic_load_explicit(&forked, memory_order_relaxed)) goCrustConfigFree((uintptr_t)config);
}

crust_result CRUST_CALL crust_config_set_u64(crust_config *config, crust_option option, uint64_t value) {
    FORK_GUARD();
    NEED(config);
    return goCrustConfigSetU64((uintptr_t)config, option, value, last_error);
}

crust_result CRUST_CALL crust_config_set_str(crust_config *config, crust_option option, const char *value) {
    FORK_GUARD();
    NEED(config);
    NEED(value);
    return goCrustConfigSetStr((uintptr_t)config, option, (char *)value, last_error);
}

crust_result CRUST_CALL crust_config_set_bytes(crust_config *config, crust_option option, const void *value, size_t len) {
    FORK_GUARD();
    NEED(config);
    NEED_BYTES(value, len);
    return goCrustConfigSetBytes((uintptr_t)config, option, (void *)value, len, last_error);
}

crust_result CRUST_CALL crust_config_add_listener(crust_config *config, const char *endpoint) {
    FORK_GUARD();
    NEED(config);
    NEED(endpoint);
    return goCrustConfigAddListener((uintptr_t)config, (char *)endpoint, last_error);
}

crust_result CRUST_CALL crust_config_add_contact(crust_config *config, const char *contact) {
    FORK_GUARD();
    NEED(config);
    NEED(contact);
    return goCrustConfigAddContact((uintptr_t)config, (char *)contact, last_error);
}

crust_result CRUST_CALL crust_config_add_stun(crust_config *config, const char *server) {
    FORK_GUARD();
    NEED(config);
    NEED(server);
    return goCrustConfigAddSTUN((uintptr_t)config, (char *)server, last_error);
}

crust_result CRUST_CALL crust_config_add_ban(crust_config *config, const char *who) {
    FORK_GUARD();
    NEED(config);
    NEED(who);
    return goCrustConfigAddBan((uintptr_t)config, (char *)who, last_error);
}

crust_result CRUST_CALL crust_config_add_allowed(crust_config *config, uint32_t role, const char *prefix) {
    FORK_GUARD();
    NEED(config);
    NEED(prefix);
    return goCrustConfigAddAllowed((uintptr_t)config, role, (char *)prefix, last_error);
}

crust_result CRUST_CALL crust_config_load_json(crust_config *config, const char *json, size_t len) {
    FORK_GUARD();
    NEED(config);
    NEED_BYTES(json, len);
    return goCrustConfigLoadJSON((uintptr_t)config, (char *)json, len, last_error);
}

/* ---- life ---- */

/* Structs may be larger than ours when the program was built against a later
 * header; what we do not know must then be zero. The bound keeps a forgotten
 * struct_size from sending us through memory. */
#define MAX_STRUCT_SIZE 4096u

/* Whether the bytes of a struct from its known size on are all zero. */
static int zero_beyond(const void *s, size_t known, size_t size) {
    const unsigned char *bytes = s;
    for (; known < size; known++) {
        if (bytes[known]) return 0;
    }
    return 1;
}

static crust_result check_callbacks(const crust_callbacks *c) {
    static const char fn[] = "crust_service_new";
    if (c->struct_size < sizeof *c || c->struct_size > MAX_STRUCT_SIZE)
        return fail(CRUST_ERR_ABI, fn, "callbacks->struct_size must be sizeof(crust_callbacks)");
    if (!zero_beyond(c, sizeof *c, c->struct_size))
        return fail(CRUST_ERR_ABI, fn, "callbacks has fields that this version of libcrust does not know");
    if (c->reserved) return fail(CRUST_ERR_INVALID, fn, "callbacks->reserved must be 0");
    if (!c->on_events) return fail(CRUST_ERR_INVALID, fn, "callbacks->on_events must not be NULL");
    return CRUST_OK;
}

crust_result CRUST_CALL crust_service_new(const crust_config *config, const crust_callbacks *callbacks, crust_service *out) {
    NEED(out);
    *out = 0;
    FORK_GUARD();
    if (callbacks) {
        crust_result r = check_callbacks(callbacks);
        if (r != CRUST_OK) return r;
    }
    return goCrustServiceNew((uintptr_t)config, (crust_callbacks *)callbacks, out, last_error);
}

crust_result CRUST_CALL crust_service_close(crust_service service) {
    FORK_GUARD();
    return goCrustServiceClose(service, last_error);
}

crust_result CRUST_CALL crust_service_free(crust_service service) {
    FORK_GUARD();
    BLOCK_GUARD();
    return goCrustServiceFree(service, last_error);
}

crust_result CRUST_CALL crust_service_id(crust_service service, crust_peer_id *out) {
    NEED(out);
    memset(out, 0, sizeof *out);
    FORK_GUARD();
    return goCrustServiceID(service, out, last_error);
}

void crust__deliver(crust_events_fn fn, void *user, crust_service service, crust_batch *batch) {
    size_t n;
    const crust_event *events = crust_batch_events(batch, &n);
    callback_depth++;
    fn(user, service, events, n);
    callback_depth--;
    crust_batch_free(batch);
}

void crust__release(crust_release_fn fn, void *user) {
    callback_depth++;
    fn(user);
    callback_depth--;
}

/* ---- poll mode ---- */

crust_result CRUST_CALL crust_service_fd(crust_service service, intptr_t *out) {
    NEED(out);
    *out = -1;
    FORK_GUARD();
    return goCrustServiceFD(service, out, last_error);
}

crust_result CRUST_CALL crust_poll(crust_service service, int32_t timeout_ms, uint32_t max_events, crust_batch **out) {
    struct timespec deadline;
    int begun = 0;
    NEED(out);
    *out = NULL;
    FORK_GUARD();
    BLOCK_GUARD();
    for (;;) {
        struct crust__waiter_head *waiter = NULL;
        uint32_t seen = 0;
        crust_result r = goCrustPoll(service, timeout_ms != 0, max_events, out, &waiter, &seen, last_error);
        /* The service may have been freed between waking up and looking. */
        if (r == CRUST_ERR_BAD_HANDLE && begun) return fail(CRUST_ERR_CLOSED, __func__, "the service was freed");
        if (!waiter) return r;
        if (timeout_ms > 0 && !begun) crust__deadline(&deadline, timeout_ms);
        begun = 1;
        /* Once more when the time is up, without waiting. */
        if (!crust__waiter_wait(waiter, seen, timeout_ms > 0 ? &deadline : NULL)) timeout_ms = 0;
    }
}

crust_result CRUST_CALL crust_wakeup(crust_service service) {
    FORK_GUARD();
    return goCrustWakeup(service, last_error);
}

/* ---- messages ---- */

crust_result CRUST_CALL crust_send(crust_service service, const crust_peer_id *peer, const void *data, size_t len, uint8_t priority) {
    FORK_GUARD();
    NEED(peer);
    NEED_BYTES(data, len);
    return goCrustSend(service, (crust_peer_id *)peer, (void *)data, len, priority, last_error);
}

crust_result CRUST_CALL crust_send_wait(crust_service service, const crust_peer_id *peer, const void *data, size_t len, uint8_t priority, int32_t timeout_ms) {
    FORK_GUARD();
    BLOCK_GUARD();
    NEED(peer);
    NEED_BYTES(data, len);
    return goCrustSendWait(service, (crust_peer_id *)peer, (void *)data, len, priority, timeout_ms, last_error);
}

static crust_result send_batch(crust_service service, const crust_message *messages, size_t n, crust_result *why) {
    static const char fn[] = "crust_send_batch";
    if (atomic_load_explicit(&forked, memory_order_relaxed)) return fail_forked(fn);
    if (!messages && n > 0) return fail(CRUST_ERR_INVALID, fn, "messages is NULL but n is not 0");
    if (n > INT32_MAX) return fail(CRUST_ERR_INVALID, fn, "n is larger than the result can count");
    return goCrustSendBatch(service, (crust_message *)messages, n, why, last_error);
}

crust_result CRUST_CALL crust_send_batch(crust_service service, const crust_message *messages, size_t n, crust_result *why) {
    crust_result ignored, r;
    if (!why) why = &ignored;
    *why = CRUST_OK;
    r = send_batch(service, messages, n, why);
    if (r < 0) *why = r;
    return r;
}

crust_result CRUST_CALL crust_send_receipt(crust_service service, const crust_peer_id *peer, const void *data, size_t len, uint8_t priority, uint64_t token) {
    FORK_GUARD();
    NEED(peer);
    NEED_BYTES(data, len);
    return goCrustSendReceipt(service, (crust_peer_id *)peer, (void *)data, len, priority, token, last_error);
}

crust_result CRUST_CALL crust_send_datagram(crust_service service, const crust_peer_id *peer, const void *data, size_t len) {
    FORK_GUARD();
    NEED(peer);
    NEED_BYTES(data, len);
    return goCrustSendDatagram(service, (crust_peer_id *)peer, (void *)data, len, last_error);
}

crust_result CRUST_CALL crust_max_datagram(crust_service service, const crust_peer_id *peer) {
    FORK_GUARD();
    NEED(peer);
    return goCrustMaxDatagram(service, (crust_peer_id *)peer, last_error);
}

/* ---- connecting ---- */

crust_result CRUST_CALL crust_prepare_connection_info(crust_service service, uint64_t token) {
    FORK_GUARD();
    return goCrustPrepareConnectionInfo(service, token, last_error);
}

crust_result CRUST_CALL crust_connect(crust_service service, const void *info, size_t len, uint64_t token) {
    FORK_GUARD();
    NEED_BYTES(info, len);
    return goCrustConnect(service, (void *)info, len, token, last_error);
}

crust_result CRUST_CALL crust_connect_endpoint(crust_service service, const char *contact, uint64_t token) {
    FORK_GUARD();
    NEED(contact);
    return goCrustConnectEndpoint(service, (char *)contact, token, last_error);
}

crust_result CRUST_CALL crust_service_connect_peer(crust_service service, const crust_peer_id *peer, uint64_t token) {
    FORK_GUARD();
    NEED(peer);
    return goCrustConnectPeer(service, (crust_peer_id *)peer, token, last_error);
}

crust_result CRUST_CALL crust_connection_info_peer(const void *info, size_t len, crust_peer_id *out) {
    NEED(out);
    memset(out, 0, sizeof *out);
    FORK_GUARD();
    NEED_BYTES(info, len);
    return goCrustConnectionInfoPeer((void *)info, len, out, last_error);
}

crust_result CRUST_CALL crust_disconnect(crust_service service, const crust_peer_id *peer) {
    FORK_GUARD();
    NEED(peer);
    return goCrustDisconnect(service, (crust_peer_id *)peer, last_error);
}

crust_result CRUST_CALL crust_bootstrap(crust_service service, uint64_t token) {
    FORK_GUARD();
    return goCrustBootstrap(service, token, last_error);
}

crust_result CRUST_CALL crust_bootstrap_except(crust_service service, const char *const *except, size_t n, uint64_t token) {
    FORK_GUARD();
    if (n > 0) NEED(except);
    for (size_t i = 0; i < n; i++) NEED(except[i]);
    return goCrustBootstrapExcept(service, (char **)except, n, token, last_error);
}

crust_result CRUST_CALL crust_stop_bootstrap(crust_service service) {
    FORK_GUARD();
    return goCrustStopBootstrap(service, last_error);
}

/* ---- listeners ---- */

crust_result CRUST_CALL crust_listen(crust_service service, const char *endpoint) {
    FORK_GUARD();
    NEED(endpoint);
    return goCrustListen(service, (char *)endpoint, last_error);
}

crust_result CRUST_CALL crust_stop_listening(crust_service service, const char *endpoint) {
    FORK_GUARD();
    NEED(endpoint);
    return goCrustStopListening(service, (char *)endpoint, last_error);
}

crust_result CRUST_CALL crust_listeners(crust_service service, char *buf, size_t *len) {
    NEED(len);
    if (!buf) *len = 0;
    else if (*len > 0) buf[0] = 0;
    FORK_GUARD();
    return goCrustListeners(service, buf, len, last_error);
}

crust_result CRUST_CALL crust_set_accept(crust_service service, int accept) {
    FORK_GUARD();
    if (accept != 0 && accept != 1) return fail(CRUST_ERR_INVALID, __func__, "accept must be 0 or 1");
    return goCrustSetAccept(service, accept, last_error);
}

crust_result CRUST_CALL crust_set_beacon(crust_service service, uint32_t mode) {
    FORK_GUARD();
    return goCrustSetBeacon(service, mode, last_error);
}

crust_result CRUST_CALL crust_service_network_changed(crust_service service) {
    FORK_GUARD();
    return goCrustNetworkChanged(service, last_error);
}

/* ---- looking ---- */

crust_result CRUST_CALL crust_peers(crust_service service, crust_peer_id *ids, size_t *n) {
    NEED(n);
    if (!ids) *n = 0;
    FORK_GUARD();
    return goCrustPeers(service, ids, n, last_error);
}

/* Copies as much of one of our structs as the program's is large, keeps its
 * struct_size and clears what it has beyond ours. */
static void give_struct(void *to, uint32_t size, const void *from, size_t ours) {
    size_t n = size < ours ? size : ours;
    memcpy(to, from, n);
    memcpy(to, &size, sizeof size);
    if (size > n) memset((char *)to + n, 0, size - n);
}

crust_result CRUST_CALL crust_peer(crust_service service, const crust_peer_id *peer, crust_peer_info *io) {
    crust_peer_info info;
    crust_peer_id id = {{0}};
    crust_result r;
    FORK_GUARD();
    NEED(io);
    if (io->struct_size < 8 || io->struct_size > MAX_STRUCT_SIZE)
        return fail(CRUST_ERR_ABI, __func__, "io->struct_size must be sizeof(crust_peer_info)");
    if (peer) id = *peer; /* it may lie in *io */
    memset(&info, 0, sizeof info);
    give_struct(io, io->struct_size, &info, sizeof info);
    NEED(peer);
    r = goCrustPeer(service, &id, &info, last_error);
    if (r == CRUST_OK) give_struct(io, io->struct_size, &info, sizeof info);
    return r;
}

crust_result CRUST_CALL crust_service_stats(crust_service service, crust_stats *io) {
    crust_stats stats;
    crust_result r;
    FORK_GUARD();
    NEED(io);
    if (io->struct_size < 8 || io->struct_size > MAX_STRUCT_SIZE)
        return fail(CRUST_ERR_ABI, __func__, "io->struct_size must be sizeof(crust_stats)");
    memset(&stats, 0, sizeof stats);
    give_struct(io, io->struct_size, &stats, sizeof stats);
    r = goCrustServiceStats(service, &stats, last_error);
    if (r == CRUST_OK) give_struct(io, io->struct_size, &stats, sizeof stats);
    return r;
}

/* Refuses a struct_size, or clears all of the struct but that. */
static int bad_struct(void *io, uint32_t size) {
    if (!io) return 0;
    if (size < 8 || size > MAX_STRUCT_SIZE) return 1;
    memset((char *)io + sizeof size, 0, size - sizeof size);
    return 0;
}

crust_result CRUST_CALL crust_service_nat(crust_service service, crust_nat *io, crust_nat_flow *udp, crust_nat_flow *tcp) {
    crust_nat nat;
    crust_nat_flow flows[2];
    crust_result r;
    FORK_GUARD();
    if (bad_struct(io, io ? io->struct_size : 0)) return fail(CRUST_ERR_ABI, __func__, "io->struct_size must be sizeof(crust_nat)");
    if (bad_struct(udp, udp ? udp->struct_size : 0) || bad_struct(tcp, tcp ? tcp->struct_size : 0))
        return fail(CRUST_ERR_ABI, __func__, "struct_size of udp and tcp must be sizeof(crust_nat_flow)");
    memset(&nat, 0, sizeof nat);
    memset(flows, 0, sizeof flows);
    r = goCrustServiceNAT(service, &nat, &flows[0], &flows[1], last_error);
    if (r != CRUST_OK) return r;
    if (io) give_struct(io, io->struct_size, &nat, sizeof nat);
    if (udp) give_struct(udp, udp->struct_size, &flows[0], sizeof flows[0]);
    if (tcp) give_struct(tcp, tcp->struct_size, &flows[1], sizeof flows[1]);
    return CRUST_OK;
}

/* Asks Go for one of a list by its index: call has it written to entry and tells
 * how many there are. io may be NULL for a program that only counts. */
#define GIVE_ENTRY(type, io, call)                                                               \
    do {                                                                                         \
        type entry;                                                                              \
        crust_result r;                                                                          \
        FORK_GUARD();                                                                            \
        if (bad_struct(io, io ? io->struct_size : 0))                                            \
            return fail(CRUST_ERR_ABI, __func__, #io "->struct_size must be sizeof(" #type ")"); \
        memset(&entry, 0, sizeof entry);                                                         \
        r = (call);                                                                              \
        if (r >= 0 && io) give_struct(io, io->struct_size, &entry, sizeof entry);                \
        return r;                                                                                \
    } while (0)

crust_result CRUST_CALL crust_service_nat_server(crust_service service, uint32_t index, crust_nat_server *io) {
    GIVE_ENTRY(crust_nat_server, io, goCrustServiceNATServer(service, index, &entry, last_error));
}

crust_result CRUST_CALL crust_service_nat_port(crust_service service, uint32_t index, crust_nat_port *io) {
    GIVE_ENTRY(crust_nat_port, io, goCrustServiceNATPort(service, index, &entry, last_error));
}

crust_result CRUST_CALL crust_service_nat_seen(crust_service service, uint32_t index, crust_nat_seen *io) {
    GIVE_ENTRY(crust_nat_seen, io, goCrustServiceNATSeen(service, index, &entry, last_error));
}

crust_result CRUST_CALL crust_service_lan_peer(crust_service service, uint32_t index, crust_lan_peer *io) {
    GIVE_ENTRY(crust_lan_peer, io, goCrustServiceLANPeer(service, index, &entry, last_error));
}

crust_result CRUST_CALL crust_service_known(crust_service service, const crust_peer_id *after, crust_known_peer *list, size_t *n) {
    crust_peer_id id = {{0}};
    uint32_t stride = 0;
    size_t room;
    NEED(n);
    room = *n;
    *n = 0;
    FORK_GUARD();
    if (list && room) {
        stride = list->struct_size;
        if (stride < 8 || stride > MAX_STRUCT_SIZE || stride % 8)
            return fail(CRUST_ERR_ABI, __func__, "list->struct_size must be sizeof(crust_known_peer)");
    }
    if (after) id = *after;
    *n = room;
    return goCrustServiceKnown(service, after ? &id : NULL, list, stride, n, last_error);
}

/* ---- groups ---- */

static crust_result check_group(const crust_group *g) {
    static const char fn[] = "crust_service_keep";
    size_t i;
    if (g->struct_size < sizeof *g || g->struct_size > MAX_STRUCT_SIZE)
        return fail(CRUST_ERR_ABI, fn, "group->struct_size must be sizeof(crust_group)");
    if (!zero_beyond(g, sizeof *g, g->struct_size))
        return fail(CRUST_ERR_ABI, fn, "group has fields that this version of libcrust does not know");
    if (g->reserved) return fail(CRUST_ERR_INVALID, fn, "group->reserved must be 0");
    if (!g->name) return fail(CRUST_ERR_INVALID, fn, "group->name must not be NULL");
    if ((!g->peers && g->n_peers) || (!g->contacts && g->n_contacts) || ((!g->infos || !g->info_lens) && g->n_infos))
        return fail(CRUST_ERR_INVALID, fn, "an array of group is NULL but its length is not 0");
    if (g->n_peers > CRUST_MAX_KEPT || g->n_contacts > CRUST_MAX_KEPT || g->n_infos > CRUST_MAX_KEPT)
        return fail(CRUST_ERR_LIMIT, fn, "group has more than 4096 peers, contacts or infos");
    for (i = 0; i < g->n_contacts; i++) {
        if (!g->contacts[i]) return fail(CRUST_ERR_INVALID, fn, "a contact of group is NULL");
    }
    for (i = 0; i < g->n_infos; i++) {
        if (!g->infos[i] && g->info_lens[i]) return fail(CRUST_ERR_INVALID, fn, "an info of group is NULL but its length is not 0");
        if (g->info_lens[i] > (size_t)PTRDIFF_MAX) return fail(CRUST_ERR_INVALID, fn, "an info of group is larger than any memory block");
    }
    return CRUST_OK;
}

crust_result CRUST_CALL crust_service_keep(crust_service service, const crust_group *group) {
    crust_result r;
    FORK_GUARD();
    NEED(group);
    if ((r = check_group(group)) != CRUST_OK) return r;
    return goCrustServiceKeep(service, (crust_group *)group, last_error);
}

crust_result CRUST_CALL crust_service_release(crust_service service, const char *name) {
    FORK_GUARD();
    NEED(name);
    return goCrustServiceRelease(service, (char *)name, last_error);
}

crust_result CRUST_CALL crust_service_group(crust_service service, uint32_t index, crust_group_info *io) {
    GIVE_ENTRY(crust_group_info, io, goCrustServiceGroup(service, index, &entry, last_error));
}

crust_result CRUST_CALL crust_service_group_peer(crust_service service, const char *name, uint32_t index, crust_group_peer *io) {
    GIVE_ENTRY(crust_group_peer, io,
               name ? goCrustServiceGroupPeer(service, (char *)name, index, &entry, last_error)
                    : fail(CRUST_ERR_INVALID, __func__, "name must not be NULL"));
}

/* ---- who is not wanted ---- */

crust_result CRUST_CALL crust_config_set_gate(crust_config *config, crust_gate_fn fn, void *user, crust_release_fn on_release) {
    FORK_GUARD();
    NEED(config);
    return goCrustConfigSetGate((uintptr_t)config, fn, (uintptr_t)user, on_release, last_error);
}

void crust__release_number(crust_release_fn fn, uintptr_t user) { crust__release(fn, (void *)user); }

int crust__ask(crust_gate_fn fn, uintptr_t user, const crust_peer_id *peer, const void *app_id, size_t app_id_len, const char *endpoint,
               uint8_t how, uint8_t role, uint8_t outbound) {
    crust_gate_request request;
    int yes;
    memset(&request, 0, sizeof request);
    request.struct_size = sizeof request;
    request.how = how;
    request.role = role;
    request.outbound = outbound;
    request.peer = *peer;
    request.app_id = app_id;
    request.app_id_len = app_id_len;
    request.endpoint = endpoint;
    callback_depth++;
    yes = fn((void *)user, &request);
    callback_depth--;
    return yes;
}

crust_result CRUST_CALL crust_ban(crust_service service, const char *const *who, size_t n, uint64_t ms, const char *reason) {
    FORK_GUARD();
    if (n > 0) NEED(who);
    for (size_t i = 0; i < n; i++) NEED(who[i]);
    return goCrustBan(service, (char **)who, n, ms, (char *)(reason ? reason : ""), last_error);
}

crust_result CRUST_CALL crust_unban(crust_service service, const char *const *who, size_t n) {
    FORK_GUARD();
    if (n > 0) NEED(who);
    for (size_t i = 0; i < n; i++) NEED(who[i]);
    return goCrustUnban(service, (char **)who, n, last_error);
}

/* Gives one of an array of structs. */
void crust__give_ban(crust_ban_info *bans, uint32_t size, size_t i, const crust_ban_info *ban) {
    give_struct((char *)bans + i * size, size, ban, sizeof *ban);
}

crust_result CRUST_CALL crust_bans(crust_service service, crust_ban_info *bans, size_t *n) {
    uint32_t size = 0;
    NEED(n);
    if (!bans || *n == 0) *n = 0;
    else size = bans->struct_size;
    FORK_GUARD();
    if (size != 0 && bad_struct(bans, size)) return fail(CRUST_ERR_ABI, __func__, "bans->struct_size must be sizeof(crust_ban_info)");
    if (bans && *n > 0 && size == 0) return fail(CRUST_ERR_ABI, __func__, "bans->struct_size must be sizeof(crust_ban_info)");
    return goCrustBans(service, bans, size, n, last_error);
}

crust_result CRUST_CALL crust_set_allowed(crust_service service, const char *const *nodes, size_t n_nodes,
                                          const char *const *clients, size_t n_clients) {
    FORK_GUARD();
    if (n_nodes > 0) NEED(nodes);
    if (n_clients > 0) NEED(clients);
    for (size_t i = 0; i < n_nodes; i++) NEED(nodes[i]);
    for (size_t i = 0; i < n_clients; i++) NEED(clients[i]);
    return goCrustSetAllowed(service, (char **)nodes, n_nodes, (char **)clients, n_clients, last_error);
}

/* ---- the environment ---- */

const char *crust__variable(const char *name) { return getenv(name); }

/* ---- builds for tests only ---- */

#if defined(CRUST_TEST)
crust_result CRUST_CALL crust__test_panic(crust_service service) {
    FORK_GUARD();
    return goCrustTestPanic(service, last_error);
}
void CRUST_CALL crust__test_panic_dispatch(crust_service service) { goCrustTestPanicDispatch(service); }
int64_t CRUST_CALL crust__test_counter(int32_t what) { return goCrustTestCounter(what); }
#endif

#if defined(CRUST_COVER)
static void cover_flush(void) {
    if (!atomic_load_explicit(&forked, memory_order_relaxed)) goCrustCoverFlush();
}
__attribute__((constructor)) static void cover_register(void) { (void)atexit(cover_flush); }
#endif
