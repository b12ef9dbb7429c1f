/* Versions, result codes, last error, peer ids: the pure functions. */
#include "host.h"
#include "tap.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

static void versions(void) {
    char text[32];
    snprintf(text, sizeof text, "%d.%d.%d", CRUST_VERSION_MAJOR, CRUST_VERSION_MINOR, CRUST_VERSION_PATCH);
    CHECK(strcmp(crust_version_string(), text) == 0);
    CHECK(crust_version_number() == ((uint32_t)CRUST_VERSION_MAJOR << 16 | CRUST_VERSION_MINOR << 8 | CRUST_VERSION_PATCH));
    CHECK(crust_abi_version() == CRUST_ABI_VERSION);
}

static void features(void) {
    CHECK(crust_has("tcp") == 1);
    CHECK(crust_has("fd") == 1);
    CHECK(crust_has("utp") == 1);
    CHECK(crust_has("teleport") == 0);
    CHECK(crust_has("") == 0);
    CHECK(crust_has(NULL) == 0);
}

static void codes(void) {
    CHECK(strcmp(crust_error_name(CRUST_ERR_WOULD_BLOCK), "would_block") == 0);
    CHECK(strcmp(crust_error_name(CRUST_OK), "ok") == 0);
    CHECK(strcmp(crust_error_name(-9999), "unknown") == 0);
    CHECK(strcmp(crust_error_name(7), "unknown") == 0);
    CHECK(strcmp(crust_strerror(CRUST_ERR_CLOSED), "the service is closed") == 0);
    CHECK(strcmp(crust_strerror(-9999), "unknown code") == 0);
}

static void *other_thread(void *arg) {
    (void)arg;
    CHECK(strcmp(crust_last_error(), "") == 0);
    CHECK_CODE(CRUST_ERR_INVALID, crust_peer_id_parse("xyz", NULL));
    CHECK_TEXT("crust_peer_id_parse");
    return NULL;
}

static void last_error_is_of_the_thread(void) {
    pthread_t thread;
    crust_peer_id id;
    char before[512];
    CHECK_CODE(CRUST_ERR_BAD_HANDLE, crust_service_close(0));
    CHECK_TEXT("crust_service_close");
    CHECK_TEXT("handle");
    snprintf(before, sizeof before, "%s", crust_last_error());
    REQUIRE(pthread_create(&thread, NULL, other_thread, NULL) == 0);
    pthread_join(thread, NULL);
    CHECK(strcmp(before, crust_last_error()) == 0);
    memset(&id, 1, sizeof id);
    {
        char text[CRUST_PEER_ID_TEXT];
        CHECK_CODE(CRUST_OK, crust_peer_id_format(&id, text));
    }
    CHECK(strcmp(before, crust_last_error()) == 0); /* success leaves it */
}

static void long_texts_are_cut_between_characters(void) {
    crust_config *config = NULL;
    char long_text[2000] = "";
    const char *last;
    size_t i, n;
    for (i = 0; i + 3 < sizeof long_text; i += 3) memcpy(long_text + i, "\xe2\x82\xac", 4); /* euro signs */
    REQUIRE_CODE(CRUST_OK, crust_config_new(&config));
    CHECK_CODE(CRUST_ERR_INVALID, crust_config_add_listener(config, long_text));
    last = crust_last_error();
    n = strlen(last);
    CHECK(n > 400 && n < 512);
    /* It may not end inside a character of three bytes. */
    for (i = n; i > 0 && ((unsigned char)last[i - 1] & 0xC0) == 0x80; i--) {}
    CHECK(i > 0 && ((unsigned char)last[i - 1] < 0x80 || n - (i - 1) == 3));
    crust_config_free(config);
}

static void peer_ids(void) {
    crust_peer_id id, back, zero;
    char text[CRUST_PEER_ID_TEXT], upper[CRUST_PEER_ID_TEXT];
    size_t i;
    memset(&zero, 0, sizeof zero);
    for (i = 0; i < CRUST_PEER_ID_SIZE; i++) id.bytes[i] = (uint8_t)(i * 37 + 200);
    CHECK_CODE(CRUST_OK, crust_peer_id_format(&id, text));
    CHECK(strlen(text) == 64);
    CHECK(memcmp(text, "c8ed", 4) == 0);
    CHECK_CODE(CRUST_OK, crust_peer_id_parse(text, &back));
    CHECK(memcmp(&id, &back, sizeof id) == 0);
    for (i = 0; i < 65; i++) upper[i] = (char)(text[i] >= 'a' ? text[i] - 32 : text[i]);
    CHECK_CODE(CRUST_OK, crust_peer_id_parse(upper, &back));
    CHECK(memcmp(&id, &back, sizeof id) == 0);
    upper[63] = 0;
    back = id;
    CHECK_CODE(CRUST_ERR_INVALID, crust_peer_id_parse(upper, &back));
    CHECK(memcmp(&zero, &back, sizeof id) == 0);
    upper[63] = 'g';
    CHECK_CODE(CRUST_ERR_INVALID, crust_peer_id_parse(upper, &back));
    CHECK_CODE(CRUST_ERR_INVALID, crust_peer_id_parse("", &back));
    {
        char longer[67];
        snprintf(longer, sizeof longer, "%s0", text);
        CHECK_CODE(CRUST_ERR_INVALID, crust_peer_id_parse(longer, &back));
    }
    CHECK_CODE(CRUST_ERR_INVALID, crust_peer_id_parse(NULL, &back));
    CHECK_CODE(CRUST_ERR_INVALID, crust_peer_id_parse(text, NULL));
    CHECK_CODE(CRUST_ERR_INVALID, crust_peer_id_format(&id, NULL));
    CHECK_CODE(CRUST_ERR_INVALID, crust_peer_id_format(NULL, text));
    CHECK(text[0] == 0);
}

static void identities(void) {
    uint8_t seed1[CRUST_SEED_SIZE], seed2[CRUST_SEED_SIZE];
    crust_peer_id id1, id2;
    CHECK_CODE(CRUST_OK, crust_identity_generate(seed1, &id1));
    CHECK_CODE(CRUST_OK, crust_identity_generate(seed2, &id2));
    CHECK(memcmp(seed1, seed2, sizeof seed1) != 0);
    CHECK(memcmp(&id1, &id2, sizeof id1) != 0);
    CHECK_CODE(CRUST_OK, crust_identity_generate(seed2, NULL));
    CHECK_CODE(CRUST_ERR_INVALID, crust_identity_generate(NULL, &id1));
}

const tap_test version_tests[] = {
    {"the version functions agree with the header", versions},
    {"crust_has knows features", features},
    {"codes have names and sentences", codes},
    {"the last error belongs to the thread", last_error_is_of_the_thread},
    {"a long error is cut between characters", long_texts_are_cut_between_characters},
    {"peer ids are written and read", peer_ids},
    {"identities are made", identities},
};
const size_t version_count = sizeof version_tests / sizeof version_tests[0];
