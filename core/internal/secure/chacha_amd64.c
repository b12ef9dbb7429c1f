//go:build cgo && amd64 && (linux || windows)

// ChaCha20-Poly1305 (RFC 8439) in AVX-512 with IFMA.
//
// ChaCha20 makes 16 blocks at a time, a vector for each word of theirs. The first
// of a message is Poly1305's key. Poly1305 keeps eight sums, one for every eighth
// block, in numbers of 44, 44 and 42 bits, and multiplies each by r^8 from a group
// of eight blocks to the next; at the end they are multiplied by the powers from
// r^8 down to r and added. What is less than a group goes one block after another.

#include "wide.h"

#include <immintrin.h>
#include <string.h>

#define WIDE __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512ifma")))
#define INLINE static inline __attribute__((always_inline)) WIDE

enum { block = 16, group = 8 * block, chunk = 64, batch = 16 * chunk };

typedef unsigned __int128 uint128;

#define MASK44 ((1ull << 44) - 1)
#define MASK42 ((1ull << 42) - 1)

INLINE __m512i same(uint64_t x) { return _mm512_set1_epi64((long long)x); }

// ---- ChaCha20 ----

#define QUARTER(a, b, c, d) \
	a = _mm512_add_epi32(a, b), d = _mm512_rol_epi32(_mm512_xor_si512(d, a), 16); \
	c = _mm512_add_epi32(c, d), b = _mm512_rol_epi32(_mm512_xor_si512(b, c), 12); \
	a = _mm512_add_epi32(a, b), d = _mm512_rol_epi32(_mm512_xor_si512(d, a), 8); \
	c = _mm512_add_epi32(c, d), b = _mm512_rol_epi32(_mm512_xor_si512(b, c), 7);

// put adds the key stream of four chunks, of which a to d hold four words each, to
// every fourth chunk of a batch.
INLINE void put(uint8_t *dst, const uint8_t *src, __m512i a, __m512i b, __m512i c, __m512i d)
{
	__m512i ab = _mm512_shuffle_i32x4(a, b, 0x44), cd = _mm512_shuffle_i32x4(c, d, 0x44);
	__m512i ba = _mm512_shuffle_i32x4(a, b, 0xee), dc = _mm512_shuffle_i32x4(c, d, 0xee);
	__m512i first = _mm512_xor_si512(_mm512_shuffle_i32x4(ab, cd, 0x88), _mm512_loadu_si512(src));
	__m512i second = _mm512_xor_si512(_mm512_shuffle_i32x4(ab, cd, 0xdd), _mm512_loadu_si512(src + 4 * chunk));
	__m512i third = _mm512_xor_si512(_mm512_shuffle_i32x4(ba, dc, 0x88), _mm512_loadu_si512(src + 8 * chunk));
	__m512i fourth = _mm512_xor_si512(_mm512_shuffle_i32x4(ba, dc, 0xdd), _mm512_loadu_si512(src + 12 * chunk));
	_mm512_storeu_si512(dst, first);
	_mm512_storeu_si512(dst + 4 * chunk, second);
	_mm512_storeu_si512(dst + 8 * chunk, third);
	_mm512_storeu_si512(dst + 12 * chunk, fourth);
}

// turn turns words i to i+3, a vector each, of 16 chunks into those of every fourth
// chunk.
INLINE void turn(__m512i x[16], int i)
{
	__m512i a = _mm512_unpacklo_epi32(x[i], x[i + 1]), b = _mm512_unpackhi_epi32(x[i], x[i + 1]);
	__m512i c = _mm512_unpacklo_epi32(x[i + 2], x[i + 3]), d = _mm512_unpackhi_epi32(x[i + 2], x[i + 3]);
	x[i] = _mm512_unpacklo_epi64(a, c), x[i + 1] = _mm512_unpackhi_epi64(a, c);
	x[i + 2] = _mm512_unpacklo_epi64(b, d), x[i + 3] = _mm512_unpackhi_epi64(b, d);
}

// key_stream adds the key stream of a batch to it, and counts.
WIDE static __attribute__((noinline)) void key_stream(uint32_t state[16], uint8_t *dst, const uint8_t *src)
{
	__m512i x[16], counter = _mm512_add_epi32(_mm512_set1_epi32((int)state[12]),
		_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
#define EACH(f) f(0) f(1) f(2) f(3) f(4) f(5) f(6) f(7) f(8) f(9) f(10) f(11) f(13) f(14) f(15)
#define BEGIN(i) x[i] = _mm512_set1_epi32((int)state[i]);
	EACH(BEGIN)
	x[12] = counter;
	for (int i = 0; i < 10; i++) {
		QUARTER(x[0], x[4], x[8], x[12])
		QUARTER(x[1], x[5], x[9], x[13])
		QUARTER(x[2], x[6], x[10], x[14])
		QUARTER(x[3], x[7], x[11], x[15])
		QUARTER(x[0], x[5], x[10], x[15])
		QUARTER(x[1], x[6], x[11], x[12])
		QUARTER(x[2], x[7], x[8], x[13])
		QUARTER(x[3], x[4], x[9], x[14])
	}
#define END(i) x[i] = _mm512_add_epi32(x[i], _mm512_set1_epi32((int)state[i]));
	EACH(END)
	x[12] = _mm512_add_epi32(x[12], counter);
	state[12] += 16;
	turn(x, 0), turn(x, 4), turn(x, 8), turn(x, 12);
	put(dst, src, x[0], x[4], x[8], x[12]);
	put(dst + chunk, src + chunk, x[1], x[5], x[9], x[13]);
	put(dst + 2 * chunk, src + 2 * chunk, x[2], x[6], x[10], x[14]);
	put(dst + 3 * chunk, src + 3 * chunk, x[3], x[7], x[11], x[15]);
#undef EACH
#undef BEGIN
#undef END
}

// ---- Poly1305 ----

// limbs is a number below 2^130, or a little above.
struct limbs {
	uint64_t a, b, c; // 44, 44 and 42 bits
};

// eight is eight of them.
struct eight {
	__m512i a, b, c;
};

struct mac {
	struct limbs r, sum;
	uint64_t pad[2];
	size_t done; // bytes of the text
	int finished, grouped;
	struct eight r8, sums; // r^8 eight times; the sums when grouped
	struct eight last;     // the powers of r for the end
};

// carry brings a product's limbs back to their sizes.
static inline struct limbs carry(uint128 a, uint128 b, uint128 c)
{
	b += (uint64_t)(a >> 44);
	c += (uint64_t)(b >> 44);
	uint64_t low = ((uint64_t)a & MASK44) + (uint64_t)(c >> 42) * 5;
	return (struct limbs){low & MASK44, ((uint64_t)b & MASK44) + (low >> 44), (uint64_t)c & MASK42};
}

// times multiplies: 2^132, the weight that a fourth limb would have, is 20.
static inline struct limbs times(struct limbs x, struct limbs y)
{
	uint64_t b20 = y.b * 20, c20 = y.c * 20;
	return carry((uint128)x.a * y.a + (uint128)x.b * c20 + (uint128)x.c * b20,
		(uint128)x.a * y.b + (uint128)x.b * y.a + (uint128)x.c * c20,
		(uint128)x.a * y.c + (uint128)x.b * y.b + (uint128)x.c * y.a);
}

// multiply multiplies in eight places. A product is taken in its low 52 bits, of
// the limb's weight, and the rest, of 2^52 times that.
INLINE struct eight multiply(struct eight x, struct eight y)
{
	const __m512i zero = _mm512_setzero_si512(), twenty = same(20), mask = same(MASK44);
	__m512i b20 = _mm512_madd52lo_epu64(zero, y.b, twenty), c20 = _mm512_madd52lo_epu64(zero, y.c, twenty);
	__m512i a = _mm512_madd52lo_epu64(zero, x.a, y.a), a_high = _mm512_madd52hi_epu64(zero, x.a, y.a);
	__m512i b = _mm512_madd52lo_epu64(zero, x.a, y.b), b_high = _mm512_madd52hi_epu64(zero, x.a, y.b);
	__m512i c = _mm512_madd52lo_epu64(zero, x.a, y.c), c_high = _mm512_madd52hi_epu64(zero, x.a, y.c);
	a = _mm512_madd52lo_epu64(a, x.b, c20), a_high = _mm512_madd52hi_epu64(a_high, x.b, c20);
	b = _mm512_madd52lo_epu64(b, x.b, y.a), b_high = _mm512_madd52hi_epu64(b_high, x.b, y.a);
	c = _mm512_madd52lo_epu64(c, x.b, y.b), c_high = _mm512_madd52hi_epu64(c_high, x.b, y.b);
	a = _mm512_madd52lo_epu64(a, x.c, b20), a_high = _mm512_madd52hi_epu64(a_high, x.c, b20);
	b = _mm512_madd52lo_epu64(b, x.c, c20), b_high = _mm512_madd52hi_epu64(b_high, x.c, c20);
	c = _mm512_madd52lo_epu64(c, x.c, y.a), c_high = _mm512_madd52hi_epu64(c_high, x.c, y.a);

	b = _mm512_add_epi64(b, _mm512_add_epi64(_mm512_srli_epi64(a, 44), _mm512_slli_epi64(a_high, 8)));
	c = _mm512_add_epi64(c, _mm512_add_epi64(_mm512_srli_epi64(b, 44), _mm512_slli_epi64(b_high, 8)));
	__m512i over = _mm512_add_epi64(_mm512_srli_epi64(c, 42), _mm512_slli_epi64(c_high, 10));
	a = _mm512_add_epi64(_mm512_and_si512(a, mask), _mm512_add_epi64(over, _mm512_slli_epi64(over, 2)));
	b = _mm512_add_epi64(_mm512_and_si512(b, mask), _mm512_srli_epi64(a, 44));
	return (struct eight){_mm512_and_si512(a, mask), b, _mm512_and_si512(c, same(MASK42))};
}

// add_block adds a block to the sum and multiplies it.
static void add_block(struct mac *m, const uint8_t *p)
{
	uint64_t low, high;
	memcpy(&low, p, 8);
	memcpy(&high, p + 8, 8);
	m->sum.a += low & MASK44;
	m->sum.b += ((low >> 44) | (high << 20)) & MASK44;
	m->sum.c += (high >> 24) | 1ull << 40;
	m->sum = times(m->sum, m->r);
}

// add_blocks adds n bytes, with zeros up to a whole block.
static void add_blocks(struct mac *m, const uint8_t *p, size_t n)
{
	for (; n >= block; p += block, n -= block)
		add_block(m, p);
	if (n > 0) {
		uint8_t rest[block] = {0};
		memcpy(rest, p, n);
		add_block(m, rest);
	}
}

// begin takes the key of a message, with what is needed for a text of n bytes.
WIDE static void begin(struct mac *m, const uint8_t *key, size_t n)
{
	uint64_t low, high;
	memcpy(&low, key, 8);
	memcpy(&high, key + 8, 8);
	memcpy(m->pad, key + block, sizeof m->pad);
	low &= 0x0ffffffc0fffffffull; // RFC 8439, section 2.5
	high &= 0x0ffffffc0ffffffcull;
	m->r = (struct limbs){low & MASK44, ((low >> 44) | (high << 20)) & MASK44, high >> 24};
	m->sum = (struct limbs){0, 0, 0};
	m->done = 0, m->finished = 0, m->grouped = 0;
	m->sums.a = m->sums.b = m->sums.c = _mm512_setzero_si512();
	if (n < group)
		return;
	struct limbs p[9];
	p[1] = m->r;
	for (int i = 2; i <= 8; i++)
		p[i] = times(p[i - 1], m->r);
	m->r8 = (struct eight){same(p[8].a), same(p[8].b), same(p[8].c)};
	// Blocks lie in the places 0 4 1 5 2 6 3 7, as add_groups unpacks them.
#define POWERS(limb) _mm512_set_epi64((long long)p[1].limb, (long long)p[5].limb, (long long)p[2].limb, (long long)p[6].limb, \
	(long long)p[3].limb, (long long)p[7].limb, (long long)p[4].limb, (long long)p[8].limb)
	m->last = (struct eight){POWERS(a), POWERS(b), POWERS(c)};
#undef POWERS
}

// add_groups adds the groups of the text up to a byte.
WIDE static void add_groups(struct mac *m, const uint8_t *text, size_t to)
{
	const __m512i mask = same(MASK44);
	const struct eight r8 = m->r8;
	struct eight sums = m->sums;
	for (; to - m->done >= group; m->done += group) {
		__m512i x = _mm512_loadu_si512(text + m->done), y = _mm512_loadu_si512(text + m->done + group / 2);
		__m512i low = _mm512_unpacklo_epi64(x, y), high = _mm512_unpackhi_epi64(x, y);
		__m512i a = _mm512_and_si512(low, mask);
		__m512i b = _mm512_and_si512(_mm512_or_si512(_mm512_srli_epi64(low, 44), _mm512_slli_epi64(high, 20)), mask);
		__m512i c = _mm512_or_si512(_mm512_srli_epi64(high, 24), same(1ull << 40));
		if (m->grouped) {
			sums = multiply(sums, r8);
		} else { // what came before goes on in the first place
			sums.a = _mm512_maskz_set1_epi64(1, (long long)m->sum.a);
			sums.b = _mm512_maskz_set1_epi64(1, (long long)m->sum.b);
			sums.c = _mm512_maskz_set1_epi64(1, (long long)m->sum.c);
			m->grouped = 1;
		}
		sums.a = _mm512_add_epi64(sums.a, a);
		sums.b = _mm512_add_epi64(sums.b, b);
		sums.c = _mm512_add_epi64(sums.c, c);
	}
	m->sums = sums;
}

// absorb adds the text, of n bytes, up to a byte: whole groups of it, and at n all.
WIDE static void absorb(struct mac *m, const uint8_t *text, size_t to, size_t n)
{
	if (m->finished)
		return;
	add_groups(m, text, to);
	if (to < n)
		return;
	if (m->grouped) {
		struct eight s = multiply(m->sums, m->last);
		m->sum = carry((uint64_t)_mm512_reduce_add_epi64(s.a), (uint64_t)_mm512_reduce_add_epi64(s.b), (uint64_t)_mm512_reduce_add_epi64(s.c));
	}
	add_blocks(m, text + m->done, n - m->done);
	m->finished = 1;
}

// tag writes the tag of all that was added.
static void tag(const struct mac *m, uint8_t *out)
{
	struct limbs h = carry(m->sum.a, m->sum.b, m->sum.c);
	h = carry(h.a, h.b, h.c);
	h = carry(h.a, h.b, h.c);
	// less p, which is 2^130 - 5, unless that is negative
	uint64_t a = h.a + 5, b = h.b + (a >> 44), c = h.c + (b >> 44);
	uint64_t keep = (c >> 42) - 1; // all ones when h is below p
	a = (h.a & keep) | (a & MASK44 & ~keep);
	b = (h.b & keep) | (b & MASK44 & ~keep);
	c = (h.c & keep) | (c & MASK42 & ~keep);
	uint128 sum = ((uint128)a | (uint128)b << 44 | (uint128)c << 88) + m->pad[0] + ((uint128)m->pad[1] << 64);
	memcpy(out, &sum, block);
}

// ---- both ----

// xor_bytes adds n bytes of key stream, fewer than a batch.
WIDE static void xor_bytes(uint8_t *dst, const uint8_t *src, const uint8_t *stream, size_t n)
{
	for (size_t at = 0; at < n; at += chunk) {
		__mmask64 mask = n - at >= chunk ? ~0ull : (1ull << (n - at)) - 1;
		__m512i x = _mm512_xor_si512(_mm512_maskz_loadu_epi8(mask, src + at), _mm512_maskz_loadu_epi8(mask, stream + at));
		_mm512_mask_storeu_epi8(dst + at, mask, x);
	}
}

// wipe erases what no compiler may take for dead.
static void wipe(void *p, size_t n)
{
	memset(p, 0, n);
	__asm__ volatile("" : : "r"(p) : "memory");
}

// pass goes through a message and writes its tag.
WIDE static void pass(const uint8_t *secret, const uint8_t *nonce, uint8_t *dst, const uint8_t *src, size_t n,
	const uint8_t *extra, size_t extra_len, int opening, uint8_t *out)
{
	uint32_t state[16] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574}; // "expand 32-byte k"
	uint8_t stream[batch] = {0};
	struct mac m;
	memcpy(state + 4, secret, 32);
	memcpy(state + 13, nonce, 12);
	key_stream(state, stream, stream);
	begin(&m, stream, n);
	add_blocks(&m, extra, extra_len);
	const uint8_t *sealed = opening ? src : dst;
	size_t usable = batch - chunk; // of the first batch
	for (size_t at = 0; at < n;) {
		size_t part = n - at < usable ? n - at : usable, end = at + part;
		if (opening) { // before it is overwritten: in whole groups, or all
			size_t to = (end + group - 1) / group * group;
			absorb(&m, sealed, to < n ? to : n, n);
		}
		if (at == 0) {
			xor_bytes(dst, src, stream + chunk, part);
		} else if (part == batch) {
			key_stream(state, dst + at, src + at);
		} else {
			memset(stream, 0, sizeof stream);
			key_stream(state, stream, stream);
			xor_bytes(dst + at, src + at, stream, part);
		}
		if (!opening)
			absorb(&m, sealed, end, n);
		at = end, usable = batch;
	}
	absorb(&m, sealed, n, n);
	uint64_t lengths[2] = {extra_len, n};
	add_block(&m, (const uint8_t *)lengths);
	tag(&m, out);
	wipe(state, sizeof state);
	wipe(stream, sizeof stream);
	wipe(&m, sizeof m);
}

WIDE void crust_chacha_seal(const uint8_t *secret, const uint8_t *nonce, uint8_t *dst,
	const uint8_t *src, size_t n, const uint8_t *extra, size_t extra_len)
{
	pass(secret, nonce, dst, src, n, extra, extra_len, 0, dst + n);
}

WIDE int crust_chacha_open(const uint8_t *secret, const uint8_t *nonce, uint8_t *dst,
	const uint8_t *src, size_t n, const uint8_t *extra, size_t extra_len)
{
	uint64_t want[2], got[2];
	memcpy(want, src + n, sizeof want);
	pass(secret, nonce, dst, src, n, extra, extra_len, 1, (uint8_t *)got);
	if (((want[0] ^ got[0]) | (want[1] ^ got[1])) == 0)
		return 1;
	memset(dst, 0, n);
	return 0;
}
