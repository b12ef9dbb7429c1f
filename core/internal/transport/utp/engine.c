// libutp between a reliable path below and a reader and a writer above.
//
// libutp was made for the open Internet: it detects loss, repeats, and grows its
// window by one packet a round trip. Here the path below has taken that over
// (see doc.go), and two control loops over each other would fight. So a packet
// that the path accepted is acknowledged to libutp at once, in the peer's name;
// libutp then never repeats, never shrinks its window and never holds small
// packets back (Nagle). The peer's real acknowledgements say how much of its
// window is used, and when everything has arrived.
//
// libutp has one engine's context to itself: nothing of one connection can be
// reached from another. Its callbacks only write into the engine, which the
// caller looks at after each call; they never call into Go.

#include "engine.h"

#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#ifdef _WIN32
#include <winsock2.h>
#include <ws2tcpip.h>
#else
#include <netinet/in.h>
#include <sys/socket.h>
#endif

// ---- libutp: what we use of utp.h of github.com/anacrolix/go-libutp v1.5.1 ----

typedef struct {
	void *context;
	void *socket;
	size_t len;
	uint32_t flags;
	int callback_type;
	const uint8_t *buf;
	union {
		const struct sockaddr *address;
		int error_code;
		int state;
	} a;
	union {
		socklen_t address_len;
		int type;
	} b;
} arguments;

typedef uint64_t callback(arguments *);

enum {
	ON_FIREWALL = 0, ON_ACCEPT = 1, ON_ERROR = 3, ON_READ = 4, ON_STATE_CHANGE = 6, GET_READ_BUFFER_SIZE = 7,
	GET_UDP_MTU = 9, GET_MILLISECONDS = 11, GET_MICROSECONDS = 12, GET_RANDOM = 13, LOG = 14, SENDTO = 15,
	SNDBUF = 19, RCVBUF = 20
};
enum { STATE_CONNECT = 1, STATE_WRITABLE = 2, STATE_EOF = 3, STATE_DESTROYING = 4 };
enum { ERROR_TIMEDOUT = 2 };

extern void *utp_init(int version);
extern void utp_destroy(void *ctx);
extern void utp_set_callback(void *ctx, int name, callback *proc);
extern void *utp_context_set_userdata(void *ctx, void *userdata);
extern void *utp_context_get_userdata(void *ctx);
extern int utp_context_set_option(void *ctx, int opt, int val);
extern int utp_process_udp(void *ctx, const uint8_t *buf, size_t len, const struct sockaddr *to, socklen_t tolen);
extern void utp_check_timeouts(void *ctx);
extern void utp_issue_deferred_acks(void *ctx);
extern void *utp_create_socket(void *ctx);
extern int utp_setsockopt(void *s, int opt, int val);
extern int utp_connect(void *s, const struct sockaddr *to, socklen_t tolen);
extern ssize_t utp_write(void *s, void *buf, size_t count);
extern void utp_read_drained(void *s);
extern void utp_shutdown(void *s, int how);

// ---- the packet, BEP 29 ----

enum { DATA = 0, FIN = 1, STATE = 2, RESET = 3, SYN = 4 };
enum { AT_EXTENSION = 1, AT_ID = 2, AT_WINDOW = 12, AT_SEQ = 16, AT_ACK = 18 };

#define REORDERED 1024u    // numbers from next on that libutp keeps
#define UNLIMITED 0x7fffffffu // window that libutp is told: ours counts

static uint16_t get16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }
static uint32_t get32(const uint8_t *p) { return (uint32_t)get16(p) << 16 | get16(p + 2); }
static void put16(uint8_t *p, uint16_t v) { p[0] = (uint8_t)(v >> 8); p[1] = (uint8_t)v; }
static void put32(uint8_t *p, uint32_t v) { put16(p, (uint16_t)(v >> 16)); put16(p + 2, (uint16_t)v); }

// The one address that libutp knows: there is no other peer in its context.
static const struct sockaddr *peer(socklen_t *size)
{
	static const struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = 1 };
	*size = sizeof(address);
	return (const struct sockaddr *)&address;
}

struct crust_utp_chunk {
	struct crust_utp_chunk *next;
	size_t begin, end, size;
	uint8_t bytes[];
};

// Chunks of one size are kept, so that streams do not have malloc give memory
// back to the system and take it again with each packet. A few serve all engines.
enum { CHUNK = CRUST_UTP_MTU, KEPT = 64 };

static struct {
	char locked;
	unsigned n;
	struct crust_utp_chunk *first;
} kept;

static void kept_lock(void)
{
	while (__atomic_test_and_set(&kept.locked, __ATOMIC_ACQUIRE))
		;
}

static void kept_unlock(void) { __atomic_clear(&kept.locked, __ATOMIC_RELEASE); }

// chunk_new returns an empty chunk with room for size bytes, or NULL.
static struct crust_utp_chunk *chunk_new(size_t size)
{
	struct crust_utp_chunk *c = NULL;
	size = size <= 4096 ? 4096 : CHUNK;
	if (size == CHUNK) {
		kept_lock();
		if ((c = kept.first)) {
			kept.first = c->next;
			kept.n--;
		}
		kept_unlock();
	}
	if (!c && !(c = malloc(sizeof(*c) + size)))
		return NULL;
	c->next = NULL;
	c->begin = c->end = 0;
	c->size = size;
	return c;
}

static void chunk_free(struct crust_utp_chunk *c)
{
	if (c->size == CHUNK) {
		kept_lock();
		if (kept.n < KEPT) {
			c->next = kept.first;
			kept.first = c;
			kept.n++;
			c = NULL;
		}
		kept_unlock();
	}
	free(c);
}

static void fail(crust_utp *u, int error)
{
	if (u->error == CRUST_UTP_FINE)
		u->error = error;
}

// ---- callbacks ----

static crust_utp *engine(const arguments *a) { return utp_context_get_userdata(a->context); }

static uint64_t on_milliseconds(arguments *a) { return engine(a)->now / 1000; }
static uint64_t on_microseconds(arguments *a) { return engine(a)->now; }
// on_mtu is more than any packet has: libutp searches for its packet size by
// halves between what arrived and this, and gives up up to 16 bytes below, so at
// exactly CRUST_UTP_MTU each full packet would be followed by one of some bytes.
static uint64_t on_mtu(arguments *a) { (void)a; return 65535; }

static uint64_t on_log(arguments *a) { (void)a; return 0; }
static uint64_t on_unread(arguments *a) { return engine(a)->unread; }

// on_random is SplitMix64. Identifier 0xffff never connects: libutp counts on
// from it in 32 bits and compares with the 16 of the packet.
static uint64_t on_random(arguments *a)
{
	uint64_t z = engine(a)->random += 0x9e3779b97f4a7c15u;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	uint32_t r = (uint32_t)((z ^ (z >> 31)) >> 32);
	return (r & 0xffff) == 0xffff ? r ^ 1 : r;
}

// on_firewall refuses: one connection, and whoever dials takes none.
static uint64_t on_firewall(arguments *a)
{
	return engine(a)->sock != NULL || engine(a)->dialler;
}

static uint64_t on_accept(arguments *a)
{
	engine(a)->sock = a->socket;
	return 0;
}

static uint64_t on_error(arguments *a)
{
	fail(engine(a), a->a.error_code == ERROR_TIMEDOUT ? CRUST_UTP_TIMEDOUT : CRUST_UTP_RESET);
	return 0;
}

static uint64_t on_state(arguments *a)
{
	crust_utp *u = engine(a);
	switch (a->a.state) {
	case STATE_CONNECT:
		u->established = 1;
		break;
	case STATE_WRITABLE: // a side that was dialled learns so that its answer has arrived
		u->established = 1;
		break;
	case STATE_EOF:
		u->eof = 1;
		break;
	case STATE_DESTROYING:
		u->sock = NULL;
		u->pending = NULL;
		break;
	}
	return 0;
}

static uint64_t on_read(arguments *a)
{
	crust_utp *u = engine(a);
	const uint8_t *from = a->buf;
	size_t size = a->len;
	u->early -= size < u->early ? size : u->early;
	u->received += size;
	if (u->discard || u->eof || u->error != CRUST_UTP_FINE)
		return 0;
	struct crust_utp_chunk *c = u->tail;
	if (c && c->size - c->end > 0) {
		size_t n = c->size - c->end < size ? c->size - c->end : size;
		memcpy(c->bytes + c->end, from, n);
		c->end += n;
		u->unread += n;
		from += n;
		size -= n;
	}
	if (size == 0)
		return 0;
	c = chunk_new(size); // libutp's packets are no larger than CHUNK
	if (!c) {
		fail(u, CRUST_UTP_MEMORY);
		return 0;
	}
	memcpy(c->bytes, from, size);
	c->end = size;
	if (u->tail)
		u->tail->next = c;
	else
		u->head = c;
	u->tail = c;
	u->unread += size;
	return 0;
}

// told notes what a packet that goes out says of what was received.
static void told(crust_utp *u, const uint8_t *packet)
{
	u->told_edge = u->received + get32(packet + AT_WINDOW);
	u->quiet_bytes = 0;
	u->quiet_packets = 0;
}

static uint64_t on_send(arguments *a)
{
	crust_utp *u = engine(a);
	const uint8_t *p = a->buf;
	switch (p[0] >> 4) {
	case DATA:
	case FIN:
		if (u->pending && get16(p + AT_SEQ) == u->pending_seq)
			return 0; // still there
		if (u->pending) {
			fail(u, CRUST_UTP_BROKEN);
			return 0;
		}
		// libutp fills the window in when it makes a packet and the
		// acknowledgement when it sends it, and what does not fit into one
		// packet waits between: the old window after the new number would
		// promise more than there is.
		put32((uint8_t *)p + AT_WINDOW, (uint32_t)(u->window - u->unread));
		u->pending = p;
		u->pending_size = a->len;
		u->pending_seq = u->sent = get16(p + AT_SEQ);
		u->sent_bytes += a->len - CRUST_UTP_HEADER;
		u->sent_at[u->sent % 1024] = u->sent_bytes;
		told(u, p);
		return 0;
	case SYN:
		u->receive_id = get16(p + AT_ID);
		u->send_id = (uint16_t)(u->receive_id + 1);
		u->sent = u->acked = get16(p + AT_SEQ);
		break;
	case STATE:
		if (!u->established) // the answer to a SYN, which takes no number
			u->sent = u->acked = (uint16_t)(get16(p + AT_SEQ) - 1);
		told(u, p);
		break;
	}
	crust_utp_small_back(u, p, a->len);
	return 0;
}

size_t crust_utp_small(crust_utp *u, uint8_t *packet)
{
	if (u->smalls == 0)
		return 0;
	size_t size = u->small_size[0];
	memcpy(packet, u->small[0], CRUST_UTP_SMALL);
	u->smalls--;
	memmove(u->small[0], u->small[1], sizeof(u->small) - sizeof(u->small[0]));
	memmove(u->small_size, u->small_size + 1, sizeof(u->small_size) - 1);
	return size;
}

void crust_utp_small_back(crust_utp *u, const uint8_t *packet, size_t size)
{
	if (size > CRUST_UTP_SMALL)
		return;
	unsigned at = u->smalls;
	// Of acknowledgements the newest says all.
	if (at > 0 && packet[0] >> 4 == STATE && u->small[at - 1][0] >> 4 == STATE)
		at--;
	if (at == CRUST_UTP_SMALLS)
		return;
	memcpy(u->small[at], packet, size);
	u->small_size[at] = (uint8_t)size;
	u->smalls = at + 1;
}

// ---- life ----

crust_utp *crust_utp_new(uint64_t random, uint64_t now, size_t window, size_t window_max)
{
	crust_utp *u = calloc(1, sizeof(*u));
	if (!u)
		return NULL;
	u->random = random;
	u->now = now;
	u->window = window;
	u->window_max = window_max;
	u->told_edge = window;
	u->ctx = utp_init(2);
	utp_context_set_userdata(u->ctx, u);
	utp_set_callback(u->ctx, ON_FIREWALL, on_firewall);
	utp_set_callback(u->ctx, ON_ACCEPT, on_accept);
	utp_set_callback(u->ctx, ON_ERROR, on_error);
	utp_set_callback(u->ctx, ON_READ, on_read);
	utp_set_callback(u->ctx, ON_STATE_CHANGE, on_state);
	utp_set_callback(u->ctx, GET_READ_BUFFER_SIZE, on_unread);
	utp_set_callback(u->ctx, GET_UDP_MTU, on_mtu);
	utp_set_callback(u->ctx, GET_MILLISECONDS, on_milliseconds);
	utp_set_callback(u->ctx, GET_MICROSECONDS, on_microseconds);
	utp_set_callback(u->ctx, GET_RANDOM, on_random);
	utp_set_callback(u->ctx, LOG, on_log);
	utp_set_callback(u->ctx, SENDTO, on_send);
	utp_context_set_option(u->ctx, RCVBUF, (int)window);
	utp_context_set_option(u->ctx, SNDBUF, 4 * CRUST_UTP_MTU);
	return u;
}

void crust_utp_free(crust_utp *u)
{
	utp_destroy(u->ctx);
	while (u->head) {
		struct crust_utp_chunk *next = u->head->next;
		chunk_free(u->head);
		u->head = next;
	}
	free(u);
}

void crust_utp_dial(crust_utp *u, uint64_t now)
{
	socklen_t size;
	const struct sockaddr *address = peer(&size);
	u->now = now;
	u->dialler = 1;
	u->sock = utp_create_socket(u->ctx);
	utp_connect(u->sock, address, size);
}

void crust_utp_tick(crust_utp *u, uint64_t now)
{
	u->now = now;
	if (u->dialler && !u->established && u->error == CRUST_UTP_FINE)
		utp_check_timeouts(u->ctx);
}

void crust_utp_reset(const crust_utp *u, uint8_t *packet)
{
	memset(packet, 0, CRUST_UTP_HEADER);
	packet[0] = RESET << 4 | 1;
	put16(packet + AT_ID, u->send_id);
	put16(packet + AT_SEQ, u->sent);
	put16(packet + AT_ACK, (uint16_t)(u->next - 1));
}

// ---- sending ----

static void give(crust_utp *u, const uint8_t *packet, size_t size)
{
	socklen_t length;
	const struct sockaddr *address = peer(&length);
	utp_process_udp(u->ctx, packet, size, address, length);
}

size_t crust_utp_write(crust_utp *u, void *bytes, size_t size, uint64_t now)
{
	u->now = now;
	if (!u->established || !u->sock || u->pending || u->fin_sent || u->error != CRUST_UTP_FINE)
		return 0;
	uint64_t outstanding = u->sent_bytes - u->acked_bytes;
	uint64_t room = outstanding < u->peer_window ? u->peer_window - outstanding : 0;
	if (u->greet)
		size = 0;
	else if (room == 0 || (uint16_t)(u->sent - u->acked) >= CRUST_UTP_OUTSTANDING)
		return 0;
	u->greet = 0;
	if (size > room)
		size = (size_t)room;
	if (size > CRUST_UTP_MTU - CRUST_UTP_HEADER)
		size = CRUST_UTP_MTU - CRUST_UTP_HEADER;
	ssize_t n = utp_write(u->sock, bytes, size);
	if (n < 0 || !u->pending) {
		fail(u, CRUST_UTP_BROKEN);
		return 0;
	}
	return (size_t)n;
}

void crust_utp_finish(crust_utp *u, uint64_t now)
{
	u->now = now;
	if (!u->established || !u->sock || u->pending || u->fin_sent || u->error != CRUST_UTP_FINE)
		return;
	u->fin_sent = 1;
	utp_shutdown(u->sock, 1); // SHUT_WR, SD_SEND
	if (!u->pending) {
		fail(u, CRUST_UTP_BROKEN);
		return;
	}
	u->fin_seq = u->pending_seq;
}

void crust_utp_sent(crust_utp *u, uint64_t now)
{
	uint8_t ack[CRUST_UTP_HEADER] = { STATE << 4 | 1 };
	u->now = now;
	if (!u->pending)
		return;
	u->pending = NULL;
	put16(ack + AT_ID, u->receive_id);
	put32(ack + AT_WINDOW, UNLIMITED);
	put16(ack + AT_SEQ, u->next);
	put16(ack + AT_ACK, u->pending_seq);
	give(u, ack, sizeof(ack));
}

// confirmed is the newest number that libutp knows to have arrived.
static uint16_t confirmed(const crust_utp *u)
{
	return u->pending ? (uint16_t)(u->sent - 1) : u->sent;
}

// acknowledged takes the peer's real acknowledgement and window. Packets may
// come out of order: only a newer number, or more room at the same, counts. The
// pending packet may be acknowledged before the path's call has returned.
static void acknowledged(crust_utp *u, uint16_t ack, uint32_t window)
{
	uint16_t fresh = (uint16_t)(ack - u->acked);
	if (fresh > (uint16_t)(u->sent - u->acked))
		return;
	if (fresh > 0) {
		u->acked = ack;
		u->acked_bytes = u->sent_at[ack % 1024];
		u->peer_window = window;
	} else if (window > u->peer_window) {
		u->peer_window = window;
	}
	if (u->fin_sent && u->acked == u->fin_seq)
		u->fin_acked = 1;
}

// ---- receiving ----

// payload returns where a packet's data begins, or 0 when it is malformed.
static size_t payload(const uint8_t *p, size_t size)
{
	size_t at = CRUST_UTP_HEADER;
	for (uint8_t extension = p[AT_EXTENSION]; extension; ) {
		if (size - at < 2 || size - at - 2 < p[at + 1])
			return 0;
		extension = p[at];
		at += 2u + p[at + 1];
	}
	return at;
}

// tell sends an acknowledgement when the peer should have one: it waits only
// for room, so that it may be rare.
static void tell(crust_utp *u)
{
	uint64_t edge = u->received + u->window - u->unread;
	if (!u->sock || u->error != CRUST_UTP_FINE)
		return;
	if (u->quiet_packets < 64 && u->quiet_bytes < u->window / 8 && edge < u->told_edge + u->window / 4)
		return;
	utp_read_drained(u->sock);
	utp_issue_deferred_acks(u->ctx);
}

static int has(const crust_utp *u, uint16_t seq) { return u->got[seq % REORDERED / 8] >> (seq % 8) & 1; }

// arrived passes a packet with data or FIN to libutp, none twice and none beyond
// the window.
static void arrived(crust_utp *u, uint8_t *p, size_t size, size_t data)
{
	uint16_t seq = get16(p + AT_SEQ);
	uint16_t ahead = (uint16_t)(seq - u->next);
	int type = p[0] >> 4;
	u->quiet_packets++;
	u->quiet_bytes += data;
	if (ahead >= REORDERED || (ahead > 0 && has(u, seq)))
		return;
	if (type == FIN && ahead > 0) {
		// libutp compares without regard to wrapping what comes after an early
		// FIN, and would lose data.
		memcpy(u->fin, p, CRUST_UTP_HEADER);
		u->fin[AT_EXTENSION] = 0;
		u->fin_held = 1;
		return;
	}
	if (u->unread + u->early + data > u->window) {
		fail(u, CRUST_UTP_VIOLATED);
		return;
	}
	u->early += data;
	give(u, p, size);
	if (ahead > 0) {
		u->got[seq % REORDERED / 8] |= (uint8_t)(1u << (seq % 8));
		return;
	}
	for (u->next++; has(u, u->next); u->next++)
		u->got[u->next % REORDERED / 8] &= (uint8_t)~(1u << (u->next % 8));
	if (u->fin_held && get16(u->fin + AT_SEQ) == u->next) {
		u->fin_held = 0;
		put16(u->fin + AT_ACK, confirmed(u));
		give(u, u->fin, CRUST_UTP_HEADER);
		u->next++;
	}
}

void crust_utp_input(crust_utp *u, uint8_t *p, size_t size, uint64_t now)
{
	u->now = now;
	if (size < CRUST_UTP_HEADER || size > CRUST_UTP_MTU || (p[0] & 15) != 1 || u->error != CRUST_UTP_FINE)
		return;
	int type = p[0] >> 4;
	uint16_t id = get16(p + AT_ID);
	size_t at = payload(p, size);
	if (at == 0 || type > SYN || p[AT_EXTENSION] > 2)
		return;
	if (type == SYN) {
		if (u->sock || u->dialler || id == 0xffff)
			return;
		u->receive_id = (uint16_t)(id + 1);
		u->send_id = id;
		u->next = (uint16_t)(get16(p + AT_SEQ) + 1);
		u->peer_window = get32(p + AT_WINDOW);
		give(u, p, size);
		return;
	}
	if (!u->sock || (id != u->receive_id && (type != RESET || id != u->send_id)))
		return;
	if (type == RESET) {
		give(u, p, size);
		return;
	}
	if (u->dialler && !u->established) {
		if (type != STATE || get16(p + AT_ACK) != u->sent)
			return;
		u->next = get16(p + AT_SEQ);
		u->peer_window = get32(p + AT_WINDOW);
		put32(p + AT_WINDOW, UNLIMITED);
		give(u, p, size);
		u->greet = u->established; // an empty packet tells the other side
		return;
	}
	acknowledged(u, get16(p + AT_ACK), get32(p + AT_WINDOW));
	if (type == STATE)
		return;
	put16(p + AT_ACK, confirmed(u));
	put32(p + AT_WINDOW, UNLIMITED);
	arrived(u, p, size, size - at);
	tell(u);
}

size_t crust_utp_read(crust_utp *u, void *bytes, size_t size, uint64_t now)
{
	uint8_t *to = bytes;
	size_t done = 0;
	u->now = now;
	while (done < size && u->head) {
		struct crust_utp_chunk *c = u->head;
		size_t n = c->end - c->begin < size - done ? c->end - c->begin : size - done;
		memcpy(to + done, c->bytes + c->begin, n);
		c->begin += n;
		done += n;
		if (c->begin < c->end)
			break;
		u->head = c->next;
		if (!u->head)
			u->tail = NULL;
		chunk_free(c);
	}
	u->unread -= done;
	u->consumed += done;
	// Whoever reads faster than the peer sends may have more under way.
	if (u->unread == 0 && u->consumed >= u->window && u->window < u->window_max && u->sock) {
		u->window = u->window * 2 < u->window_max ? u->window * 2 : u->window_max;
		u->consumed = 0;
		utp_setsockopt(u->sock, RCVBUF, (int)u->window);
	}
	tell(u);
	return done;
}

void crust_utp_discard(crust_utp *u)
{
	u->discard = 1;
	while (u->head) {
		struct crust_utp_chunk *next = u->head->next;
		chunk_free(u->head);
		u->head = next;
	}
	u->tail = NULL;
	u->unread = 0;
}
