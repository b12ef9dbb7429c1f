/* Configurations: each option, each way to get it wrong. */
#include "host.h"
#include "tap.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void numbers(void) {
    static const crust_option options[] = {
        CRUST_OPT_CONNECT_TIMEOUT_MS, CRUST_OPT_BOOTSTRAP_TIMEOUT_MS, CRUST_OPT_HANDSHAKE_TIMEOUT_MS, CRUST_OPT_HEARTBEAT_MS,
        CRUST_OPT_LOST_AFTER_MS, CRUST_OPT_CLOSE_TIMEOUT_MS, CRUST_OPT_MESSAGE_MAX_AGE_MS, CRUST_OPT_PORT_ROTATION_MS, CRUST_OPT_RESUME_WINDOW_MS, CRUST_OPT_EVENT_QUEUE_BYTES,
        CRUST_OPT_MAX_PEERS, CRUST_OPT_MAX_HANDSHAKES, CRUST_OPT_MAX_HANDSHAKES_PER_ADDRESS, CRUST_OPT_MAX_CONNECTS,
        CRUST_OPT_CACHE_PEERS, CRUST_OPT_MAX_BANS, CRUST_OPT_MAX_GATES, CRUST_OPT_GATE_TIMEOUT_MS};
    crust_config *c = NULL;
    size_t i;
    REQUIRE_CODE(CRUST_OK, crust_config_new(&c));
    for (i = 0; i < sizeof options / sizeof options[0]; i++) {
        CHECK_CODE(CRUST_OK, crust_config_set_u64(c, options[i], 30000));
        CHECK_CODE(CRUST_OK, crust_config_set_u64(c, options[i], 0));
        CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_u64(c, options[i], UINT64_MAX));
        CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_str(c, options[i], "5"));
        CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_bytes(c, options[i], "5", 1));
    }
    CHECK_CODE(CRUST_OK, crust_config_set_u64(c, CRUST_OPT_ROLE, CRUST_ROLE_CLIENT));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_u64(c, CRUST_OPT_ROLE, 2));
    CHECK_CODE(CRUST_OK, crust_config_set_u64(c, CRUST_OPT_CIPHER, 1));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_u64(c, CRUST_OPT_CIPHER, 256));
    CHECK_CODE(CRUST_OK, crust_config_set_u64(c, CRUST_OPT_NO_LISTEN, 1));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_u64(c, CRUST_OPT_NO_LISTEN, 2));
    CHECK_CODE(CRUST_OK, crust_config_set_u64(c, CRUST_OPT_NO_ACCEPT, 1));
    CHECK_CODE(CRUST_OK, crust_config_set_u64(c, CRUST_OPT_NO_NETWORK_WATCH, 1));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_u64(c, CRUST_OPT_NO_NETWORK_WATCH, 2));
    CHECK_CODE(CRUST_OK, crust_config_set_u64(c, CRUST_OPT_RELAY, CRUST_RELAY_DATA));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_u64(c, CRUST_OPT_RELAY, CRUST_RELAY_DATA + 1));
    CHECK_CODE(CRUST_OK, crust_config_set_u64(c, CRUST_OPT_NO_PORT_MAP, 1));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_u64(c, CRUST_OPT_NO_PORT_MAP, 2));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_str(c, CRUST_OPT_NO_PORT_MAP, "off"));
    CHECK_TEXT("option 13 does not take a string");
    CHECK_CODE(CRUST_OK, crust_config_set_u64(c, CRUST_OPT_EXTERNAL_PORT, 65535));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_u64(c, CRUST_OPT_EXTERNAL_PORT, 65536));
    CHECK_CODE(CRUST_OK, crust_config_set_u64(c, CRUST_OPT_BEACON, CRUST_BEACON_LISTEN));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_u64(c, CRUST_OPT_BEACON, CRUST_BEACON_ASK + 1));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_str(c, CRUST_OPT_BEACON, "off"));
    CHECK_TEXT("option 16 does not take a string");
    CHECK_CODE(CRUST_OK, crust_config_set_u64(c, CRUST_OPT_BEACON_PORT, 65535));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_u64(c, CRUST_OPT_BEACON_PORT, 65536));
    CHECK_CODE(CRUST_OK, crust_config_set_str(c, CRUST_OPT_CACHE, "/nowhere/cache"));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_u64(c, CRUST_OPT_CACHE, 1));
    CHECK_TEXT("option 15 does not take a number");
    CHECK_CODE(CRUST_OK, crust_config_add_ban(c, "203.0.113.0/24"));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_add_ban(c, "203.0.113.0/33"));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_add_ban(c, NULL));
    CHECK_CODE(CRUST_OK, crust_config_add_allowed(c, CRUST_ROLE_CLIENT, "::1"));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_add_allowed(c, CRUST_ROLE_CLIENT + 1, "::1"));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_add_allowed(c, CRUST_ROLE_NODE, "tcp://127.0.0.1:1"));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_add_allowed(c, CRUST_ROLE_NODE, NULL));
    CHECK_CODE(CRUST_OK, crust_config_set_u64(c, CRUST_OPT_GOSSIP, CRUST_GOSSIP_OFF));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_u64(c, CRUST_OPT_GOSSIP, CRUST_GOSSIP_OFF + 1));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_str(c, CRUST_OPT_GOSSIP, "off"));
    CHECK_TEXT("option 18 does not take a string");
    CHECK_CODE(CRUST_OK, crust_config_set_u64(c, CRUST_OPT_TRACER, CRUST_TRACER_ON));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_u64(c, CRUST_OPT_TRACER, CRUST_TRACER_ON + 1));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_str(c, CRUST_OPT_TRACER, "on"));
    CHECK_CODE(CRUST_OK, crust_config_set_str(c, CRUST_OPT_KEY_LOG, "keys"));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_u64(c, CRUST_OPT_KEY_LOG, 1));
    CHECK_TEXT("option 71 does not take a number");
    CHECK_CODE(CRUST_OK, crust_config_set_u64(c, CRUST_OPT_LOG_LEVEL, CRUST_LOG_DEBUG));
    CHECK_CODE(CRUST_OK, crust_config_set_u64(c, CRUST_OPT_LOG_LEVEL, CRUST_LOG_OFF));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_u64(c, CRUST_OPT_LOG_LEVEL, CRUST_LOG_DEBUG + 1));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_str(c, CRUST_OPT_LOG_LEVEL, "info"));
    CHECK_TEXT("option 72 does not take a string");
    CHECK_CODE(CRUST_OK, crust_config_set_u64(c, CRUST_OPT_ONLY, 1u << CRUST_HOW_DIALED | 1u << CRUST_HOW_RELAYED));
    CHECK_CODE(CRUST_OK, crust_config_set_u64(c, CRUST_OPT_ONLY, 0));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_u64(c, CRUST_OPT_ONLY, 1u << (CRUST_HOW_RELAYED + 1)));
    CHECK_TEXT("bit 6 stands for no way");
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_u64(c, CRUST_OPT_ONLY, 1));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_str(c, CRUST_OPT_ONLY, "dialed"));
    CHECK_TEXT("option 19 does not take a string");
    CHECK_CODE(CRUST_OK, crust_config_set_u64(c, CRUST_OPT_NO_RESUME, 1));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_u64(c, CRUST_OPT_NO_RESUME, 2));
    CHECK_CODE(CRUST_OK, crust_config_set_u64(c, CRUST_OPT_RESEND_BUFFER_BYTES, 524288));
    CHECK_CODE(CRUST_OK, crust_config_set_u64(c, CRUST_OPT_SEND_QUEUE_BYTES, CRUST_MAX_MESSAGE));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_u64(c, CRUST_OPT_SEND_QUEUE_BYTES, CRUST_MAX_MESSAGE - 1));
    CHECK_TEXT("cannot hold the largest message");
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_u64(c, 9999, 1));
    CHECK_TEXT("option 9999 is not known");
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_u64(c, CRUST_OPT_NETWORK_NAME, 1));
    CHECK_TEXT("does not take a number");
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_u64(c, -1, 1));
    crust_config_free(c);
}

static void texts_and_bytes(void) {
    crust_config *c = NULL;
    char text[CRUST_MAX_NETWORK_NAME + 2];
    uint8_t bytes[CRUST_MAX_APP_ID + 1];
    memset(text, 'x', sizeof text);
    memset(bytes, 0, sizeof bytes);
    REQUIRE_CODE(CRUST_OK, crust_config_new(&c));
    text[CRUST_MAX_NETWORK_NAME] = 0;
    CHECK_CODE(CRUST_OK, crust_config_set_str(c, CRUST_OPT_NETWORK_NAME, text));
    CHECK_CODE(CRUST_OK, crust_config_set_str(c, CRUST_OPT_APP_ID, text));
    text[CRUST_MAX_NETWORK_NAME] = 'x';
    text[CRUST_MAX_NETWORK_NAME + 1] = 0;
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_str(c, CRUST_OPT_NETWORK_NAME, text));
    CHECK_TEXT("257 bytes");
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_str(c, CRUST_OPT_APP_ID, text));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_str(c, CRUST_OPT_NETWORK_NAME, "\xff\xfe"));
    CHECK_TEXT("UTF-8");
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_str(c, CRUST_OPT_IDENTITY_SEED, "secret"));
    CHECK_CODE(CRUST_OK, crust_config_set_bytes(c, CRUST_OPT_APP_ID, bytes, CRUST_MAX_APP_ID));
    CHECK_CODE(CRUST_OK, crust_config_set_bytes(c, CRUST_OPT_APP_ID, NULL, 0));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_bytes(c, CRUST_OPT_APP_ID, bytes, CRUST_MAX_APP_ID + 1));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_bytes(c, CRUST_OPT_APP_ID, NULL, 1));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_bytes(c, CRUST_OPT_APP_ID, bytes, SIZE_MAX));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_bytes(c, CRUST_OPT_IDENTITY_SEED, bytes, CRUST_SEED_SIZE - 1));
    CHECK_TEXT("31 bytes, want 32");
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_bytes(c, CRUST_OPT_NETWORK_NAME, bytes, 1));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_str(c, CRUST_OPT_NETWORK_NAME, NULL));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_str(c, 0, "x"));
    crust_config_free(c);
}

static void endpoints(void) {
    crust_config *c = NULL;
    REQUIRE_CODE(CRUST_OK, crust_config_new(&c));
    CHECK_CODE(CRUST_OK, crust_config_add_listener(c, "tcp://127.0.0.1:0"));
    CHECK_CODE(CRUST_OK, crust_config_add_listener(c, "[::1]:0"));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_add_listener(c, ""));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_add_listener(c, "tcp://localhost:1"));
    CHECK_TEXT("localhost");
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_add_listener(c, "sctp://127.0.0.1:1"));
    CHECK_TEXT("unknown transport");
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_add_listener(c, NULL));
    CHECK_CODE(CRUST_OK, crust_config_add_contact(c, "127.0.0.1:5483"));
    CHECK_CODE(CRUST_OK, crust_config_add_contact(c, "tcp://127.0.0.1:5483#0101010101010101010101010101010101010101010101010101010101010101"));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_add_contact(c, "tcp://127.0.0.1:5483#01"));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_add_contact(c, "127.0.0.1"));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_add_contact(c, NULL));
    crust_config_free(c);
}

static void json(void) {
    static const char good[] = "{\"network\":\"n\",\"heartbeat_ms\":1000,\"lost_after_ms\":5000,\"listen\":[\"tcp://127.0.0.1:0\"]}";
    static const char unknown[] = "{\"no_such_key\":1}";
    crust_config *c = NULL;
    crust_service s = 0;
    REQUIRE_CODE(CRUST_OK, crust_config_new(&c));
    CHECK_CODE(CRUST_OK, crust_config_load_json(c, good, sizeof good - 1));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_load_json(c, unknown, sizeof unknown - 1));
    CHECK_TEXT("no_such_key");
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_load_json(c, "{", 1));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_load_json(c, "", 0));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_load_json(c, NULL, 0));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_load_json(c, NULL, 5));
    CHECK_CODE(CRUST_OK, crust_service_new(c, NULL, &s));
    CHECK_CODE(CRUST_OK, crust_service_free(s));
    /* The bounds between options are looked at when the service is made. */
    CHECK_CODE(CRUST_OK, crust_config_set_u64(c, CRUST_OPT_LOST_AFTER_MS, 1500));
    s = 5;
    CHECK_CODE(CRUST_ERR_INVALID, crust_service_new(c, NULL, &s));
    CHECK(s == 0);
    crust_config_free(c);
}

static void freed_configurations_are_errors(void) {
    crust_config *c = NULL;
    crust_service s = 5;
    REQUIRE_CODE(CRUST_OK, crust_config_new(&c));
    crust_config_free(c);
    CHECK_CODE(CRUST_ERR_BAD_HANDLE, crust_config_set_u64(c, CRUST_OPT_ROLE, 0));
    CHECK_CODE(CRUST_ERR_BAD_HANDLE, crust_config_set_str(c, CRUST_OPT_NETWORK_NAME, "x"));
    CHECK_CODE(CRUST_ERR_BAD_HANDLE, crust_config_set_bytes(c, CRUST_OPT_APP_ID, "x", 1));
    CHECK_CODE(CRUST_ERR_BAD_HANDLE, crust_config_add_listener(c, "127.0.0.1:0"));
    CHECK_CODE(CRUST_ERR_BAD_HANDLE, crust_config_add_contact(c, "127.0.0.1:1"));
    CHECK_CODE(CRUST_ERR_BAD_HANDLE, crust_config_load_json(c, "{}", 2));
    CHECK_CODE(CRUST_ERR_BAD_HANDLE, crust_service_new(c, NULL, &s));
    CHECK(s == 0);
    crust_config_free(c);
    crust_config_free(NULL);
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_new(NULL));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_set_u64(NULL, CRUST_OPT_ROLE, 0));
}

static int id_of(crust_config *c, crust_peer_id *id) {
    crust_service s = 0;
    if (!CHECK_CODE(CRUST_OK, crust_service_new(c, NULL, &s))) return 0;
    CHECK_CODE(CRUST_OK, crust_service_id(s, id));
    return CHECK_CODE(CRUST_OK, crust_service_free(s));
}

static void seed_decides_the_identity(void) {
    uint8_t seed[CRUST_SEED_SIZE];
    crust_peer_id id, first, second;
    crust_config *c = loopback_config();
    REQUIRE(c != NULL);
    CHECK_CODE(CRUST_OK, crust_identity_generate(seed, &id));
    CHECK_CODE(CRUST_OK, crust_config_set_bytes(c, CRUST_OPT_IDENTITY_SEED, seed, sizeof seed));
    /* A service clears its own copy only, so the configuration can be used again. */
    if (id_of(c, &first) && id_of(c, &second)) {
        CHECK(memcmp(&id, &first, sizeof id) == 0);
        CHECK(memcmp(&id, &second, sizeof id) == 0);
    }
    crust_config_free(c);
    c = loopback_config();
    if (c && id_of(c, &first) && id_of(c, &second)) CHECK(memcmp(&first, &second, sizeof first) != 0);
    crust_config_free(c);
}

static void identity_files(void) {
    char dir[] = "/tmp/crust-abi-XXXXXX", path[128];
    crust_peer_id first, second;
    crust_config *c = loopback_config();
    crust_service s = 0;
    struct stat st;
    FILE *f;
    REQUIRE(c != NULL);
    REQUIRE(mkdtemp(dir) != NULL);
    snprintf(path, sizeof path, "%s/id", dir);
    CHECK_CODE(CRUST_OK, crust_config_set_str(c, CRUST_OPT_IDENTITY_FILE, path));
    if (id_of(c, &first) && id_of(c, &second)) CHECK(memcmp(&first, &second, sizeof first) == 0);
    CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600);
    f = fopen(path, "w");
    REQUIRE(f != NULL);
    fputs("this is no identity\n", f);
    fclose(f);
    CHECK_CODE(CRUST_ERR_INVALID, crust_service_new(c, NULL, &s));
    CHECK_TEXT(path);
    unlink(path);
    snprintf(path, sizeof path, "%s/no/such/place", dir);
    CHECK_CODE(CRUST_OK, crust_config_set_str(c, CRUST_OPT_IDENTITY_FILE, path));
    CHECK_CODE(CRUST_ERR_IO, crust_service_new(c, NULL, &s));
    CHECK_TEXT(path);
    rmdir(dir);
    crust_config_free(c);
}

const tap_test config_tests[] = {
    {"numbers are checked", numbers},
    {"texts and bytes are checked", texts_and_bytes},
    {"endpoints and contacts are checked", endpoints},
    {"JSON is read and checked", json},
    {"a freed configuration is an error", freed_configurations_are_errors},
    {"a seed decides the identity", seed_decides_the_identity},
    {"an identity file is made, kept and checked", identity_files},
};
const size_t config_count = sizeof config_tests / sizeof config_tests[0];
