//go:build cgo && amd64 && (linux || windows)

// ChaCha20-Poly1305 (RFC 8439) in AVX-512 with IFMA.
//
// ChaCha20 makes 16 blocks at a time, a vector for each word of theirs. The first
// of a message is Poly1305's key. Poly1305 keeps eight sums, one for every eighth
// block, in numbers of 44, 44 and 42 bits, and multiplies each by r^8 from a group
// of eight blocks to the next; at the end they are multiplied by the powers from
// r^8 down to r and added. What is less than a group goes one block after another.
//
// Of a long message ChaCha20 makes twice 16 blocks at a time, and Poly1305 takes four
// groups with one multiplication of its sums, between the rounds: neither waits for
// what the other has just begun.

#include "wide.h"

#include <immintrin.h>
#include <string.h>

#define WIDE __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512ifma")))
#define INLINE static inline __attribute__((always_inline)) WIDE

enum { block = 16, group = 8 * block, chunk = 64, batch = 16 * chunk, four = 4 * group };

// fused_from is the least length in bytes of a message of which parts go through fused:
// of shorter ones too little would, for what it needs in advance.
enum { fused_from = 8 * batch };

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

#define EACH(f) f(0) f(1) f(2) f(3) f(4) f(5) f(6) f(7) f(8) f(9) f(10) f(11) f(13) f(14) f(15)
#define BEGIN(i) x[i] = _mm512_set1_epi32((int)state[i]);
#define END(i) x[i] = _mm512_add_epi32(x[i], _mm512_set1_epi32((int)state[i]));

// counters returns word 12 of a batch.
INLINE __m512i counters(uint32_t first)
{
	return _mm512_add_epi32(_mm512_set1_epi32((int)first),
		_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
}

// fill begins the words of a batch.
INLINE void fill(const uint32_t state[16], __m512i x[16], __m512i counter)
{
	EACH(BEGIN)
	x[12] = counter;
}

// add_stream ends the words of a batch, and adds the key stream to it.
INLINE void add_stream(const uint32_t state[16], __m512i x[16], __m512i counter, uint8_t *dst, const uint8_t *src)
{
	EACH(END)
	x[12] = _mm512_add_epi32(x[12], counter);
	turn(x, 0), turn(x, 4), turn(x, 8), turn(x, 12);
	put(dst, src, x[0], x[4], x[8], x[12]);
	put(dst + chunk, src + chunk, x[1], x[5], x[9], x[13]);
	put(dst + 2 * chunk, src + 2 * chunk, x[2], x[6], x[10], x[14]);
	put(dst + 3 * chunk, src + 3 * chunk, x[3], x[7], x[11], x[15]);
}
#undef EACH
#undef BEGIN
#undef END

// key_stream adds the key stream of a batch to it, and counts.
WIDE static __attribute__((noinline)) void key_stream(uint32_t state[16], uint8_t *dst, const uint8_t *src)
{
	__m512i x[16], counter = counters(state[12]);
	fill(state, x, counter);
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
	state[12] += 16;
	add_stream(state, x, counter, dst, src);
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
	struct eight power[4]; // r^32, r^24, r^16 and r^8, each eight times
	__m512i by20[4][2];    // the upper limbs of those, times 20
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

// product is one in eight places before it is carried: of each limb the low 52 bits of
// what was added up, of the limb's weight, and the rest, of 2^52 times that.
struct product {
	__m512i a, b, c, a_high, b_high, c_high;
};

INLINE struct product no_product(void)
{
	__m512i zero = _mm512_setzero_si512();
	return (struct product){zero, zero, zero, zero, zero, zero};
}

INLINE __m512i twenty_times(__m512i x) { return _mm512_madd52lo_epu64(_mm512_setzero_si512(), x, same(20)); }

// add_product adds x * y; b20 and c20 are y's upper limbs times 20.
INLINE void add_product(struct product *p, struct eight x, struct eight y, __m512i b20, __m512i c20)
{
#define ADD(to, u, v) p->to = _mm512_madd52lo_epu64(p->to, u, v), p->to##_high = _mm512_madd52hi_epu64(p->to##_high, u, v);
	ADD(a, x.a, y.a)
	ADD(b, x.a, y.b)
	ADD(c, x.a, y.c)
	ADD(a, x.b, c20)
	ADD(b, x.b, y.a)
	ADD(c, x.b, y.b)
	ADD(a, x.c, b20)
	ADD(b, x.c, c20)
	ADD(c, x.c, y.a)
#undef ADD
}

// carried brings the limbs of products back to their sizes.
INLINE struct eight carried(struct product p)
{
	const __m512i mask = same(MASK44);
	__m512i b = _mm512_add_epi64(p.b, _mm512_add_epi64(_mm512_srli_epi64(p.a, 44), _mm512_slli_epi64(p.a_high, 8)));
	__m512i c = _mm512_add_epi64(p.c, _mm512_add_epi64(_mm512_srli_epi64(b, 44), _mm512_slli_epi64(p.b_high, 8)));
	__m512i over = _mm512_add_epi64(_mm512_srli_epi64(c, 42), _mm512_slli_epi64(p.c_high, 10));
	__m512i a = _mm512_add_epi64(_mm512_and_si512(p.a, mask), _mm512_add_epi64(over, _mm512_slli_epi64(over, 2)));
	b = _mm512_add_epi64(_mm512_and_si512(b, mask), _mm512_srli_epi64(a, 44));
	return (struct eight){_mm512_and_si512(a, mask), b, _mm512_and_si512(c, same(MASK42))};
}

// multiply multiplies in eight places.
INLINE struct eight multiply(struct eight x, struct eight y)
{
	struct product p = no_product();
	add_product(&p, x, y, twenty_times(y.b), twenty_times(y.c));
	return carried(p);
}

// add_group takes eight blocks into limbs and adds them to x.
INLINE struct eight add_group(struct eight x, const uint8_t *text)
{
	const __m512i mask = same(MASK44);
	__m512i first = _mm512_loadu_si512(text), second = _mm512_loadu_si512(text + group / 2);
	__m512i low = _mm512_unpacklo_epi64(first, second), high = _mm512_unpackhi_epi64(first, second);
	x.a = _mm512_add_epi64(x.a, _mm512_and_si512(low, mask));
	x.b = _mm512_add_epi64(x.b, _mm512_and_si512(_mm512_or_si512(_mm512_srli_epi64(low, 44), _mm512_slli_epi64(high, 20)), mask));
	x.c = _mm512_add_epi64(x.c, _mm512_or_si512(_mm512_srli_epi64(high, 24), same(1ull << 40)));
	return x;
}

INLINE struct eight nothing(void)
{
	__m512i zero = _mm512_setzero_si512();
	return (struct eight){zero, zero, zero};
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
	if (n >= fused_from) {
		struct limbs power = p[8];
		for (int i = 3; i >= 0; i--) {
			m->power[i] = (struct eight){same(power.a), same(power.b), same(power.c)};
			m->by20[i][0] = same(power.b * 20), m->by20[i][1] = same(power.c * 20);
			power = times(power, p[8]);
		}
	}
	// Blocks lie in the places 0 4 1 5 2 6 3 7, as add_groups unpacks them.
#define POWERS(limb) _mm512_set_epi64((long long)p[1].limb, (long long)p[5].limb, (long long)p[2].limb, (long long)p[6].limb, \
	(long long)p[3].limb, (long long)p[7].limb, (long long)p[4].limb, (long long)p[8].limb)
	m->last = (struct eight){POWERS(a), POWERS(b), POWERS(c)};
#undef POWERS
}

// add_groups adds the groups of the text up to a byte.
WIDE static void add_groups(struct mac *m, const uint8_t *text, size_t to)
{
	const struct eight r8 = m->r8;
	struct eight sums = m->sums;
	for (; to - m->done >= group; m->done += group) {
		if (m->grouped) {
			sums = multiply(sums, r8);
		} else { // what came before goes on in the first place
			sums.a = _mm512_maskz_set1_epi64(1, (long long)m->sum.a);
			sums.b = _mm512_maskz_set1_epi64(1, (long long)m->sum.b);
			sums.c = _mm512_maskz_set1_epi64(1, (long long)m->sum.c);
			m->grouped = 1;
		}
		sums = add_group(sums, text + m->done);
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

// STEPS is one step of all the quarters of half a double round of two batches, so that
// none waits for the one before it.
#define STEP(z, a, b, d, n) z[a] = _mm512_add_epi32(z[a], z[b]), z[d] = _mm512_rol_epi32(_mm512_xor_si512(z[d], z[a]), n);
#define STEPS(n, a0, b0, d0, a1, b1, d1, a2, b2, d2, a3, b3, d3) \
	STEP(x, a0, b0, d0, n) STEP(x, a1, b1, d1, n) STEP(x, a2, b2, d2, n) STEP(x, a3, b3, d3, n) \
	STEP(y, a0, b0, d0, n) STEP(y, a1, b1, d1, n) STEP(y, a2, b2, d2, n) STEP(y, a3, b3, d3, n)
#define COLUMNS \
	STEPS(16, 0, 4, 12, 1, 5, 13, 2, 6, 14, 3, 7, 15) \
	STEPS(12, 8, 12, 4, 9, 13, 5, 10, 14, 6, 11, 15, 7) \
	STEPS(8, 0, 4, 12, 1, 5, 13, 2, 6, 14, 3, 7, 15) \
	STEPS(7, 8, 12, 4, 9, 13, 5, 10, 14, 6, 11, 15, 7)
#define DIAGONALS \
	STEPS(16, 0, 5, 15, 1, 6, 12, 2, 7, 13, 3, 4, 14) \
	STEPS(12, 10, 15, 5, 11, 12, 6, 8, 13, 7, 9, 14, 4) \
	STEPS(8, 0, 5, 15, 1, 6, 12, 2, 7, 13, 3, 4, 14) \
	STEPS(7, 10, 15, 5, 11, 12, 6, 8, 13, 7, 9, 14, 4)

// fused adds the key stream of two batches to them, and counts. Meanwhile it adds to the
// sums as many bytes of the text as two batches have, which it reads before it writes.
WIDE static __attribute__((noinline)) void fused(uint32_t state[16], uint8_t *dst, const uint8_t *src, struct mac *m, const uint8_t *text)
{
	__m512i x[16], y[16], one = counters(state[12]), two = counters(state[12] + 16);
	struct eight sums = m->sums;
	fill(state, x, one);
	fill(state, y, two);
#define TAKE(i, from) add_product(&p, from, m->power[i], m->by20[i][0], m->by20[i][1]);
	for (int i = 0; i < 4; i++, text += four) {
		struct product p = no_product();
		COLUMNS
		TAKE(0, sums)
		TAKE(1, add_group(nothing(), text))
		DIAGONALS
		COLUMNS
		TAKE(2, add_group(nothing(), text + group))
		TAKE(3, add_group(nothing(), text + 2 * group))
		DIAGONALS
		sums = add_group(carried(p), text + 3 * group);
	}
#undef TAKE
	COLUMNS
	DIAGONALS
	COLUMNS
	DIAGONALS
	m->sums = sums;
	m->done += 2 * batch;
	add_stream(state, x, one, dst, src);
	add_stream(state, y, two, dst + batch, src + batch);
	state[12] += 32;
}
#undef STEPS
#undef STEP
#undef COLUMNS
#undef DIAGONALS

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

// scrub erases what fused has left on the stack, where its frame has some 5 KiB.
static __attribute__((noinline)) void scrub(void)
{
	uint8_t left[6 << 10];
	wipe(left, sizeof left);
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
		int more = m.grouped && n >= fused_from && n - at > 2 * batch + group;
		if (more && (opening || at >= m.done + 2 * batch)) {
			fused(state, dst + at, src + at, &m, sealed + m.done);
			at += 2 * batch;
			continue;
		}
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
		if (!opening && !more) // fused takes what it comes to late
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
	if (n >= fused_from)
		scrub();
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
