// Record ciphers in the widest instructions of x86-64. Functions read and write
// exactly what their arguments say, take no time that depends on secrets and
// keep nothing.

#ifndef CRUST_WIDE_H
#define CRUST_WIDE_H

#include <stddef.h>
#include <stdint.h>

// POWERS is how many powers of the hash key stand in a table: as many as a stride
// has blocks.
#define CRUST_GCM_POWERS 32

// crust_gcm is an expanded key of AES-256-GCM.
struct crust_gcm {
	uint8_t round[15][16];
	// power[i] is H to the CRUST_GCM_POWERS - i, byte-reversed and divided by x;
	// zeros follow.
	uint8_t power[CRUST_GCM_POWERS + 3][16];
};

// crust_gcm_expand expands a key of 32 bytes.
void crust_gcm_expand(struct crust_gcm *key, const uint8_t *secret);

// crust_gcm_seal encrypts n bytes from src to dst and puts the tag, 16 bytes,
// behind them. start is the counter block of the tag. src is dst, or lies apart.
void crust_gcm_seal(const struct crust_gcm *key, const uint8_t *start, uint8_t *dst,
	const uint8_t *src, size_t n, const uint8_t *extra, size_t extra_len);

// crust_gcm_open decrypts n bytes, which the tag follows, from src to dst. When the
// tag is wrong it returns 0, with n zeros in dst.
int crust_gcm_open(const struct crust_gcm *key, const uint8_t *start, uint8_t *dst,
	const uint8_t *src, size_t n, const uint8_t *extra, size_t extra_len);

// crust_chacha_seal encrypts n bytes from src to dst by ChaCha20-Poly1305 under a
// secret of 32 bytes and a nonce of 12, and puts the tag, 16 bytes, behind them. src
// is dst, or lies apart.
void crust_chacha_seal(const uint8_t *secret, const uint8_t *nonce, uint8_t *dst,
	const uint8_t *src, size_t n, const uint8_t *extra, size_t extra_len);

// crust_chacha_open decrypts n bytes, which the tag follows, from src to dst. When
// the tag is wrong it returns 0, with n zeros in dst.
int crust_chacha_open(const uint8_t *secret, const uint8_t *nonce, uint8_t *dst,
	const uint8_t *src, size_t n, const uint8_t *extra, size_t extra_len);

#endif
