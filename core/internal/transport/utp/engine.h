// One end of one uTP connection: libutp and what keeps it within bounds. See
// engine.c. No function calls back into Go, waits, or may run beside another
// one with the same engine, but for crust_utp_new.

#ifndef CRUST_UTP_ENGINE_H
#define CRUST_UTP_ENGINE_H

#include <stddef.h>
#include <stdint.h>

enum {
	CRUST_UTP_HEADER = 20,      // BEP 29, header format
	CRUST_UTP_MTU = 60000,      // largest uTP packet with its header; libutp counts in 16 bits
	CRUST_UTP_SMALL = 32,       // more than any packet without data: header and selective ack are 26
	CRUST_UTP_SMALLS = 4,       // packets without data that wait for the path
	CRUST_UTP_OUTSTANDING = 900 // packets that the peer has not acknowledged; libutp's receiver reorders 1,023
};

// How an engine failed.
enum {
	CRUST_UTP_FINE = 0,
	CRUST_UTP_RESET,    // the peer reset the connection
	CRUST_UTP_TIMEDOUT, // nobody answered the SYN
	CRUST_UTP_VIOLATED, // the peer sent more than its window
	CRUST_UTP_MEMORY,   // malloc failed
	CRUST_UTP_BROKEN    // libutp did what it must not
};

struct crust_utp_chunk; // received bytes that nobody has read

typedef struct crust_utp {
	void *ctx;  // utp_context
	void *sock; // utp_socket; NULL before the SYN
	uint64_t now;    // microseconds; libutp's only clock
	uint64_t random; // state of libutp's only source of random numbers
	int dialler;     // 1: we sent the SYN
	int established; // both sides know that the other is there
	int eof;         // the peer's stream ended, in order
	int error;       // CRUST_UTP_RESET...
	uint16_t receive_id;
	uint16_t send_id;

	// The one packet with data, or FIN, that waits for the path. It is libutp's
	// memory and stays until crust_utp_sent or crust_utp_free.
	const uint8_t *pending;
	size_t pending_size;
	uint16_t pending_seq;

	// Sending: the newest packet's number, pending or handed to the path, and
	// that of the newest that the peer acknowledged; bytes likewise, and how many
	// there were with packet n, at n modulo 1,024.
	uint16_t sent, acked;
	uint64_t sent_bytes, acked_bytes;
	uint32_t peer_window;
	uint64_t sent_at[1024];
	int greet;    // an empty packet must go out first
	int fin_sent; // FIN was made
	uint16_t fin_seq;
	int fin_acked; // the peer has everything

	// Receiving: the next number, which of the 1,023 after it have come, and a
	// FIN that came early.
	uint16_t next;
	uint8_t got[128];
	uint8_t fin[CRUST_UTP_HEADER];
	int fin_held;
	struct crust_utp_chunk *head, *tail;
	size_t unread;        // bytes in the chunks
	size_t early;         // bytes in libutp's reorder buffer
	size_t window;        // bytes that unread and early may be together
	size_t window_max;    // window grows to this
	size_t consumed;      // bytes read since window grew
	uint64_t received;    // bytes delivered in order
	uint64_t told_edge;   // received + free window, as last told to the peer
	size_t quiet_bytes;   // received since we last told
	unsigned quiet_packets;
	int discard; // nobody will read

	uint8_t small[CRUST_UTP_SMALLS][CRUST_UTP_SMALL];
	uint8_t small_size[CRUST_UTP_SMALLS];
	unsigned smalls;
} crust_utp;

// crust_utp_new returns an engine that waits for a SYN, or NULL without memory.
// window and window_max are bytes, at least 2 * CRUST_UTP_MTU.
crust_utp *crust_utp_new(uint64_t random, uint64_t now, size_t window, size_t window_max);
void crust_utp_free(crust_utp *u);

// crust_utp_dial sends the SYN. Only on a new engine.
void crust_utp_dial(crust_utp *u, uint64_t now);

// crust_utp_input takes a packet, whose header it may change.
void crust_utp_input(crust_utp *u, uint8_t *packet, size_t size, uint64_t now);

// crust_utp_write makes of up to size bytes the next pending packet and returns
// how many it took: 0 when one is pending already, when the peer's window is
// full, and when the connection is not up. When greet is set it makes an empty
// packet and takes nothing. libutp works on static memory here: no two engines
// may be in it at once.
size_t crust_utp_write(crust_utp *u, void *bytes, size_t size, uint64_t now);

// crust_utp_finish makes FIN the next pending packet, unless it has been made
// or another one is pending.
void crust_utp_finish(crust_utp *u, uint64_t now);

// crust_utp_sent says that the path took the pending packet and will deliver it.
void crust_utp_sent(crust_utp *u, uint64_t now);

// crust_utp_read takes up to size received bytes.
size_t crust_utp_read(crust_utp *u, void *bytes, size_t size, uint64_t now);

// crust_utp_tick repeats a SYN that nobody answered.
void crust_utp_tick(crust_utp *u, uint64_t now);

// crust_utp_reset writes a RST of CRUST_UTP_HEADER bytes for the peer.
void crust_utp_reset(const crust_utp *u, uint8_t *packet);

// crust_utp_discard throws away what was received and what will be.
void crust_utp_discard(crust_utp *u);

// crust_utp_small takes the oldest packet without data out and returns its
// size, 0 when there is none. packet has CRUST_UTP_SMALL bytes.
size_t crust_utp_small(crust_utp *u, uint8_t *packet);

// crust_utp_small_back puts a packet back that the path refused.
void crust_utp_small_back(crust_utp *u, const uint8_t *packet, size_t size);

#endif
