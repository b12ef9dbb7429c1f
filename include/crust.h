/*
 * crust.h - the C ABI of libcrust: reliable, encrypted peer-to-peer connections.
 *
 * THREADS. Every function may be called from any thread at any time, also at
 * once on the same service, with these exceptions: one crust_config belongs to
 * one thread at a time, and a crust_batch is freed once.
 *
 * BLOCKING. Only crust_poll (with a timeout), crust_send_wait and
 * crust_service_free block. Everything that takes time on the network answers
 * with an event that carries the caller's token. A call that returned an error
 * causes no event; a call with a token that returned CRUST_OK causes exactly
 * one final event with that token.
 *
 * EVENTS arrive in one of two ways, chosen in crust_service_new:
 *   - poll mode: crust_poll takes a batch; crust_service_fd is readable while
 *     events wait (level-triggered), for use in epoll, kqueue or select loops;
 *   - callback mode: on_events is called with batches by one library thread.
 * The events of one peer come in order: CONNECTED, MESSAGE..., LOST. When its link
 * breaks, SUSPENDED comes, and RESUMED when it goes on over another one. A DATAGRAM
 * may overtake messages and be overtaken.
 *
 * INSIDE A CALLBACK every function is allowed except crust_poll,
 * crust_send_wait and crust_service_free, which return
 * CRUST_ERR_WOULD_DEADLOCK. No C++ exception, longjmp or Rust panic may leave a
 * callback.
 *
 * LIFE. crust_service_close may be called anywhere, also in a callback. Then
 * come the remaining events, one LOST for each session, STOPPED as the very
 * last, and on_release. crust_service_free closes if need be, waits for all of
 * that, and frees; afterwards the handle is stale and every use of it returns
 * CRUST_ERR_BAD_HANDLE. Free services before main returns. Batches outlive
 * their service.
 *
 * MEMORY. The library copies what it is given before a call returns. Strings
 * are UTF-8 and NUL-terminated. NULL with length 0 is fine; NULL with another
 * length is CRUST_ERR_INVALID.
 *
 * PROCESS. The library cannot be unloaded (dlclose does nothing). In a child
 * made by fork() after loading, every function but the pure ones returns
 * CRUST_ERR_FORKED. A program holds at most one library written in Go safely.
 *
 * ABI. Functions, codes, options and event types are only added. Structs that
 * start with struct_size grow at the end; crust_event and crust_message never
 * change size. Ignore event types and codes you do not know.
 */
#ifndef CRUST_H
#define CRUST_H

#include <stddef.h>
#include <stdint.h>

#if defined(CRUST_STATIC)
#  define CRUST_API
#elif defined(_WIN32)
#  if defined(CRUST_BUILDING)
#    define CRUST_API __declspec(dllexport)
#  else
#    define CRUST_API __declspec(dllimport)
#  endif
#elif defined(__GNUC__) || defined(__clang__)
#  define CRUST_API __attribute__((visibility("default")))
#else
#  define CRUST_API
#endif
#if defined(_WIN32) && !defined(_WIN64)
#  define CRUST_CALL __cdecl
#else
#  define CRUST_CALL
#endif
#if defined(__GNUC__) || defined(__clang__)
#  define CRUST_MUST_CHECK __attribute__((warn_unused_result))
#else
#  define CRUST_MUST_CHECK
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- version (pure functions: no state, any thread, also after fork) ---- */

#define CRUST_VERSION_MAJOR 0
#define CRUST_VERSION_MINOR 1
#define CRUST_VERSION_PATCH 0
#define CRUST_ABI_VERSION   1u /* the SONAME's number; changes only when the ABI breaks */

/* "0.1.0"; static storage. */
CRUST_API const char *CRUST_CALL crust_version_string(void);
/* major << 16 | minor << 8 | patch of the library in use. */
CRUST_API uint32_t CRUST_CALL crust_version_number(void);
/* CRUST_ABI_VERSION of the library in use. Compare it at load time. */
CRUST_API uint32_t CRUST_CALL crust_abi_version(void);
/* 1 when the library has a feature, else 0. Known: "tcp", "fd", "utp". NULL gives 0. */
CRUST_API int CRUST_CALL crust_has(const char *feature);

/* ---- results ------------------------------------------------------------ */

typedef int32_t crust_result; /* >= 0: success, often a count; < 0: one of these */
enum {
    CRUST_OK                   = 0,
    CRUST_ERR_INVALID          = -1,  /* an argument is malformed or out of bounds */
    CRUST_ERR_BAD_HANDLE       = -2,  /* unknown, stale or freed handle */
    CRUST_ERR_STATE            = -3,  /* not possible now */
    CRUST_ERR_NO_MEMORY        = -4,
    CRUST_ERR_WOULD_BLOCK      = -5,  /* the send queue is full; wait for WRITABLE */
    CRUST_ERR_TIMEOUT          = -6,
    CRUST_ERR_CANCELED         = -7,
    CRUST_ERR_CLOSED           = -8,  /* the service is closed */
    CRUST_ERR_BUFFER_TOO_SMALL = -9,  /* *len says what is needed */
    CRUST_ERR_TOO_BIG          = -10, /* the message is over CRUST_MAX_MESSAGE */
    CRUST_ERR_UNSUPPORTED      = -11,
    CRUST_ERR_WOULD_DEADLOCK   = -12, /* a blocking call inside a callback */
    CRUST_ERR_FORKED           = -13, /* the process forked after loading the library */
    CRUST_ERR_PANICKED         = -14, /* a fault inside the library was caught */
    CRUST_ERR_INTERNAL         = -15,
    CRUST_ERR_ABI              = -16, /* struct_size or ABI version not acceptable */
    CRUST_ERR_IO               = -20,
    CRUST_ERR_ADDRESS_IN_USE   = -21,
    CRUST_ERR_ADDRESS          = -22, /* no such address on this machine, or malformed */
    CRUST_ERR_UNREACHABLE      = -23,
    CRUST_ERR_REFUSED          = -24, /* nothing listens there */
    CRUST_ERR_RESET            = -25, /* the connection broke */
    CRUST_ERR_PERMISSION       = -26,
    CRUST_ERR_LIMIT            = -27, /* a limit on connections, handshakes or descriptors */
    CRUST_ERR_SELF             = -40, /* the peer is this service */
    CRUST_ERR_UNKNOWN_PEER     = -41, /* not connected to that peer */
    CRUST_ERR_CONNECTED        = -42,
    CRUST_ERR_BANNED           = -43,
    CRUST_ERR_NOT_ALLOWED      = -44, /* the peer does not accept us */
    CRUST_ERR_BAD_INFO         = -45, /* connection info malformed, forged or expired */
    CRUST_ERR_HANDSHAKE        = -46,
    CRUST_ERR_CRYPTO           = -47, /* data that fails authentication */
    CRUST_ERR_NETWORK_NAME     = -48, /* no answer: another network name, or no libcrust there */
    CRUST_ERR_WRONG_PEER       = -49, /* somebody else answered */
    CRUST_ERR_NO_ENDPOINT      = -50, /* nothing to try */
    CRUST_ERR_DISCONNECTED     = -51, /* closed in order by either side */
    CRUST_ERR_PEER_SILENT      = -52, /* nothing heard for the whole timeout */
    CRUST_ERR_PROTOCOL         = -53,
    CRUST_ERR_REPLACED         = -54, /* the peer restarted and came back */
    CRUST_ERR_EXPIRED          = -55  /* too old in the queue */
};

/* One sentence for a code; static storage; pure. Unknown codes give "unknown code". */
CRUST_API const char *CRUST_CALL crust_strerror(crust_result code);
/* The code's name in snake_case, such as "would_block"; static storage; pure. */
CRUST_API const char *CRUST_CALL crust_error_name(crust_result code);
/* What the last failing call of this thread said, "" before any failure. The
 * text stays until the next failing call of this thread; success leaves it. Pure. */
CRUST_API const char *CRUST_CALL crust_last_error(void);

/* ---- peer ids and identities -------------------------------------------- */

#define CRUST_PEER_ID_SIZE   32 /* an Ed25519 public key */
#define CRUST_PEER_ID_TEXT   65 /* 64 hexadecimal digits and NUL */
#define CRUST_SEED_SIZE      32 /* the secret an identity is made from */
#define CRUST_MAX_MESSAGE    2097152u
#define CRUST_MAX_APP_ID     256u
#define CRUST_MAX_NETWORK_NAME 256u

typedef struct crust_peer_id { uint8_t bytes[CRUST_PEER_ID_SIZE]; } crust_peer_id;

/* Writes the text form with NUL into out[CRUST_PEER_ID_TEXT]. Pure. INVALID. */
CRUST_API crust_result CRUST_CALL crust_peer_id_format(const crust_peer_id *id, char *out);
/* Reads 64 hexadecimal digits. Pure. INVALID. */
CRUST_API crust_result CRUST_CALL crust_peer_id_parse(const char *text, crust_peer_id *out);
/* Makes a new secret seed for CRUST_OPT_IDENTITY_SEED, and its peer id unless id
 * is NULL. INVALID, FORKED, INTERNAL. */
CRUST_API crust_result CRUST_CALL crust_identity_generate(uint8_t seed[CRUST_SEED_SIZE], crust_peer_id *id);

/* ---- configuration: how a service is made -------------------------------- */

typedef uint64_t crust_service;           /* a handle; 0 is never valid */
typedef struct crust_config crust_config; /* opaque */
typedef struct crust_batch  crust_batch;  /* opaque */

#define CRUST_ROLE_NODE   0u
#define CRUST_ROLE_CLIENT 1u
#define CRUST_BEACON_ON     0u /* makes the service known on the networks of its machine, and hears others */
#define CRUST_BEACON_OFF    1u /* sends nothing and hears nothing */
#define CRUST_BEACON_LISTEN 2u /* hears others and sends nothing */
#define CRUST_BEACON_ASK    3u /* hears others, who answer, and tells nothing of itself */
#define CRUST_RELAY_SIGNAL 0u /* carries the letters by which two peers meet, and sends a peer single probes, to its
                                 own address, when it wants to know whether it can be reached; no more */
#define CRUST_RELAY_OFF    1u /* does nothing for others */
#define CRUST_RELAY_DATA   2u /* carries letters and links, within limits; for services that peers can reach */

#define CRUST_GOSSIP_ON     0u /* tells peers where it and others can be dialled, and asks them for the same */
#define CRUST_GOSSIP_ANSWER 1u /* tells where it can be dialled itself, to peers that ask; learns nothing */
#define CRUST_GOSSIP_OFF    2u /* takes no part */

#define CRUST_TRACER_OFF 0u /* no session is in clear, ever */
#define CRUST_TRACER_ON  1u /* sessions may be in clear when the other side allows it too, and a program names the endpoint */

#define CRUST_LOG_OFF   0u /* no records */
#define CRUST_LOG_ERROR 1u /* something is broken for good */
#define CRUST_LOG_WARN  2u /* something is wrong, or somebody does what he should not, and the service goes on */
#define CRUST_LOG_INFO  3u /* what happens: a handful of records for each session */
#define CRUST_LOG_DEBUG 4u /* each attempt */

typedef int32_t crust_option;
enum {                                          /* what; zero or unset means */
    CRUST_OPT_NETWORK_NAME          = 1,  /* str: the network; the public default network */
    CRUST_OPT_IDENTITY_FILE         = 2,  /* str: path, created with mode 0600 if missing; a fresh identity */
    CRUST_OPT_IDENTITY_SEED         = 3,  /* bytes: CRUST_SEED_SIZE; a fresh identity */
    CRUST_OPT_APP_ID                = 4,  /* bytes or str: up to CRUST_MAX_APP_ID; none */
    CRUST_OPT_ROLE                  = 5,  /* u64: CRUST_ROLE_*; node */
    CRUST_OPT_NO_LISTEN             = 6,  /* u64: 1 starts no listener; listeners start */
    CRUST_OPT_NO_ACCEPT             = 7,  /* u64: 1 refuses sessions that peers begin; accepts */
    CRUST_OPT_CIPHER                = 8,  /* u64: 0 automatic, 1 ChaCha20-Poly1305 only */
    CRUST_OPT_LIVE_PORT             = 9,  /* u64, up to 65,535: the port of TCP and of UDP that listeners with
                                             port 0 try first, 5483 by convention; where it is taken they get a
                                             random one; random ports */
    CRUST_OPT_NO_RESUME             = 10, /* u64: 1 loses a session with its link; sessions resume */
    CRUST_OPT_NO_NETWORK_WATCH      = 11, /* u64: 1 does not watch this machine's addresses, interfaces and routes,
                                             nor whether it has slept: see crust_service_network_changed; watches */
    CRUST_OPT_RELAY                 = 12, /* u64: CRUST_RELAY_*, what is done for peers that cannot reach each other;
                                             CRUST_RELAY_SIGNAL */
    CRUST_OPT_NO_PORT_MAP           = 13, /* u64: 1 asks no router to pass the ports of listeners on; asks. So does the
                                             environment variable CRUST_PORTMAP when it is "off" */
    CRUST_OPT_EXTERNAL_PORT         = 14, /* u64, up to 65,535: the port that routers must give, or none: to one TCP
                                             listener and to one UDP listener, those started first or their
                                             successors by PORT_ROTATION; any port, that of the listener where it
                                             is free */
    CRUST_OPT_CACHE                 = 15, /* str: path of the file in which peers are written down that the service has
                                             connected to, and which crust_bootstrap tries beside the contacts; made if
                                             missing, its directory is not; "default": the user's own; none */
    CRUST_OPT_BEACON                = 16, /* u64: CRUST_BEACON_*, what is said on the networks that this machine is in, by
                                             broadcast and multicast, so that peers there find each other; a service that
                                             listens at loopback addresses alone says it on the loopback network alone;
                                             CRUST_BEACON_ON. The environment variable CRUST_BEACON when it is "off" turns
                                             it off */
    CRUST_OPT_BEACON_PORT           = 17, /* u64, up to 65,535: the UDP port of that, the same for all peers; 5484 */
    CRUST_OPT_GOSSIP                = 18, /* u64: CRUST_GOSSIP_*, whether peers tell each other where they and others
                                             can be dialled; CRUST_GOSSIP_ON */
    CRUST_OPT_ONLY                  = 19, /* u64: the ways in which links may come about, the sum of 1 << CRUST_HOW_*
                                             of each; a link in another way is not tried, or refused after
                                             authentication with NOT_ALLOWED; all */
    CRUST_OPT_CONNECT_TIMEOUT_MS    = 20, /* u64; 60,000 */
    CRUST_OPT_BOOTSTRAP_TIMEOUT_MS  = 21, /* u64; 10,000 */
    CRUST_OPT_HANDSHAKE_TIMEOUT_MS  = 22, /* u64; 10,000 */
    CRUST_OPT_HEARTBEAT_MS          = 23, /* u64; 20,000 */
    CRUST_OPT_LOST_AFTER_MS         = 24, /* u64, at least twice the heartbeat: how long nothing is heard before a
                                             link is given up; 120,000 */
    CRUST_OPT_CLOSE_TIMEOUT_MS      = 25, /* u64; 5,000 */
    CRUST_OPT_MESSAGE_MAX_AGE_MS    = 26, /* u64; 60,000 */
    CRUST_OPT_PORT_ROTATION_MS      = 27, /* u64, at least 1,000: how often listeners with port 0 move to a new
                                             random port; the old one accepts for one more interval, and
                                             sessions stay; never */
    CRUST_OPT_RESUME_WINDOW_MS      = 28, /* u64: how long a session whose link is gone waits for another before the
                                             peer is lost; the lesser of both sides' counts; 30,000 */
    CRUST_OPT_SEND_QUEUE_BYTES      = 40, /* u64, for one peer, at least CRUST_MAX_MESSAGE; 4 MiB */
    CRUST_OPT_EVENT_QUEUE_BYTES     = 41, /* u64; 16 MiB */
    CRUST_OPT_MAX_PEERS             = 42, /* u64; 4,096 */
    CRUST_OPT_MAX_HANDSHAKES        = 43, /* u64; 1,024 */
    CRUST_OPT_MAX_HANDSHAKES_PER_ADDRESS = 44, /* u64; 256 */
    CRUST_OPT_MAX_CONNECTS          = 45, /* u64; 1,024 */
    CRUST_OPT_RESEND_BUFFER_BYTES   = 46, /* u64, at least 524,288: sent to one peer and kept until it has
                                             acknowledged them, in case the link breaks; it bounds the throughput
                                             to as much each round trip; 8 MiB */
    CRUST_OPT_CACHE_PEERS           = 47, /* u64, up to 65,536: peers that CACHE has room for; 200 */
    CRUST_OPT_MAX_BANS              = 60, /* u64: entries of the blacklist, see crust_ban; 65,536 */
    CRUST_OPT_MAX_GATES             = 61, /* u64, up to 4,096: calls of a gate that have not returned; 64 */
    CRUST_OPT_GATE_TIMEOUT_MS       = 62, /* u64, up to 5,000: how long a peer waits for a gate; 1,000 */
    CRUST_OPT_TRACER                = 70, /* u64: CRUST_TRACER_*, whether sessions may be in clear, for looking at them:
                                             at listeners such as "tracer://0.0.0.0:0", and where
                                             crust_service_connect_endpoint dials such endpoints; CRUST_TRACER_OFF */
    CRUST_OPT_KEY_LOG               = 71, /* str: path of a file to which the keys of every session are appended, so that
                                             captures of them can be read, created with mode 0600 if missing. Whoever has
                                             it reads everything that the service sends and receives; none */
    CRUST_OPT_LOG_LEVEL             = 72  /* u64: CRUST_LOG_*, which records of the log are told as CRUST_EVENT_LOG, those of
                                             the level and all above; CRUST_LOG_OFF */
};

/* Makes an empty configuration, to be freed with crust_config_free. INVALID, NO_MEMORY. */
CRUST_API CRUST_MUST_CHECK crust_result CRUST_CALL crust_config_new(crust_config **out);
/* Frees it; NULL is fine. Secrets in it are overwritten. */
CRUST_API void CRUST_CALL crust_config_free(crust_config *config);
/* Set an option. Of IDENTITY_FILE and IDENTITY_SEED the later one counts.
 * INVALID: unknown option, wrong kind of value, out of bounds. BAD_HANDLE, here
 * and below: the configuration was freed. */
CRUST_API crust_result CRUST_CALL crust_config_set_u64(crust_config *config, crust_option option, uint64_t value);
CRUST_API crust_result CRUST_CALL crust_config_set_str(crust_config *config, crust_option option, const char *value);
CRUST_API crust_result CRUST_CALL crust_config_set_bytes(crust_config *config, crust_option option, const void *value, size_t len);
/* Adds a listener, such as "tcp://0.0.0.0:0" or "utp://0.0.0.0:0". Port 0: a random one.
 * None added: a random TCP port and a random UDP port, for uTP, on all addresses. INVALID. */
CRUST_API crust_result CRUST_CALL crust_config_add_listener(crust_config *config, const char *endpoint);
/* Adds a contact for bootstrapping, "ENDPOINT" or "ENDPOINT#PEER". INVALID. */
CRUST_API crust_result CRUST_CALL crust_config_add_contact(crust_config *config, const char *contact);
/* Adds a STUN server to ask what it sees of the UDP socket, "HOST:PORT", or "HOST"
 * for port 3478; HOST is an IP address or a name. At most 8. INVALID. */
CRUST_API crust_result CRUST_CALL crust_config_add_stun(crust_config *config, const char *server);
/* Blacklists who from the beginning, as crust_ban does it: a peer id of 64 hexadecimal
 * digits, an IP address or a prefix such as "203.0.113.0/24". INVALID. */
CRUST_API crust_result CRUST_CALL crust_config_add_ban(crust_config *config, const char *who);
/* Adds an IP address or a prefix to the whitelist of peers of a role, CRUST_ROLE_*. As long
 * as it has none, all are allowed; see crust_set_allowed. INVALID. */
CRUST_API crust_result CRUST_CALL crust_config_add_allowed(crust_config *config, uint32_t role, const char *prefix);
/* Reads options from a JSON object; docs/CONFIG.md names its keys. What the text
 * does not set stays, its listeners, contacts, servers, bans and prefixes are added, and its identity file
 * is read or made now. Unknown keys are INVALID. IO, PERMISSION. */
CRUST_API crust_result CRUST_CALL crust_config_load_json(crust_config *config, const char *json, size_t len);

/* ---- events ---------------------------------------------------------------- */

typedef uint32_t crust_event_type;
enum {
    CRUST_EVENT_MESSAGE           = 1,  /* peer, data (not NULL, also when empty), len, priority */
    CRUST_EVENT_WRITABLE          = 2,  /* peer: a queue that refused has drained to half; once per refusal */
    CRUST_EVENT_LISTENER_STARTED  = 3,  /* endpoint, with the real port */
    CRUST_EVENT_LISTENER_FAILED   = 4,  /* endpoint as asked for, code, text */
    CRUST_EVENT_CONNECTION_INFO   = 5,  /* token, data: give these bytes to the other peer */
    CRUST_EVENT_CONNECTED         = 6,  /* peer, token or 0, how, role, endpoint, data = app id, took_us */
    CRUST_EVENT_ALREADY_CONNECTED = 7,  /* token, peer: final event of a connect that found a session */
    CRUST_EVENT_CONNECT_FAILED    = 8,  /* token, peer and endpoint if known, code, text */
    CRUST_EVENT_BOOTSTRAPPED      = 9,  /* token, peer, endpoint; after that peer's CONNECTED */
    CRUST_EVENT_BOOTSTRAP_FAILED  = 10, /* token, code, text */
    CRUST_EVENT_LOST              = 11, /* peer, code, text, count: accepted messages of which it is not known
                                           that they arrived; the session's last event */
    CRUST_EVENT_MESSAGES_DROPPED  = 12, /* peer, priority, count, bytes: accepted, but too old to send */
    CRUST_EVENT_STOPPED           = 13, /* code, text if it stopped by itself; the service's last event */
    CRUST_EVENT_SUSPENDED         = 14, /* peer, endpoint, code, text: the link is gone; the session takes messages as
                                           before and waits for another link; RESUMED or LOST follows */
    CRUST_EVENT_RESUMED           = 15, /* peer, endpoint, how: goes on over another link; every message arrives, once
                                           and in order; without SUSPENDED before it the link is a better one, or the
                                           peer noticed first that the old one had broken */
    CRUST_EVENT_DELIVERED         = 16, /* token, peer; code and text unless it has arrived: final event of
                                           crust_send_receipt */
    CRUST_EVENT_DATAGRAM          = 17, /* peer, data (not NULL, also when empty), len */
    CRUST_EVENT_LISTENER_STOPPED  = 18, /* endpoint: given up for a new port, by PORT_ROTATION; sessions live on */
    CRUST_EVENT_NETWORK_CHANGED   = 19, /* count: how many addresses of this machine came or went; 0 when interfaces or
                                           routes changed, it has slept, or the program said so */
    CRUST_EVENT_PORT_MAPPED       = 20, /* endpoint: where others reach a listener through a router from now on; data:
                                           the endpoint that it leads to, as text; count: CRUST_MEANS_*; took_us: for
                                           how long, renewed in time, 0 for ever; code and text: OK, or UNREACHABLE when
                                           another NAT is in front of the router, and then peers are not told. Again
                                           when another router or means has taken over */
    CRUST_EVENT_PORT_UNMAPPED     = 21, /* endpoint, data, count as before; code, text: OK when it was not wanted any
                                           more, REPLACED when another endpoint is passed on instead */
    CRUST_EVENT_CACHE_TROUBLE     = 22, /* code, text: the file of CRUST_OPT_CACHE is not what it should be, and what was
                                           done: set aside and begun anew, mended, or a cache in memory only */
    CRUST_EVENT_DISCOVERED        = 23, /* peer, endpoint: where it may be; role; count: CRUST_BY_*. Nothing is proved until
                                           somebody connects, but that it holds its key. Again when endpoint or role have
                                           become others */
    CRUST_EVENT_FORGOTTEN         = 24, /* peer, count: CRUST_BY_*: it has said goodbye, or nothing was heard of it for
                                           too long; a session with it is not touched */
    CRUST_EVENT_GROUP             = 25, /* data: the name of a group of crust_service_keep; peer; how: CRUST_GROUP_*, how it
                                           stands with it; count: how many peers of the group are connected; bytes:
                                           how many should be; took_us: until the next attempt, 0 when none is due;
                                           code, text: why unless up or trying. Of a group of any, TRYING and FAILED
                                           are of the search for more, and peer is NULL */
    CRUST_EVENT_ALERT             = 26, /* how: CRUST_ALERT_*, what somebody does too much of; peer: who, NULL when it is an
                                           address; endpoint: the address, or a prefix such as "203.0.113.0/24" of which
                                           many addresses do, NULL when not known; count: how often since the last such
                                           alert, one in 10 s at most; bytes: that came with it, as far as counted;
                                           token: microseconds of processor time that it took, estimated; data: what
                                           might be banned, a peer, address or prefix as text; took_us: for how long;
                                           text: all that is known in one sentence; code is OK. Addresses are named
                                           only when they have proved themselves */
    CRUST_EVENT_CLEAR             = 27, /* peer, endpoint, how: the session with the peer is in clear, as CRUST_OPT_TRACER has
                                           allowed: whoever is between the two reads all, and can change it. It follows
                                           CONNECTED, before any message */
    CRUST_EVENT_LOG               = 28  /* text: the name of a record of the log, see docs/LOGS.md; data, len: its attributes, an
                                           object of JSON; priority: its level, CRUST_LOG_*; took_us: when, in
                                           microseconds since 1970, UTC. Only with CRUST_OPT_LOG_LEVEL. Nothing of messages,
                                           no key and no network name is in it. Left out where 65,536 events
                                           wait, and counted in dropped_logs */
};
#define CRUST_BY_BEACON 1u /* how a peer was discovered: its beacon was heard on a network of this machine */
#define CRUST_BY_GOSSIP 2u /* connected peers have told of it */
#define CRUST_MEANS_PCP          1u /* how a router was asked */
#define CRUST_MEANS_UPNP_IGD2    2u
#define CRUST_MEANS_UPNP_PINHOLE 3u /* to open its firewall for IPv6 */
#define CRUST_MEANS_NAT_PMP      4u
#define CRUST_MEANS_UPNP_IGD1    5u
#define CRUST_HOW_DIALED   1u
#define CRUST_HOW_ACCEPTED 2u /* also where the peer came through a port that a router passes on */
#define CRUST_HOW_MAPPED   3u /* dialled at a port that the peer's router passes on, as the peer said */
#define CRUST_HOW_PUNCHED  4u
#define CRUST_HOW_RELAYED  5u
#define CRUST_GROUP_UP      1u /* there is a session, which may be suspended */
#define CRUST_GROUP_DOWN    2u /* there is none, or none any more; the next attempt is due in a while */
#define CRUST_GROUP_TRYING  3u /* an attempt is under way */
#define CRUST_GROUP_FAILED  4u /* an attempt has failed; the next one is due in a while */
#define CRUST_GROUP_DROPPED 5u /* the program has disconnected it: nothing is tried until it asks again */
#define CRUST_ALERT_CONNECTIONS 1u /* connections over what is taken of one address, closed unread */
#define CRUST_ALERT_GARBAGE     2u /* connections that said nothing, or nothing of this network */
#define CRUST_ALERT_HANDSHAKES  3u /* handshakes that were begun and never finished */
#define CRUST_ALERT_SESSIONS    4u /* sessions that came and went within 10 s, or were refused */
#define CRUST_ALERT_FORGERY     5u /* records that do not authenticate; whoever carries a TCP connection can make them */
#define CRUST_ALERT_PROTOCOL    6u /* an authenticated peer broke the protocol */
#define CRUST_ALERT_FLOOD       7u /* a peer sends more than it may, for seconds on end: it is read no faster, and its datagrams are lost */
#define CRUST_ALERT_GOSSIP      8u /* records of gossip that were refused */
#define CRUST_ALERT_RELAY       9u /* circuits, letters and tests of reachability that were refused */

/* 88 bytes on 64-bit systems. Fields that mean nothing for a type are 0 or NULL.
 * Pointers are valid until the batch is freed (poll mode) or on_events returns
 * (callback mode), and all point into the batch's memory. */
typedef struct crust_event {
    crust_event_type     type;
    int32_t              code;     /* CRUST_OK or why */
    uint8_t              priority; /* of messages; of LOG CRUST_LOG_* */
    uint8_t              role;     /* CRUST_ROLE_* */
    uint8_t              how;      /* CRUST_HOW_*; of GROUP CRUST_GROUP_*, of ALERT CRUST_ALERT_* */
    uint8_t              reserved0;
    uint32_t             count;    /* number of messages */
    uint64_t             token;
    const crust_peer_id *peer;
    const uint8_t       *data;
    uint64_t             len;      /* of data */
    const char          *endpoint; /* "tcp://..." or "utp://..." */
    const char          *text;     /* one sentence that says why */
    uint64_t             took_us;
    uint64_t             bytes;    /* number of bytes */
    uint64_t             reserved1;
} crust_event;

typedef void (CRUST_CALL *crust_events_fn)(void *user, crust_service service, const crust_event *events, size_t n);
typedef void (CRUST_CALL *crust_release_fn)(void *user);
typedef struct crust_callbacks {
    uint32_t         struct_size; /* sizeof(crust_callbacks) */
    uint32_t         reserved;    /* 0 */
    void            *user;        /* handed back, never looked at */
    crust_events_fn  on_events;   /* one library thread, never at once with itself, no lock held */
    crust_release_fn on_release;  /* optional: called exactly once, after the last on_events */
} crust_callbacks;

/* ---- life -------------------------------------------------------------------- */

/* Makes a service. config NULL means all defaults; callbacks NULL means poll
 * mode. on_events may be called before this returns; *out is set by then. On
 * failure on_release is not called. INVALID (also: the environment variable
 * CRUST_PORTMAP is not known), BAD_HANDLE (config), ABI, IO,
 * PERMISSION, LIMIT (65,536 services live), FORKED, INTERNAL. */
CRUST_API CRUST_MUST_CHECK crust_result CRUST_CALL crust_service_new(const crust_config *config, const crust_callbacks *callbacks, crust_service *out);
/* Begins to close and returns at once; see LIFE above. Again: CRUST_OK. BAD_HANDLE, FORKED. */
CRUST_API crust_result CRUST_CALL crust_service_close(crust_service service);
/* Closes, waits for the last callback and on_release, frees. In poll mode a
 * blocked crust_poll returns CLOSED. Of several calls at once one frees, the
 * others get BAD_HANDLE. PANICKED: a fault inside keeps it from closing, given up
 * after 10 s. WOULD_DEADLOCK, BAD_HANDLE, FORKED. */
CRUST_API crust_result CRUST_CALL crust_service_free(crust_service service);
/* Who the service is. INVALID, BAD_HANDLE, FORKED. */
CRUST_API crust_result CRUST_CALL crust_service_id(crust_service service, crust_peer_id *out);

/* ---- poll mode ---------------------------------------------------------------- */

/* A descriptor that is readable while events or a wakeup wait, and now and then
 * once more after they were taken. Poll it, never read or close it; it lives until
 * crust_service_free. UNSUPPORTED on Windows. STATE in callback mode. */
CRUST_API crust_result CRUST_CALL crust_service_fd(crust_service service, intptr_t *out);
/* Takes up to max_events (0: as many as come together) waiting at most timeout_ms
 * (0: not at all, < 0: for ever). Returns the number of events; with 0, *out is
 * NULL. CLOSED after STOPPED was taken. STATE in callback mode, WOULD_DEADLOCK. */
CRUST_API CRUST_MUST_CHECK crust_result CRUST_CALL crust_poll(crust_service service, int32_t timeout_ms, uint32_t max_events, crust_batch **out);
/* Makes the crust_poll that waits now, or else the next one, return 0. STATE in
 * callback mode. */
CRUST_API crust_result CRUST_CALL crust_wakeup(crust_service service);
/* The events of a batch, and how many. NULL gives NULL and 0. Pure. */
CRUST_API const crust_event *CRUST_CALL crust_batch_events(const crust_batch *batch, size_t *n);
/* The memory that holds the batch's events and all they point to, for bindings. Pure. */
CRUST_API crust_result CRUST_CALL crust_batch_memory(const crust_batch *batch, const void **base, size_t *len);
/* Frees a batch; NULL is fine; any thread. */
CRUST_API void CRUST_CALL crust_batch_free(crust_batch *batch);

/* ---- messages ------------------------------------------------------------------- */

typedef struct crust_message { /* 32 bytes on 64-bit systems */
    const crust_peer_id *peer;
    const void          *data;
    uint64_t             len;
    uint8_t              priority;
    uint8_t              reserved[7]; /* 0 */
} crust_message;

/* Queues one message and never blocks. Priority 0 is the most urgent and
 * overtakes; within a priority order is kept; 0 and 1 are never dropped.
 * UNKNOWN_PEER, TOO_BIG, WOULD_BLOCK (a WRITABLE event will follow), CLOSED. */
CRUST_API crust_result CRUST_CALL crust_send(crust_service service, const crust_peer_id *peer, const void *data, size_t len, uint8_t priority);
/* The same, waiting at most timeout_ms (< 0: for ever) while the queue is full.
 * TIMEOUT, WOULD_DEADLOCK. */
CRUST_API crust_result CRUST_CALL crust_send_wait(crust_service service, const crust_peer_id *peer, const void *data, size_t len, uint8_t priority, int32_t timeout_ms);
/* Queues messages in order until one is refused. Returns how many were accepted,
 * which may be none; when fewer than n, *why (unless NULL) is the code of the next
 * one and crust_last_error its text, otherwise *why is CRUST_OK. Negative, in *why
 * too, only when the call itself is wrong: INVALID, BAD_HANDLE, PANICKED, FORKED. */
CRUST_API crust_result CRUST_CALL crust_send_batch(crust_service service, const crust_message *messages, size_t n, crust_result *why);
/* crust_send for a message whose sender wants to know when it has arrived. Final
 * event: DELIVERED with the token. Its code is CRUST_OK when the peer's library has
 * the message and all that was sent before it at its priority, in order, and will
 * hand them to its program unless its service stops first; EXPIRED when the message
 * was dropped for its age; the code of the loss when the session is lost first, and
 * then it may have arrived or not. The errors of crust_send; WOULD_BLOCK also while
 * 4,096 receipts of this peer are outstanding. */
CRUST_API crust_result CRUST_CALL crust_send_receipt(crust_service service, const crust_peer_id *peer, const void *data, size_t len, uint8_t priority, uint64_t token);
/* Sends one datagram at once and never blocks: at most once, in no order, never
 * behind messages that are queued, encrypted and authenticated as they are. It may
 * be lost on the way, when too many wait to be sent or to be taken, and while the
 * session is suspended. Over TCP it goes into the stream and may come late instead.
 * UNKNOWN_PEER, TOO_BIG (it has more than crust_max_datagram bytes), CLOSED. */
CRUST_API crust_result CRUST_CALL crust_send_datagram(crust_service service, const crust_peer_id *peer, const void *data, size_t len);
/* Returns how many bytes crust_send_datagram takes now for a peer: at least 1,100,
 * more over uTP when the path turns out to be wider. UNKNOWN_PEER, CLOSED. */
CRUST_API crust_result CRUST_CALL crust_max_datagram(crust_service service, const crust_peer_id *peer);

/* ---- connecting ------------------------------------------------------------------- */

/* Answers with CONNECTION_INFO. */
CRUST_API crust_result CRUST_CALL crust_prepare_connection_info(crust_service service, uint64_t token);
/* Connects to the peer that made the info. Final event: CONNECTED,
 * ALREADY_CONNECTED or CONNECT_FAILED. BAD_INFO, SELF, LIMIT, CLOSED. */
CRUST_API crust_result CRUST_CALL crust_connect(crust_service service, const void *info, size_t len, uint64_t token);
/* Connects to "ENDPOINT" or "ENDPOINT#PEER". The same final events. INVALID, LIMIT, CLOSED. */
CRUST_API crust_result CRUST_CALL crust_connect_endpoint(crust_service service, const char *contact, uint64_t token);
/* Connects to a peer of which only the id is known: peers that are connected to
 * this service introduce the two, over up to six peers in a row. Both open their
 * NATs; where that fails, a peer that relays carries the link. The same final
 * events; CONNECT_FAILED has NO_ENDPOINT when no peer is connected and TIMEOUT when
 * nobody knows the peer. INVALID (the id is zero), SELF, LIMIT, CLOSED. */
CRUST_API crust_result CRUST_CALL crust_service_connect_peer(crust_service service, const crust_peer_id *peer, uint64_t token);
/* The same, with what is to be said at once: n messages, first[i] of sizes[i] bytes,
 * which are copied, at most 64 of 16,384 bytes together. They are the first ones of the
 * session, in their order, at priority 1. Over a relay that has a key which the peer
 * has left with it they are there after one round trip, when CONNECTED comes here;
 * otherwise as soon as what is sent at CONNECTED, but with a session that there is
 * already at once. With CONNECT_FAILED they are not delivered, but who was cut off in
 * the last moment may have taken them, and a relay that lies can bring them up to ten
 * minutes later. INVALID, too: there are more. */
CRUST_API crust_result CRUST_CALL crust_service_connect_peer_with(crust_service service, const crust_peer_id *peer, const void *const *first, const size_t *sizes, size_t n, uint64_t token);
/* Checks an info and says who made it. BAD_INFO. */
CRUST_API crust_result CRUST_CALL crust_connection_info_peer(const void *info, size_t len, crust_peer_id *out);
/* Ends a session in order; LOST with DISCONNECTED follows on both sides. A peer of a
 * group that is kept is left alone from then on, session or not. UNKNOWN_PEER. */
CRUST_API crust_result CRUST_CALL crust_disconnect(crust_service service, const crust_peer_id *peer);
/* Tries all contacts, the cache and peers on the LAN, keeps the first. Final event: BOOTSTRAPPED or BOOTSTRAP_FAILED. STATE when running. */
CRUST_API crust_result CRUST_CALL crust_bootstrap(crust_service service, uint64_t token);
/* The same without n contacts of except: nothing is sent to an "ENDPOINT", whoever has a "#PEER" is not kept, and
 * "ENDPOINT#PEER" is that peer there. INVALID, too. */
CRUST_API crust_result CRUST_CALL crust_bootstrap_except(crust_service service, const char *const *except, size_t n,
                                                         uint64_t token);
/* Gives up a bootstrap that runs: BOOTSTRAP_FAILED with CANCELED follows. Without one it does nothing. */
CRUST_API crust_result CRUST_CALL crust_stop_bootstrap(crust_service service);

/* ---- groups that are kept connected --------------------------------------------------- */

#define CRUST_MAX_GROUPS     64u   /* of a service */
#define CRUST_MAX_GROUP_NAME 64u   /* in bytes */
#define CRUST_MAX_KEPT       4096u /* peers of all groups together; contacts, and infos, of one */

/* A group of peers. Set all to 0 first. */
typedef struct crust_group {
    uint32_t             struct_size; /* sizeof(crust_group), set by the caller */
    uint32_t             any;         /* how many peers of role, whoever they are and whoever begins the session; 0: those of
                                         peers, contacts and infos */
    uint32_t             role;        /* CRUST_ROLE_*, of any */
    uint32_t             reserved;    /* 0 */
    const char          *name;        /* 1 to CRUST_MAX_GROUP_NAME bytes */
    const crust_peer_id *peers;
    size_t               n_peers;
    const char *const   *contacts;    /* "ENDPOINT#PEER", where peers may be; of any also "ENDPOINT" */
    size_t               n_contacts;
    const void *const   *infos;       /* connection infos of peers */
    const size_t        *info_lens;   /* the bytes of each */
    size_t               n_infos;
} crust_group;

/* Connects to the peers of a group, and again whenever one is lost, until
 * crust_service_release: at where it was last, at what the group, the cache and other
 * peers tell, over either transport, and by peers that are connected to both. A group
 * of the same name is replaced. Sessions that there are count, and those that the
 * peers begin. After a loss and after each attempt in vain comes a pause of random
 * length that doubles, from 1 s to 1 minute at most. A peer that crust_disconnect
 * disconnects, connected or not, stays so: nothing is tried, and the sessions that it
 * begins are refused, until the program connects to it or names it in a call of this.
 * Each change is a GROUP. INVALID, SELF, BAD_INFO, LIMIT, CLOSED; ABI: struct_size. */
CRUST_API crust_result CRUST_CALL crust_service_keep(crust_service service, const crust_group *group);
/* Ends that, and the attempts under way. Sessions live on. INVALID: no such group. */
CRUST_API crust_result CRUST_CALL crust_service_release(crust_service service, const char *name);

/* Describes a group that is kept. */
typedef struct crust_group_info {
    uint32_t struct_size; /* sizeof(crust_group_info), set by the caller */
    uint32_t any, role;   /* as in crust_group */
    int32_t  code;        /* of any: CRUST_OK, or why the last search did not find enough */
    uint32_t up;          /* how many peers of it are connected */
    uint32_t wanted;      /* how many should be */
    uint64_t next_ms;     /* of any: until the next search; 0: now, or none is due */
    char     name[72];
    char     text[256];   /* one sentence for code */
} crust_group_info;

/* Describes a peer of a group. */
typedef struct crust_group_peer {
    uint32_t      struct_size; /* sizeof(crust_group_peer), set by the caller */
    uint32_t      state;       /* CRUST_GROUP_* */
    crust_peer_id peer;
    int32_t       code;        /* CRUST_OK, or why there is no session */
    uint32_t      tries;       /* in vain since the last session that lasted */
    uint64_t      next_ms;     /* until the next attempt; 0: none is due */
    char          text[256];   /* one sentence for code */
} crust_group_peer;

/* Returns how many groups there are, and describes the one of that index, from 0, in
 * the order in which they came; beyond the last one *io is cleared. io may be NULL.
 * ABI when struct_size is smaller than 8. */
CRUST_API crust_result CRUST_CALL crust_service_group(crust_service service, uint32_t index, crust_group_info *io);
/* The same for the peers of a group, in the order of their ids; of a group of any those
 * that are connected, and those that the program has disconnected. INVALID: no such
 * group. */
CRUST_API crust_result CRUST_CALL crust_service_group_peer(crust_service service, const char *name, uint32_t index, crust_group_peer *io);

/* ---- who is not wanted ----------------------------------------------------------------- */

#define CRUST_MAX_BAN_REASON 256u  /* in bytes */
#define CRUST_MAX_ALLOWED    1024u /* prefixes of a whitelist */

/* Blacklists n peers and addresses, one or ten thousand, for ms milliseconds, or with 0 as
 * long as the service lives. Each is a peer id of 64 hexadecimal digits, whatever its
 * address, or an IP address or a prefix such as "203.0.113.0/24", whoever is there. Who is
 * banned already is so anew. reason, up to CRUST_MAX_BAN_REASON bytes or NULL, is kept for
 * crust_bans. It holds at once: sessions are LOST with BANNED, without waiting for what is
 * queued, and the peer is told; what is being connected fails with BANNED; and then nothing
 * is sent to those who are banned nor taken from them, by whatever way they come. INVALID,
 * SELF, LIMIT (more than CRUST_OPT_MAX_BANS), CLOSED: then nobody is banned who was not. */
CRUST_API crust_result CRUST_CALL crust_ban(crust_service service, const char *const *who, size_t n, uint64_t ms,
                                            const char *reason);
/* Lifts bans, of the very peers, addresses and prefixes that were banned, and returns how
 * many there were; an address in a banned prefix stays banned. INVALID. */
CRUST_API crust_result CRUST_CALL crust_unban(crust_service service, const char *const *who, size_t n);

/* Describes a ban. */
typedef struct crust_ban_info {
    uint32_t struct_size; /* sizeof(crust_ban_info), set by the caller */
    uint32_t reserved;    /* 0 */
    uint64_t left_ms;     /* until it ends; 0: with the service */
    char     who[72];     /* a peer id, an IP address or a prefix */
    char     reason[264];
} crust_ban_info;

/* Describes the bans: peers in the order of their ids, then prefixes in the order of their
 * addresses, IPv4 first. *n is the room in bans on entry and the number of bans on return;
 * bans[0].struct_size is how far apart the structs are. BUFFER_TOO_SMALL. With bans NULL
 * it returns CRUST_OK and only the number. ABI when struct_size is smaller than 8. */
CRUST_API crust_result CRUST_CALL crust_bans(crust_service service, crust_ban_info *bans, size_t *n);

/* Replaces the whitelists: which addresses peers of role node, and of role client, may
 * have, as IP addresses and prefixes, up to CRUST_MAX_ALLOWED each; n 0: all are allowed.
 * Others are refused, before they can say anything when their address is on neither list,
 * and not dialled; so are links that others carry, whose address is not known. Sessions
 * with peers that are not allowed any more are LOST with NOT_ALLOWED. INVALID, LIMIT, CLOSED. */
CRUST_API crust_result CRUST_CALL crust_set_allowed(crust_service service, const char *const *nodes, size_t n_nodes,
                                                    const char *const *clients, size_t n_clients);

/* A peer that has proved its key, and with which there is no session. */
typedef struct crust_gate_request {
    uint32_t      struct_size; /* that of the library: what is beyond is not there */
    uint8_t       how;         /* CRUST_HOW_* */
    uint8_t       role;        /* CRUST_ROLE_* */
    uint8_t       outbound;    /* 1: the service has dialled */
    uint8_t       reserved;    /* 0 */
    crust_peer_id peer;
    const void   *app_id;      /* until the callback returns, as the endpoint */
    size_t        app_id_len;
    const char   *endpoint;    /* the peer's end of the link, or of the link to its relay */
} crust_gate_request;

/* The program's own policy: returns 1 to let the peer in, anything else to refuse it with
 * NOT_ALLOWED. It runs on threads of the library, several at once, and may call the
 * service, but for what blocks. A peer is refused, too, when it has not returned within
 * CRUST_OPT_GATE_TIMEOUT_MS, or when CRUST_OPT_MAX_GATES other calls have not. Nothing
 * waits for it longer: it may still run when the service was freed. */
typedef int (CRUST_CALL *crust_gate_fn)(void *user, const crust_gate_request *request);

/* Has services that are made of the configuration ask fn once about each peer before it
 * gets a session; NULL: nobody is asked. on_release, unless NULL, is called once with user:
 * after the configuration was freed or was given another gate, its services were freed,
 * and the last call of fn has returned. Peers that dial must then ask for a session, which
 * takes a round trip more. */
CRUST_API crust_result CRUST_CALL crust_config_set_gate(crust_config *config, crust_gate_fn fn, void *user, crust_release_fn on_release);

/* ---- listeners ---------------------------------------------------------------------- */

/* Starts one more listener; LISTENER_STARTED or LISTENER_FAILED follows.
 * INVALID, ADDRESS_IN_USE, ADDRESS, PERMISSION, CLOSED. */
CRUST_API crust_result CRUST_CALL crust_listen(crust_service service, const char *endpoint);
/* Stops the listener at an endpoint, as LISTENER_STARTED or crust_listeners have told it; sessions
 * live on. INVALID: nothing listens there. */
CRUST_API crust_result CRUST_CALL crust_stop_listening(crust_service service, const char *endpoint);
/* Writes the endpoints, one a line, NUL-terminated. *len is the size of buf on
 * entry and what is needed on return. BUFFER_TOO_SMALL. With buf NULL it returns
 * CRUST_OK and only the size. */
CRUST_API crust_result CRUST_CALL crust_listeners(crust_service service, char *buf, size_t *len);
/* Accepts (1) or refuses (0) sessions that peers begin. */
CRUST_API crust_result CRUST_CALL crust_set_accept(crust_service service, int accept);
/* Changes CRUST_OPT_BEACON of a service that runs, to CRUST_BEACON_*. One that is turned off says goodbye; one that is
 * turned on begins anew. INVALID. */
CRUST_API crust_result CRUST_CALL crust_set_beacon(crust_service service, uint32_t mode);
/* Says that this machine's network has changed, or that it has slept: for programs
 * that know before the system tells, or where it does not. Every session proves
 * its link, and those without one are dialled at once. NETWORK_CHANGED follows;
 * calls within half a second are one. Returns at once. */
CRUST_API crust_result CRUST_CALL crust_service_network_changed(crust_service service);

/* ---- looking -------------------------------------------------------------------------- */

typedef struct crust_peer_info {
    uint32_t      struct_size;   /* sizeof(crust_peer_info), set by the caller */
    uint8_t       how;           /* CRUST_HOW_* */
    uint8_t       role;          /* CRUST_ROLE_* */
    uint8_t       cipher;        /* 1 ChaCha20-Poly1305, 2 AES-256-GCM */
    uint8_t       reserved;
    crust_peer_id peer;
    char          endpoint[64];  /* the peer's end of the link */
    uint64_t      rtt_us;        /* 0 when not yet known */
    uint64_t      age_us;        /* since the session began */
    uint64_t      sent_messages, sent_bytes;
    uint64_t      received_messages, received_bytes;
    uint64_t      dropped_messages;
    uint64_t      queued_bytes;
    uint64_t      unacked_bytes; /* sent, and kept in case the link breaks */
    uint64_t      suspended;     /* 1: there is no link now */
    uint64_t      resumed;       /* times that the session went over to another link */
} crust_peer_info;

/* Writes the ids of the peers in order. *n is the room in ids on entry and the
 * number of peers on return. BUFFER_TOO_SMALL. With ids NULL it returns CRUST_OK
 * and only the number. */
CRUST_API crust_result CRUST_CALL crust_peers(crust_service service, crust_peer_id *ids, size_t *n);
/* Describes one session. The peer may lie in *io. Bytes beyond the library's own
 * struct are set to 0. UNKNOWN_PEER; ABI when struct_size is smaller than 8. */
CRUST_API crust_result CRUST_CALL crust_peer(crust_service service, const crust_peer_id *peer, crust_peer_info *io);

typedef struct crust_stats {
    uint32_t struct_size;        /* sizeof(crust_stats), set by the caller */
    uint32_t reserved;
    uint64_t peers, listeners, handshakes, connects;         /* now */
    uint64_t sessions_total, handshakes_failed, handshakes_evicted, connects_failed;
    uint64_t sent_messages, sent_bytes, received_messages, received_bytes, dropped_messages;
    uint64_t wire_sent_bytes, wire_received_bytes;
    uint64_t events_queued, event_bytes_queued;              /* now */
    uint64_t events_total, backpressure_pauses;
    uint64_t sent_datagrams, received_datagrams;
    uint64_t lost_datagrams;                                 /* received ones that found no room, or over the bounds */
    uint64_t circuits;                                       /* links carried for others, now */
    uint64_t carried_bytes;                                  /* of those, since the start */
    uint64_t known;                                          /* peers of which gossip has told, now */
    uint64_t refused_connections;                            /* closed unread: too many */
    uint64_t refused_handshakes;                             /* not answered, for the processor's sake */
    uint64_t refused_files;                                  /* closed unread: descriptors ran short */
    uint64_t refused_sessions;                               /* over a limit of peers */
    uint64_t shed_sessions;                                  /* ended for those that are worth more */
    uint64_t rate_pauses;                                    /* times that a peer was not read */
    uint64_t alerts;                                         /* raised */
    uint64_t suppressed_alerts;                              /* that came too fast */
    uint64_t resumptions;                                    /* sessions that went to another link */
    uint64_t refused_banned;                                 /* by the lists; not what the system drops before */
    uint64_t memory_bytes;                                   /* that queues and buffers hold, now */
    uint64_t refused_memory;                                 /* times that queues had no room */
    uint64_t dropped_logs;                                   /* records of the log without room */
    uint64_t refused_help;                                   /* letters, circuits and tests of reachability that
                                                                peers asked for too often, or without leave */
} crust_stats;

/* Counters since the service was made. Bytes beyond the library's own struct
 * are set to 0. ABI when struct_size is smaller than 8. */
CRUST_API crust_result CRUST_CALL crust_service_stats(crust_service service, crust_stats *io);

#define CRUST_NAT_UNKNOWN                0u /* on what a mapping or a filter depends: not found out; */
#define CRUST_NAT_ENDPOINT_INDEPENDENT   1u /* on nothing; */
#define CRUST_NAT_ADDRESS_DEPENDENT      2u /* on the other end's address; */
#define CRUST_NAT_ADDRESS_PORT_DEPENDENT 3u /* on its address and port */
#define CRUST_NAT_PORTS_UNKNOWN    0u /* how ports of new mappings are chosen: not found out; */
#define CRUST_NAT_PORTS_PRESERVING 1u /* the internal port, where it is free; */
#define CRUST_NAT_PORTS_SEQUENTIAL 2u /* the last one and step; */
#define CRUST_NAT_PORTS_BLOCK      3u /* any of low to high; */
#define CRUST_NAT_PORTS_RANDOM     4u /* any */

/* What is known of the NATs between the service and others. */
typedef struct crust_nat {
    uint32_t struct_size; /* sizeof(crust_nat), set by the caller */
    uint8_t  reachable;   /* 1: somebody on the Internet has come unasked within the last hour; 0: nobody so far */
    uint8_t  cgnat;       /* 1: the NAT that others see is a provider's: no router here can map its ports */
    uint8_t  pending;     /* 1: more is being found out now, or will be in a moment */
    uint8_t  reserved;
    char     why[256];    /* in a few words: what proves reachable, or why there is no proof */
} crust_nat;

/* The same of one transport protocol. */
typedef struct crust_nat_flow {
    uint32_t struct_size; /* sizeof(crust_nat_flow), set by the caller */
    uint8_t  confidence;  /* in the external address and the mapping: 0 none, 1 tentative, 2 confirmed */
    uint8_t  none;        /* 1: there is no NAT; filtering is then a firewall's */
    uint8_t  nearby;      /* 1: told by peers in a smaller network alone, and about what lies before that */
    uint8_t  twice;       /* 1: there are two NATs in a row */
    uint8_t  blocked;     /* 1: nothing of this protocol gets through */
    uint8_t  hairpin;     /* what goes to our own external endpoint comes back: 0 unknown, 1 no, 2 yes */
    uint8_t  mapping;     /* CRUST_NAT_*: on what of the other end the external port depends */
    uint8_t  filtering;   /* CRUST_NAT_*: on what of the other end it depends whether it is let in */
    uint8_t  ports;       /* CRUST_NAT_PORTS_* */
    uint8_t  reserved;
    int16_t  step;        /* of sequential ports, else 0 */
    uint16_t low, high;   /* of a block, else 0 */
    char     external[1024]; /* our endpoints as others see them, "203.0.113.5:40000", one a line, those that most
                                say first; at most 16 */
} crust_nat_flow;

/* What is known of the NATs, of the address family about which more is known. It
 * comes from connected peers, sends nothing, and is forgotten when this machine's
 * addresses change. Each of the three may be NULL; all are of one moment. Bytes
 * beyond the library's own structs are set to 0. ABI when a struct_size is smaller
 * than 8. */
CRUST_API crust_result CRUST_CALL crust_service_nat(crust_service service, crust_nat *io, crust_nat_flow *udp, crust_nat_flow *tcp);

/* What a STUN server of the configuration has said. */
typedef struct crust_nat_server {
    uint32_t struct_size; /* sizeof(crust_nat_server), set by the caller */
    uint32_t reserved;
    char     server[272]; /* as in the configuration */
    char     seen[64];    /* our endpoint as it has seen it last, "203.0.113.5:40000", "" when it has not */
    char     error[256];  /* why there is no answer, "" when there is one or none is due */
} crust_nat_server;

/* A port of a listener that a router passes on, or why it does not. */
typedef struct crust_nat_port {
    uint32_t struct_size;  /* sizeof(crust_nat_port), set by the caller */
    int32_t  code;         /* CRUST_OK, or why there is no mapping */
    uint32_t twice;        /* 1: another NAT is in front of the router */
    uint32_t reserved;
    uint64_t expires_ms;   /* until the router drops it unless it is renewed; 0: never, or there is none */
    char     internal[64]; /* where it leads, "tcp://192.168.1.2:5483" */
    char     external[64]; /* where others reach it; "" when there is no mapping */
    char     gateway[64];  /* the router's address, "" when it is not known */
    char     means[16];    /* how it was asked: "pcp", "nat-pmp", "upnp"; "" when there is no mapping */
    char     text[256];    /* one sentence that says why there is none */
} crust_nat_port;

/* How one peer sees the service. */
typedef struct crust_nat_seen {
    uint32_t      struct_size; /* sizeof(crust_nat_seen), set by the caller */
    uint32_t      reserved;
    crust_peer_id peer;
    char          from[64]; /* the peer's end of its link, with which it looks, "203.0.113.5:40000" */
    char          at[64];   /* our endpoint as the peer has seen it last, "tcp://198.51.100.7:5483"; over TCP our end of a
                               link that was dialled, or the listener */
} crust_nat_seen;

/* Return how many there are, and describe the one of that index, from 0; beyond
 * the last one *io is cleared. Those of crust_service_nat_seen are the peers that are
 * connected now, not over a relay, and have said what they see, in the order of their ids,
 * TCP first; at most 256. io may be NULL. ABI when struct_size is smaller
 * than 8. */
CRUST_API crust_result CRUST_CALL crust_service_nat_server(crust_service service, uint32_t index, crust_nat_server *io);
CRUST_API crust_result CRUST_CALL crust_service_nat_port(crust_service service, uint32_t index, crust_nat_port *io);
CRUST_API crust_result CRUST_CALL crust_service_nat_seen(crust_service service, uint32_t index, crust_nat_seen *io);

/* A peer whose beacon was heard on a network of this machine. */
typedef struct crust_lan_peer {
    uint32_t      struct_size;     /* sizeof(crust_lan_peer), set by the caller */
    uint32_t      role;            /* CRUST_ROLE_* */
    crust_peer_id peer;
    uint64_t      heard_ms;        /* how long ago it was heard the last time */
    char          endpoints[1024]; /* where it may be in those networks, one a line, the most useful first; at
                                      least one, at most 16 */
} crust_lan_peer;

/* Returns how many there are, in the order of their ids, and describes the one of that
 * index, from 0, as the functions above do. It asks nobody and returns at once. See
 * CRUST_OPT_BEACON. */
CRUST_API crust_result CRUST_CALL crust_service_lan_peer(crust_service service, uint32_t index, crust_lan_peer *io);

/* A peer of which gossip has told. It is not connected, or need not be. Nothing of it is
 * proved but that the peer holds its key and has said so. */
typedef struct crust_known_peer {
    uint32_t      struct_size;    /* sizeof(crust_known_peer), set by the caller */
    uint8_t       role;           /* CRUST_ROLE_* */
    uint8_t       direct;         /* 1: it says that somebody on the Internet has come to it unasked */
    uint8_t       relays;         /* 1: it carries links of others */
    uint8_t       reserved;
    crust_peer_id peer;
    uint64_t      expires_ms;     /* until it is forgotten unless it says by then that it is still there */
    char          endpoints[512]; /* where it says that it may be dialled, one a line; at most 8, or "" */
} crust_known_peer;

/* Describes known peers in the order of their ids: those after one id, or from the first
 * one on when after is NULL. *n is the room in structs on entry, each of list->struct_size
 * bytes, and the number of those described on return; fewer than there was room for when
 * there are no more. after may lie in the list, so the last one leads on. With list NULL it
 * returns CRUST_OK and only how many there are, at most 16384. Without CRUST_GOSSIP_ON
 * there are none. Each struct is treated as the one of crust_peer is. ABI when struct_size
 * is smaller than 8, or no multiple of 8; CLOSED. */
CRUST_API crust_result CRUST_CALL crust_service_known(crust_service service, const crust_peer_id *after, crust_known_peer *list, size_t *n);

#ifdef __cplusplus
}
#endif

#endif /* CRUST_H */
