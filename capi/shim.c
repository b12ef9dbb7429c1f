/*
 * shim.c - the functions of crust.h, but for those that look at a service, which
 * are in look.c. The shim does what Go cannot do or what is wrong to do in Go: it
 * refuses work in a forked child before Go is entered, knows whether the thread is
 * inside a callback, keeps the thread's last error, checks pointers and lengths,
 * and clears what is given back.
 *
 * Including crust.h and _cgo_export.h lets the compiler hold the public
 * prototypes, the shim and the Go functions together.
 */
#include "guard.h"
#include "_cgo_export.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#if !defined(_WIN32)
#  include <pthread.h>
#endif

#define CRUST__TEXT1(x) #x
#define CRUST__TEXT(x) CRUST__TEXT1(x)

atomic_int crust__forked;
_Thread_local char crust__last_error[CRUST__ERROR_SIZE];
static _Thread_local int callback_depth;

#if !defined(_WIN32)
/* Only the forking thread lives on in the child, without the Go runtime's
 * threads. The handler must not, and does not, call Go. */
static void in_child(void) { atomic_store_explicit(&crust__forked, 1, memory_order_relaxed); }
__attribute__((constructor)) static void watch_fork(void) { (void)pthread_atfork(NULL, NULL, in_child); }
#endif

crust_result crust__fail(crust_result code, const char *function, const char *what) {
    (void)snprintf(crust__last_error, sizeof crust__last_error, "%s: %s", function, what);
    return code;
}

crust_result crust__fail_forked(const char *function) {
    return crust__fail(CRUST_ERR_FORKED, function, "this process was forked after libcrust was loaded");
}

#define BLOCK_GUARD()                                                                                           \
    do {                                                                                                        \
        if (callback_depth > 0)                                                                                 \
            return crust__fail(CRUST_ERR_WOULD_DEADLOCK, __func__, "a blocking call is not allowed in a callback"); \
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

const char *CRUST_CALL crust_last_error(void) { return crust__last_error; }

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
        if (low < 0) return crust__fail(CRUST_ERR_INVALID, __func__, "a peer id is 64 hexadecimal digits");
        id.bytes[i] = (uint8_t)(high << 4 | low);
    }
    if (text[2 * CRUST_PEER_ID_SIZE] != 0) return crust__fail(CRUST_ERR_INVALID, __func__, "a peer id is 64 hexadecimal digits");
    *out = id;
    return CRUST_OK;
}

/* ---- identities and configuration ---- */

crust_result CRUST_CALL crust_identity_generate(uint8_t seed[CRUST_SEED_SIZE], crust_peer_id *id) {
    if (id) memset(id, 0, sizeof *id);
    NEED(seed);
    memset(seed, 0, CRUST_SEED_SIZE);
    FORK_GUARD();
    return goCrustIdentityGenerate(seed, id, crust__last_error);
}

crust_result CRUST_CALL crust_config_new(crust_config **out) {
    uintptr_t handle = 0;
    crust_result r;
    NEED(out);
    *out = NULL;
    FORK_GUARD();
    r = goCrustConfigNew(&handle, crust__last_error);
    *out = (crust_config *)handle; /* never followed, see config.go */
    return r;
}

void CRUST_CALL crust_config_free(crust_config *config) {
    if (config && !atomic_load_explicit(&crust__forked, memory_order_relaxed)) goCrustConfigFree((uintptr_t)config);
}

crust_result CRUST_CALL crust_config_set_u64(crust_config *config, crust_option option, uint64_t value) {
    FORK_GUARD();
    NEED(config);
    return goCrustConfigSetU64((uintptr_t)config, option, value, crust__last_error);
}

crust_result CRUST_CALL crust_config_set_str(crust_config *config, crust_option option, const char *value) {
    FORK_GUARD();
    NEED(config);
    NEED(value);
    return goCrustConfigSetStr((uintptr_t)config, option, (char *)value, crust__last_error);
}

crust_result CRUST_CALL crust_config_set_bytes(crust_config *config, crust_option option, const void *value, size_t len) {
    FORK_GUARD();
    NEED(config);
    NEED_BYTES(value, len);
    return goCrustConfigSetBytes((uintptr_t)config, option, (void *)value, len, crust__last_error);
}

crust_result CRUST_CALL crust_config_add_listener(crust_config *config, const char *endpoint) {
    FORK_GUARD();
    NEED(config);
    NEED(endpoint);
    return goCrustConfigAddListener((uintptr_t)config, (char *)endpoint, crust__last_error);
}

crust_result CRUST_CALL crust_config_add_contact(crust_config *config, const char *contact) {
    FORK_GUARD();
    NEED(config);
    NEED(contact);
    return goCrustConfigAddContact((uintptr_t)config, (char *)contact, crust__last_error);
}

crust_result CRUST_CALL crust_config_add_stun(crust_config *config, const char *server) {
    FORK_GUARD();
    NEED(config);
    NEED(server);
    return goCrustConfigAddSTUN((uintptr_t)config, (char *)server, crust__last_error);
}

crust_result CRUST_CALL crust_config_add_ban(crust_config *config, const char *who) {
    FORK_GUARD();
    NEED(config);
    NEED(who);
    return goCrustConfigAddBan((uintptr_t)config, (char *)who, crust__last_error);
}

crust_result CRUST_CALL crust_config_add_allowed(crust_config *config, uint32_t role, const char *prefix) {
    FORK_GUARD();
    NEED(config);
    NEED(prefix);
    return goCrustConfigAddAllowed((uintptr_t)config, role, (char *)prefix, crust__last_error);
}

crust_result CRUST_CALL crust_config_load_json(crust_config *config, const char *json, size_t len) {
    FORK_GUARD();
    NEED(config);
    NEED_BYTES(json, len);
    return goCrustConfigLoadJSON((uintptr_t)config, (char *)json, len, crust__last_error);
}

/* ---- life ---- */

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
        return crust__fail(CRUST_ERR_ABI, fn, "callbacks->struct_size must be sizeof(crust_callbacks)");
    if (!zero_beyond(c, sizeof *c, c->struct_size))
        return crust__fail(CRUST_ERR_ABI, fn, "callbacks has fields that this version of libcrust does not know");
    if (c->reserved) return crust__fail(CRUST_ERR_INVALID, fn, "callbacks->reserved must be 0");
    if (!c->on_events) return crust__fail(CRUST_ERR_INVALID, fn, "callbacks->on_events must not be NULL");
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
    return goCrustServiceNew((uintptr_t)config, (crust_callbacks *)callbacks, out, crust__last_error);
}

crust_result CRUST_CALL crust_service_close(crust_service service) {
    FORK_GUARD();
    return goCrustServiceClose(service, crust__last_error);
}

crust_result CRUST_CALL crust_service_free(crust_service service) {
    FORK_GUARD();
    BLOCK_GUARD();
    return goCrustServiceFree(service, crust__last_error);
}

crust_result CRUST_CALL crust_service_id(crust_service service, crust_peer_id *out) {
    NEED(out);
    memset(out, 0, sizeof *out);
    FORK_GUARD();
    return goCrustServiceID(service, out, crust__last_error);
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
    return goCrustServiceFD(service, out, crust__last_error);
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
        crust_result r = goCrustPoll(service, timeout_ms != 0, max_events, out, &waiter, &seen, crust__last_error);
        /* The service may have been freed between waking up and looking. */
        if (r == CRUST_ERR_BAD_HANDLE && begun) return crust__fail(CRUST_ERR_CLOSED, __func__, "the service was freed");
        if (!waiter) return r;
        if (timeout_ms > 0 && !begun) crust__deadline(&deadline, timeout_ms);
        begun = 1;
        /* Once more when the time is up, without waiting. */
        if (!crust__waiter_wait(waiter, seen, timeout_ms > 0 ? &deadline : NULL)) timeout_ms = 0;
    }
}

crust_result CRUST_CALL crust_wakeup(crust_service service) {
    FORK_GUARD();
    return goCrustWakeup(service, crust__last_error);
}

/* ---- messages ---- */

crust_result CRUST_CALL crust_send(crust_service service, const crust_peer_id *peer, const void *data, size_t len, uint8_t priority) {
    FORK_GUARD();
    NEED(peer);
    NEED_BYTES(data, len);
    return goCrustSend(service, (crust_peer_id *)peer, (void *)data, len, priority, crust__last_error);
}

crust_result CRUST_CALL crust_send_wait(crust_service service, const crust_peer_id *peer, const void *data, size_t len, uint8_t priority, int32_t timeout_ms) {
    FORK_GUARD();
    BLOCK_GUARD();
    NEED(peer);
    NEED_BYTES(data, len);
    return goCrustSendWait(service, (crust_peer_id *)peer, (void *)data, len, priority, timeout_ms, crust__last_error);
}

static crust_result send_batch(crust_service service, const crust_message *messages, size_t n, crust_result *why) {
    static const char fn[] = "crust_send_batch";
    if (atomic_load_explicit(&crust__forked, memory_order_relaxed)) return crust__fail_forked(fn);
    if (!messages && n > 0) return crust__fail(CRUST_ERR_INVALID, fn, "messages is NULL but n is not 0");
    if (n > INT32_MAX) return crust__fail(CRUST_ERR_INVALID, fn, "n is larger than the result can count");
    return goCrustSendBatch(service, (crust_message *)messages, n, why, crust__last_error);
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
    return goCrustSendReceipt(service, (crust_peer_id *)peer, (void *)data, len, priority, token, crust__last_error);
}

crust_result CRUST_CALL crust_send_datagram(crust_service service, const crust_peer_id *peer, const void *data, size_t len) {
    FORK_GUARD();
    NEED(peer);
    NEED_BYTES(data, len);
    return goCrustSendDatagram(service, (crust_peer_id *)peer, (void *)data, len, crust__last_error);
}

crust_result CRUST_CALL crust_max_datagram(crust_service service, const crust_peer_id *peer) {
    FORK_GUARD();
    NEED(peer);
    return goCrustMaxDatagram(service, (crust_peer_id *)peer, crust__last_error);
}

/* ---- connecting ---- */

crust_result CRUST_CALL crust_prepare_connection_info(crust_service service, uint64_t token) {
    FORK_GUARD();
    return goCrustPrepareConnectionInfo(service, token, crust__last_error);
}

crust_result CRUST_CALL crust_connect(crust_service service, const void *info, size_t len, uint64_t token) {
    FORK_GUARD();
    NEED_BYTES(info, len);
    return goCrustConnect(service, (void *)info, len, token, crust__last_error);
}

crust_result CRUST_CALL crust_connect_endpoint(crust_service service, const char *contact, uint64_t token) {
    FORK_GUARD();
    NEED(contact);
    return goCrustConnectEndpoint(service, (char *)contact, token, crust__last_error);
}

crust_result CRUST_CALL crust_service_connect_peer(crust_service service, const crust_peer_id *peer, uint64_t token) {
    FORK_GUARD();
    NEED(peer);
    return goCrustConnectPeer(service, (crust_peer_id *)peer, token, crust__last_error);
}

enum { MAX_FIRST = 64 }; /* MaxFirst of core */

crust_result CRUST_CALL crust_service_connect_peer_with(crust_service service, const crust_peer_id *peer, const void *const *first, const size_t *sizes, size_t n, uint64_t token) {
    FORK_GUARD();
    NEED(peer);
    if (n > 0) {
        NEED(first);
        NEED(sizes);
    }
    if (n > MAX_FIRST) return crust__fail(CRUST_ERR_INVALID, __func__, "n is more than 64");
    for (size_t i = 0; i < n; i++) NEED_BYTES(first[i], sizes[i]);
    return goCrustConnectPeerWith(service, (crust_peer_id *)peer, (void **)first, (size_t *)sizes, n, token, crust__last_error);
}

crust_result CRUST_CALL crust_connection_info_peer(const void *info, size_t len, crust_peer_id *out) {
    NEED(out);
    memset(out, 0, sizeof *out);
    FORK_GUARD();
    NEED_BYTES(info, len);
    return goCrustConnectionInfoPeer((void *)info, len, out, crust__last_error);
}

crust_result CRUST_CALL crust_disconnect(crust_service service, const crust_peer_id *peer) {
    FORK_GUARD();
    NEED(peer);
    return goCrustDisconnect(service, (crust_peer_id *)peer, crust__last_error);
}

crust_result CRUST_CALL crust_bootstrap(crust_service service, uint64_t token) {
    FORK_GUARD();
    return goCrustBootstrap(service, token, crust__last_error);
}

crust_result CRUST_CALL crust_bootstrap_except(crust_service service, const char *const *except, size_t n, uint64_t token) {
    FORK_GUARD();
    if (n > 0) NEED(except);
    for (size_t i = 0; i < n; i++) NEED(except[i]);
    return goCrustBootstrapExcept(service, (char **)except, n, token, crust__last_error);
}

crust_result CRUST_CALL crust_stop_bootstrap(crust_service service) {
    FORK_GUARD();
    return goCrustStopBootstrap(service, crust__last_error);
}

/* ---- listeners ---- */

crust_result CRUST_CALL crust_listen(crust_service service, const char *endpoint) {
    FORK_GUARD();
    NEED(endpoint);
    return goCrustListen(service, (char *)endpoint, crust__last_error);
}

crust_result CRUST_CALL crust_stop_listening(crust_service service, const char *endpoint) {
    FORK_GUARD();
    NEED(endpoint);
    return goCrustStopListening(service, (char *)endpoint, crust__last_error);
}

crust_result CRUST_CALL crust_listeners(crust_service service, char *buf, size_t *len) {
    NEED(len);
    if (!buf) *len = 0;
    else if (*len > 0) buf[0] = 0;
    FORK_GUARD();
    return goCrustListeners(service, buf, len, crust__last_error);
}

crust_result CRUST_CALL crust_set_accept(crust_service service, int accept) {
    FORK_GUARD();
    if (accept != 0 && accept != 1) return crust__fail(CRUST_ERR_INVALID, __func__, "accept must be 0 or 1");
    return goCrustSetAccept(service, accept, crust__last_error);
}

crust_result CRUST_CALL crust_set_beacon(crust_service service, uint32_t mode) {
    FORK_GUARD();
    return goCrustSetBeacon(service, mode, crust__last_error);
}

crust_result CRUST_CALL crust_service_network_changed(crust_service service) {
    FORK_GUARD();
    return goCrustNetworkChanged(service, crust__last_error);
}

/* ---- groups ---- */

static crust_result check_group(const crust_group *g) {
    static const char fn[] = "crust_service_keep";
    size_t i;
    if (g->struct_size < sizeof *g || g->struct_size > MAX_STRUCT_SIZE)
        return crust__fail(CRUST_ERR_ABI, fn, "group->struct_size must be sizeof(crust_group)");
    if (!zero_beyond(g, sizeof *g, g->struct_size))
        return crust__fail(CRUST_ERR_ABI, fn, "group has fields that this version of libcrust does not know");
    if (g->reserved) return crust__fail(CRUST_ERR_INVALID, fn, "group->reserved must be 0");
    if (!g->name) return crust__fail(CRUST_ERR_INVALID, fn, "group->name must not be NULL");
    if ((!g->peers && g->n_peers) || (!g->contacts && g->n_contacts) || ((!g->infos || !g->info_lens) && g->n_infos))
        return crust__fail(CRUST_ERR_INVALID, fn, "an array of group is NULL but its length is not 0");
    if (g->n_peers > CRUST_MAX_KEPT || g->n_contacts > CRUST_MAX_KEPT || g->n_infos > CRUST_MAX_KEPT)
        return crust__fail(CRUST_ERR_LIMIT, fn, "group has more than 4096 peers, contacts or infos");
    for (i = 0; i < g->n_contacts; i++) {
        if (!g->contacts[i]) return crust__fail(CRUST_ERR_INVALID, fn, "a contact of group is NULL");
    }
    for (i = 0; i < g->n_infos; i++) {
        if (!g->infos[i] && g->info_lens[i]) return crust__fail(CRUST_ERR_INVALID, fn, "an info of group is NULL but its length is not 0");
        if (g->info_lens[i] > (size_t)PTRDIFF_MAX) return crust__fail(CRUST_ERR_INVALID, fn, "an info of group is larger than any memory block");
    }
    return CRUST_OK;
}

crust_result CRUST_CALL crust_service_keep(crust_service service, const crust_group *group) {
    crust_result r;
    FORK_GUARD();
    NEED(group);
    if ((r = check_group(group)) != CRUST_OK) return r;
    return goCrustServiceKeep(service, (crust_group *)group, crust__last_error);
}

crust_result CRUST_CALL crust_service_release(crust_service service, const char *name) {
    FORK_GUARD();
    NEED(name);
    return goCrustServiceRelease(service, (char *)name, crust__last_error);
}

/* ---- who is not wanted ---- */

crust_result CRUST_CALL crust_config_set_gate(crust_config *config, crust_gate_fn fn, void *user, crust_release_fn on_release) {
    FORK_GUARD();
    NEED(config);
    return goCrustConfigSetGate((uintptr_t)config, fn, (uintptr_t)user, on_release, crust__last_error);
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
    return goCrustBan(service, (char **)who, n, ms, (char *)(reason ? reason : ""), crust__last_error);
}

crust_result CRUST_CALL crust_unban(crust_service service, const char *const *who, size_t n) {
    FORK_GUARD();
    if (n > 0) NEED(who);
    for (size_t i = 0; i < n; i++) NEED(who[i]);
    return goCrustUnban(service, (char **)who, n, crust__last_error);
}

crust_result CRUST_CALL crust_set_allowed(crust_service service, const char *const *nodes, size_t n_nodes,
                                          const char *const *clients, size_t n_clients) {
    FORK_GUARD();
    if (n_nodes > 0) NEED(nodes);
    if (n_clients > 0) NEED(clients);
    for (size_t i = 0; i < n_nodes; i++) NEED(nodes[i]);
    for (size_t i = 0; i < n_clients; i++) NEED(clients[i]);
    return goCrustSetAllowed(service, (char **)nodes, n_nodes, (char **)clients, n_clients, crust__last_error);
}

/* ---- the environment ---- */

const char *crust__variable(const char *name) { return getenv(name); }

/* ---- builds for tests only ---- */

#if defined(CRUST_TEST)
crust_result CRUST_CALL crust__test_panic(crust_service service) {
    FORK_GUARD();
    return goCrustTestPanic(service, crust__last_error);
}
void CRUST_CALL crust__test_panic_dispatch(crust_service service) { goCrustTestPanicDispatch(service); }
int64_t CRUST_CALL crust__test_counter(int32_t what) { return goCrustTestCounter(what); }
#endif

#if defined(CRUST_COVER)
static void cover_flush(void) {
    if (!atomic_load_explicit(&crust__forked, memory_order_relaxed)) goCrustCoverFlush();
}
__attribute__((constructor)) static void cover_register(void) { (void)atexit(cover_flush); }
#endif
