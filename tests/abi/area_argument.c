/* Handles that name nothing, pointers that are NULL, lengths that lie. */
#include "calls.h"
#include "host.h"
#include "tap.h"

#include <string.h>

static void bad_handles(void) {
    crust_peer_id id;
    crust_config *config = NULL;
    crust_service live = loopback_service(NULL), bad[6];
    size_t i;
    REQUIRE(live != 0);
    REQUIRE_CODE(CRUST_OK, crust_config_new(&config));
    bad[0] = 0;
    bad[1] = UINT64_MAX;
    bad[2] = 1;
    bad[3] = live ^ ((uint64_t)1 << 16);             /* another generation */
    bad[4] = (uint64_t)(uintptr_t)config;            /* another kind */
    bad[5] = (live & ~(uint64_t)0xFFFF) | 0xFFFF;    /* a slot that was never used */
    for (i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        check_calls(bad[i], CRUST_ERR_BAD_HANDLE, CRUST_ERR_BAD_HANDLE);
        CHECK_CODE(CRUST_ERR_BAD_HANDLE, crust_service_close(bad[i]));
        CHECK_CODE(CRUST_ERR_BAD_HANDLE, crust_service_free(bad[i]));
        CHECK_CODE(CRUST_ERR_BAD_HANDLE, crust_service_id(bad[i], &id));
    }
    crust_config_free(config);
    CHECK_CODE(CRUST_OK, crust_service_id(live, &id));
    CHECK_CODE(CRUST_OK, crust_service_free(live));
}

static void stale_handles(void) {
    crust_service first = loopback_service(NULL), second;
    crust_peer_id id;
    REQUIRE(first != 0);
    CHECK_CODE(CRUST_OK, crust_service_free(first));
    second = loopback_service(NULL);
    REQUIRE(second != 0);
    CHECK(first != second);
    check_calls(first, CRUST_ERR_BAD_HANDLE, CRUST_ERR_BAD_HANDLE);
    CHECK_CODE(CRUST_ERR_BAD_HANDLE, crust_service_free(first));
    CHECK_CODE(CRUST_ERR_BAD_HANDLE, crust_service_close(first));
    CHECK_CODE(CRUST_OK, crust_service_id(second, &id));
    CHECK_CODE(CRUST_OK, crust_service_free(second));
}

static void null_pointers(void) {
    crust_service s = loopback_service(NULL);
    crust_peer_id peer;
    crust_message m;
    const char *except[] = {"nowhere", NULL};
    crust_result why = 5;
    size_t n = 99;
    uint8_t byte = 0;
    const void *first[65];
    size_t sizes[65] = {1}, i;
    static char large[16385];
    REQUIRE(s != 0);
    memset(&peer, 7, sizeof peer);
    memset(&m, 0, sizeof m);
    CHECK_CODE(CRUST_ERR_INVALID, crust_service_new(NULL, NULL, NULL));
    CHECK_CODE(CRUST_ERR_INVALID, crust_service_id(s, NULL));
    CHECK_CODE(CRUST_ERR_INVALID, crust_service_fd(s, NULL));
    CHECK_CODE(CRUST_ERR_INVALID, crust_poll(s, 0, 0, NULL));
    CHECK_CODE(CRUST_ERR_INVALID, crust_send(s, NULL, "x", 1, 0));
    CHECK_TEXT("peer");
    CHECK_CODE(CRUST_ERR_INVALID, crust_send(s, &peer, NULL, 1, 0));
    CHECK_CODE(CRUST_ERR_INVALID, crust_send(s, &peer, &byte, SIZE_MAX, 0));
    CHECK_CODE(CRUST_ERR_INVALID, crust_send(s, &peer, &byte, (size_t)PTRDIFF_MAX + 1, 0));
    CHECK_CODE(CRUST_ERR_INVALID, crust_send_wait(s, NULL, "x", 1, 0, 0));
    CHECK_CODE(CRUST_ERR_INVALID, crust_send_wait(s, &peer, NULL, 1, 0, 0));
    CHECK_CODE(CRUST_ERR_INVALID, crust_send_wait(s, &peer, &byte, SIZE_MAX, 0, 0));
    CHECK_CODE(CRUST_ERR_INVALID, crust_send_batch(s, NULL, 1, &why));
    CHECK(why == CRUST_ERR_INVALID);
    CHECK_CODE(CRUST_ERR_BAD_HANDLE, crust_send_batch(1, &m, 1, &why));
    CHECK(why == CRUST_ERR_BAD_HANDLE);
    CHECK_CODE(CRUST_ERR_INVALID, crust_send_batch(s, &m, SIZE_MAX, &why));
    CHECK_CODE(CRUST_ERR_INVALID, crust_send_batch(s, &m, (size_t)INT32_MAX + 1, &why));
    CHECK(crust_send_batch(s, NULL, 0, &why) == 0 && why == CRUST_OK);
    CHECK(crust_send_batch(s, NULL, 0, NULL) == 0);
    CHECK_CODE(CRUST_ERR_INVALID, crust_connect(s, NULL, 1, 0));
    CHECK_CODE(CRUST_ERR_BAD_INFO, crust_connect(s, NULL, 0, 0));
    CHECK_CODE(CRUST_ERR_INVALID, crust_connect(s, &byte, SIZE_MAX, 0));
    CHECK_CODE(CRUST_ERR_INVALID, crust_connect_endpoint(s, NULL, 0));
    CHECK_CODE(CRUST_ERR_INVALID, crust_connect_endpoint(s, "nowhere", 0));
    CHECK_CODE(CRUST_ERR_INVALID, crust_connection_info_peer(&byte, 1, NULL));
    CHECK_CODE(CRUST_ERR_INVALID, crust_connection_info_peer(NULL, 1, &peer));
    CHECK_CODE(CRUST_ERR_BAD_INFO, crust_connection_info_peer(NULL, 0, &peer));
    CHECK_CODE(CRUST_ERR_BAD_INFO, crust_connection_info_peer(&byte, 1, &peer));
    CHECK_CODE(CRUST_ERR_INVALID, crust_service_connect_peer(s, NULL, 0));
    CHECK_TEXT("peer");
    CHECK_CODE(CRUST_OK, crust_service_id(s, &peer));
    CHECK_CODE(CRUST_ERR_SELF, crust_service_connect_peer(s, &peer, 0));
    memset(&peer, 0, sizeof peer);
    CHECK_CODE(CRUST_ERR_INVALID, crust_service_connect_peer(s, &peer, 0));
    CHECK_TEXT("zero");
    memset(&peer, 1, sizeof peer);
    first[0] = &byte;
    CHECK_CODE(CRUST_ERR_INVALID, crust_service_connect_peer_with(s, NULL, first, sizes, 1, 0));
    CHECK_TEXT("peer");
    CHECK_CODE(CRUST_ERR_INVALID, crust_service_connect_peer_with(s, &peer, NULL, sizes, 1, 0));
    CHECK_TEXT("first");
    CHECK_CODE(CRUST_ERR_INVALID, crust_service_connect_peer_with(s, &peer, first, NULL, 1, 0));
    CHECK_TEXT("sizes");
    CHECK_CODE(CRUST_ERR_INVALID, crust_service_connect_peer_with(s, &peer, first, sizes, SIZE_MAX, 0));
    first[0] = NULL;
    sizes[0] = 1;
    CHECK_CODE(CRUST_ERR_INVALID, crust_service_connect_peer_with(s, &peer, first, sizes, 1, 0));
    CHECK_TEXT("first");
    first[0] = large;
    sizes[0] = sizeof large;
    CHECK_CODE(CRUST_ERR_INVALID, crust_service_connect_peer_with(s, &peer, first, sizes, 1, 0));
    CHECK_TEXT("16384");
    for (i = 0; i < 65; i++) {
        first[i] = &byte;
        sizes[i] = 1;
    }
    CHECK_CODE(CRUST_ERR_INVALID, crust_service_connect_peer_with(s, &peer, first, sizes, 65, 0));
    CHECK_TEXT("64");
    for (i = 0; i < 4; i++) {
        first[i] = large;
        sizes[i] = PTRDIFF_MAX;
    }
    CHECK_CODE(CRUST_ERR_INVALID, crust_service_connect_peer_with(s, &peer, first, sizes, 2, 0));
    CHECK_TEXT("16384");
    for (i = 0; i < 4; i++) sizes[i] = (size_t)PTRDIFF_MAX / 2 + 1; /* together 0 in a size_t */
    CHECK_CODE(CRUST_ERR_INVALID, crust_service_connect_peer_with(s, &peer, first, sizes, 4, 0));
    CHECK_TEXT("16384");
    CHECK_CODE(CRUST_ERR_INVALID, crust_send(s, &peer, (void *)(UINTPTR_MAX - 1), 3, 0));
    CHECK_TEXT("memory");
    CHECK_CODE(CRUST_ERR_BAD_INFO, crust_connect(s, large, (size_t)1 << 29, 0));
    CHECK_CODE(CRUST_ERR_BAD_INFO, crust_connection_info_peer(large, (size_t)1 << 29, &peer));
    CHECK_CODE(CRUST_ERR_INVALID, crust_disconnect(s, NULL));
    CHECK_CODE(CRUST_ERR_INVALID, crust_listen(s, NULL));
    CHECK_CODE(CRUST_ERR_INVALID, crust_listen(s, "tcp://"));
    CHECK_CODE(CRUST_ERR_INVALID, crust_stop_listening(s, NULL));
    CHECK_CODE(CRUST_ERR_INVALID, crust_stop_listening(s, "tcp://127.0.0.1:1"));
    CHECK_CODE(CRUST_ERR_INVALID, crust_listeners(s, NULL, NULL));
    CHECK_CODE(CRUST_ERR_INVALID, crust_set_accept(s, 2));
    CHECK_CODE(CRUST_ERR_INVALID, crust_set_beacon(s, 4));
    CHECK_CODE(CRUST_ERR_INVALID, crust_ban(s, NULL, 1, 0, NULL));
    CHECK_CODE(CRUST_ERR_INVALID, crust_ban(s, except, 2, 0, NULL));
    CHECK_CODE(CRUST_ERR_INVALID, crust_ban(s, except, 1, 0, NULL));
    CHECK_CODE(CRUST_ERR_INVALID, crust_ban(s, NULL, 0, UINT64_MAX, NULL));
    CHECK_CODE(CRUST_ERR_INVALID, crust_unban(s, NULL, 1));
    CHECK_CODE(CRUST_ERR_INVALID, crust_unban(s, except, 1));
    CHECK_CODE(CRUST_ERR_INVALID, crust_bans(s, NULL, NULL));
    CHECK_CODE(CRUST_ERR_INVALID, crust_set_allowed(s, NULL, 1, NULL, 0));
    CHECK_CODE(CRUST_ERR_INVALID, crust_set_allowed(s, NULL, 0, except, 1));
    CHECK_CODE(CRUST_ERR_INVALID, crust_bootstrap_except(s, NULL, 1, 1));
    CHECK_CODE(CRUST_ERR_INVALID, crust_bootstrap_except(s, except, 2, 1));
    CHECK_CODE(CRUST_ERR_INVALID, crust_bootstrap_except(s, except, 1, 1));
    CHECK_CODE(CRUST_ERR_INVALID, crust_peers(s, &peer, NULL));
    CHECK_CODE(CRUST_ERR_INVALID, crust_peer(s, &peer, NULL));
    CHECK_CODE(CRUST_ERR_INVALID, crust_service_stats(s, NULL));
    CHECK(crust_batch_events(NULL, &n) == NULL && n == 0);
    CHECK(crust_batch_events(NULL, NULL) == NULL);
    CHECK_CODE(CRUST_OK, crust_batch_memory(NULL, NULL, NULL));
    crust_batch_free(NULL);
    CHECK_CODE(CRUST_OK, crust_service_free(s));
}

static void CRUST_CALL never_called(void *user, crust_service service, const crust_event *events, size_t n) {
    (void)user, (void)service, (void)events, (void)n;
}

static void CRUST_CALL count_release(void *user) { ++*(int *)user; }

static void callback_structs(void) {
    struct {
        crust_callbacks known;
        uint64_t        later;
    } big;
    int released = 0;
    crust_service s = 9;
    memset(&big, 0, sizeof big);
    big.known.struct_size = sizeof big.known;
    big.known.on_events = never_called;
    big.known.on_release = count_release;
    big.known.user = &released;

    big.known.struct_size = 0;
    CHECK_CODE(CRUST_ERR_ABI, crust_service_new(NULL, &big.known, &s));
    CHECK(s == 0);
    big.known.struct_size = sizeof big.known - 1;
    CHECK_CODE(CRUST_ERR_ABI, crust_service_new(NULL, &big.known, &s));
    big.known.struct_size = UINT32_MAX;
    CHECK_CODE(CRUST_ERR_ABI, crust_service_new(NULL, &big.known, &s));
    big.known.struct_size = sizeof big;
    big.later = 1;
    CHECK_CODE(CRUST_ERR_ABI, crust_service_new(NULL, &big.known, &s));
    big.known.struct_size = sizeof big.known;
    big.known.reserved = 1;
    CHECK_CODE(CRUST_ERR_INVALID, crust_service_new(NULL, &big.known, &s));
    big.known.reserved = 0;
    big.known.on_events = NULL;
    CHECK_CODE(CRUST_ERR_INVALID, crust_service_new(NULL, &big.known, &s));
    CHECK(released == 0);
    /* A larger struct whose additions are zero is a program of a later version. */
    big.known.on_events = never_called;
    big.known.struct_size = sizeof big;
    big.later = 0;
    REQUIRE_CODE(CRUST_OK, crust_service_new(NULL, &big.known, &s));
    CHECK_CODE(CRUST_OK, crust_service_free(s));
    CHECK(released == 1);
}

static void stats_and_peer_structs(void) {
    struct {
        crust_stats known;
        uint8_t     later[24];
    } big;
    crust_service s = loopback_service(NULL);
    crust_peer_info info;
    crust_peer_id peer;
    inbox in;
    REQUIRE(s != 0);
    memset(&in, 0, sizeof in);
    in.service = s;
    CHECK(inbox_await(&in, CRUST_EVENT_LISTENER_STARTED) != NULL);
    memset(&big, 0xAA, sizeof big);
    big.known.struct_size = sizeof big;
    CHECK_CODE(CRUST_OK, crust_service_stats(s, &big.known));
    CHECK(big.known.struct_size == sizeof big && big.known.listeners == 1 && big.known.peers == 0);
    CHECK(big.later[0] == 0 && big.later[23] == 0);
    memset(&big, 0xAA, sizeof big);
    big.known.struct_size = 24;
    CHECK_CODE(CRUST_OK, crust_service_stats(s, &big.known));
    CHECK(big.known.struct_size == 24 && big.known.listeners == 1);
    CHECK(big.known.handshakes == UINT64_C(0xAAAAAAAAAAAAAAAA)); /* beyond 24: untouched */
    big.known.struct_size = 7;
    CHECK_CODE(CRUST_ERR_ABI, crust_service_stats(s, &big.known));
    big.known.struct_size = UINT32_MAX;
    CHECK_CODE(CRUST_ERR_ABI, crust_service_stats(s, &big.known));
    memset(&info, 0, sizeof info);
    memset(&peer, 9, sizeof peer);
    CHECK_CODE(CRUST_ERR_ABI, crust_peer(s, &peer, &info));
    info.struct_size = sizeof info;
    CHECK_CODE(CRUST_ERR_INVALID, crust_peer(s, NULL, &info));
    CHECK_CODE(CRUST_ERR_UNKNOWN_PEER, crust_peer(s, &peer, &info));
    inbox_done(&in);
    CHECK_CODE(CRUST_OK, crust_service_free(s));
}

static void nat_structs(void) {
    struct {
        crust_nat_flow known;
        uint8_t        later[24];
    } big;
    crust_service s = loopback_service(NULL);
    crust_nat nat;
    crust_nat_flow tcp;
    REQUIRE(s != 0);
    memset(&nat, 0xAA, sizeof nat);
    memset(&tcp, 0xAA, sizeof tcp);
    memset(&big, 0xAA, sizeof big);
    nat.struct_size = sizeof nat;
    tcp.struct_size = offsetof(crust_nat_flow, step);
    big.known.struct_size = sizeof big;
    CHECK_CODE(CRUST_OK, crust_service_nat(s, &nat, &big.known, &tcp));
    CHECK(nat.struct_size == sizeof nat && nat.reachable == 0 && nat.cgnat == 0 && nat.pending == 0 && nat.reserved == 0);
    CHECK(strstr(nat.why, "no peer has told") != NULL);
    CHECK(big.known.struct_size == sizeof big && big.known.mapping == CRUST_NAT_UNKNOWN && big.known.external[0] == 0);
    CHECK(big.known.ports == CRUST_NAT_PORTS_UNKNOWN && big.known.step == 0 && big.known.confidence == 0);
    CHECK(big.later[0] == 0 && big.later[23] == 0);
    CHECK(tcp.struct_size == offsetof(crust_nat_flow, step) && tcp.ports == 0 && tcp.hairpin == 0);
    CHECK((uint16_t)tcp.step == 0xAAAA && (uint8_t)tcp.external[0] == 0xAA); /* beyond what it has: untouched */
    CHECK_CODE(CRUST_OK, crust_service_nat(s, NULL, NULL, NULL));
    nat.struct_size = 7;
    CHECK_CODE(CRUST_ERR_ABI, crust_service_nat(s, &nat, NULL, NULL));
    tcp.struct_size = 7;
    CHECK_CODE(CRUST_ERR_ABI, crust_service_nat(s, NULL, NULL, &tcp));
    tcp.struct_size = UINT32_MAX;
    CHECK_CODE(CRUST_ERR_ABI, crust_service_nat(s, NULL, &tcp, NULL));
    CHECK_CODE(CRUST_OK, crust_service_free(s));
}

static void nat_lists(void) {
    crust_nat_server server;
    crust_nat_port   port;
    crust_nat_seen   seen;
    crust_lan_peer   peer;
    crust_config    *config = NULL;
    crust_service    s = 0;
    int              i;
    REQUIRE_CODE(CRUST_OK, crust_config_new(&config));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_add_stun(config, ""));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_add_stun(config, "0.0.0.0:1"));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_add_stun(config, NULL));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_add_stun(NULL, "127.0.0.1"));
    for (i = 0; i < 8; i++) CHECK_CODE(CRUST_OK, crust_config_add_stun(config, "127.0.0.1:1"));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_add_stun(config, "127.0.0.1:1"));
    REQUIRE_CODE(CRUST_OK, crust_config_add_listener(config, "utp://127.0.0.1:0"));
    REQUIRE_CODE(CRUST_OK, crust_service_new(config, NULL, &s));
    crust_config_free(config);
    memset(&server, 0xAA, sizeof server);
    server.struct_size = sizeof server;
    CHECK_CODE(8, crust_service_nat_server(s, 7, &server));
    CHECK(strcmp(server.server, "127.0.0.1:1") == 0 && server.seen[0] == 0 && server.reserved == 0);
    CHECK_CODE(8, crust_service_nat_server(s, 8, &server));
    CHECK(server.struct_size == sizeof server && server.server[0] == 0 && server.error[255] == 0);
    CHECK_CODE(8, crust_service_nat_server(s, UINT32_MAX, NULL));
    server.struct_size = 7;
    CHECK_CODE(CRUST_ERR_ABI, crust_service_nat_server(s, 0, &server));
    memset(&port, 0xAA, sizeof port);
    port.struct_size = sizeof port;
    CHECK_CODE(0, crust_service_nat_port(s, 0, &port)); /* listeners on loopback need no router */
    CHECK(port.struct_size == sizeof port && port.internal[0] == 0 && port.text[255] == 0 && port.code == 0);
    port.struct_size = UINT32_MAX;
    CHECK_CODE(CRUST_ERR_ABI, crust_service_nat_port(s, 0, &port));
    memset(&seen, 0xAA, sizeof seen);
    seen.struct_size = sizeof seen;
    CHECK_CODE(0, crust_service_nat_seen(s, 0, &seen)); /* nobody is connected */
    CHECK(seen.struct_size == sizeof seen && seen.reserved == 0 && seen.from[0] == 0 && seen.at[63] == 0);
    CHECK_CODE(0, crust_service_nat_seen(s, UINT32_MAX, NULL));
    seen.struct_size = 7;
    CHECK_CODE(CRUST_ERR_ABI, crust_service_nat_seen(s, 0, &seen));
    memset(&peer, 0xAA, sizeof peer);
    peer.struct_size = sizeof peer;
    CHECK_CODE(0, crust_service_lan_peer(s, 0, &peer)); /* the beacon is off in tests */
    CHECK(peer.struct_size == sizeof peer && peer.role == 0 && peer.endpoints[0] == 0 && peer.endpoints[1023] == 0);
    CHECK_CODE(0, crust_service_lan_peer(s, UINT32_MAX, NULL));
    peer.struct_size = 7;
    CHECK_CODE(CRUST_ERR_ABI, crust_service_lan_peer(s, 0, &peer));
    CHECK_CODE(CRUST_OK, crust_service_free(s));
}

static void known_list(void) {
    crust_known_peer list[2];
    crust_config    *config = NULL;
    crust_service    s = 0;
    size_t           n = 2;
    REQUIRE_CODE(CRUST_OK, crust_config_new(&config));
    REQUIRE_CODE(CRUST_OK, crust_config_add_listener(config, "tcp://127.0.0.1:0"));
    REQUIRE_CODE(CRUST_OK, crust_service_new(config, NULL, &s));
    crust_config_free(config);
    memset(list, 0xAA, sizeof list);
    list[0].struct_size = sizeof list[0];
    CHECK_CODE(CRUST_OK, crust_service_known(s, NULL, list, &n)); /* nobody has told of anybody */
    CHECK(n == 0);
    n = 2;
    CHECK_CODE(CRUST_OK, crust_service_known(s, &list[1].peer, list, &n));
    CHECK(n == 0);
    n = 2;
    CHECK_CODE(CRUST_OK, crust_service_known(s, NULL, NULL, &n));
    CHECK(n == 0);
    list[0].struct_size = 7; /* of no struct, and there is no room */
    CHECK_CODE(CRUST_OK, crust_service_known(s, NULL, list, &n));
    n = 2;
    CHECK_CODE(CRUST_ERR_ABI, crust_service_known(s, NULL, list, &n));
    CHECK(n == 0);
    n = 2;
    list[0].struct_size = 12;
    CHECK_CODE(CRUST_ERR_ABI, crust_service_known(s, NULL, list, &n));
    n = 2;
    list[0].struct_size = UINT32_MAX;
    CHECK_CODE(CRUST_ERR_ABI, crust_service_known(s, NULL, list, &n));
    CHECK_CODE(CRUST_ERR_INVALID, crust_service_known(s, NULL, list, NULL));
    CHECK_CODE(CRUST_OK, crust_service_free(s));
}

const tap_test argument_tests[] = {
    {"handles that name nothing", bad_handles},
    {"handles that name nothing any more", stale_handles},
    {"NULL and lengths that lie", null_pointers},
    {"crust_callbacks of other sizes", callback_structs},
    {"crust_stats and crust_peer_info of other sizes", stats_and_peer_structs},
    {"crust_nat and crust_nat_flow of other sizes", nat_structs},
    {"servers of STUN, and mapped ports", nat_lists},
    {"the list of known peers", known_list},
};
const size_t argument_count = sizeof argument_tests / sizeof argument_tests[0];
