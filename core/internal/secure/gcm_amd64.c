//go:build cgo && (linux || windows)

// AES-256-GCM (NIST SP 800-38D) in AVX-512 with VAES and VPCLMULQDQ.
//
// A vector holds four blocks. GHASH keeps four sums, one for every fourth block,
// and multiplies each by H^4 from a vector to the next; only at the end are they
// multiplied by H^4, H^3, H^2 and H and added. Blocks are hashed byte-reversed,
// with the coefficient of x^127 in bit 0; as the product of two such numbers is
// off by one place, powers of H are stored divided by x.

#include "wide.h"

#include <immintrin.h>
#include <string.h>

#define WIDE __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,vaes,vpclmulqdq,aes,pclmul,ssse3,sse4.1")))
#define INLINE static inline __attribute__((always_inline)) WIDE

enum { block = 16, vector = 64, step = 4 * vector, stride = 8 * vector };

// low terms of the field's polynomial: x^128 = x^7 + x^2 + x + 1.
#define LOW_TERMS 0xc200000000000000ull

INLINE __m128i load_block(const uint8_t *p) { return _mm_loadu_si128((const __m128i *)p); }
INLINE void store_block(uint8_t *p, __m128i x) { _mm_storeu_si128((__m128i *)p, x); }
INLINE __m512i load(const uint8_t *p) { return _mm512_loadu_si512(p); }
INLINE __m512i four(const uint8_t *p) { return _mm512_broadcast_i32x4(load_block(p)); }

INLINE __m128i reversal(void) { return _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }
INLINE __m128i reverse_block(__m128i x) { return _mm_shuffle_epi8(x, reversal()); }
INLINE __m512i reverse(__m512i x) { return _mm512_shuffle_epi8(x, _mm512_broadcast_i32x4(reversal())); }

// product is what is to be added to the products of four blocks before reduction.
struct product {
	__m512i low, middle, high;
};

// add_product adds a * h.
INLINE void add_product(struct product *p, __m512i a, __m512i h)
{
	p->low = _mm512_xor_si512(p->low, _mm512_clmulepi64_epi128(a, h, 0x00));
	p->high = _mm512_xor_si512(p->high, _mm512_clmulepi64_epi128(a, h, 0x11));
	p->middle = _mm512_ternarylogic_epi64(p->middle, _mm512_clmulepi64_epi128(a, h, 0x01),
		_mm512_clmulepi64_epi128(a, h, 0x10), 0x96);
}

INLINE struct product no_product(void)
{
	__m512i zero = _mm512_setzero_si512();
	return (struct product){zero, zero, zero};
}

// reduce brings four products below x^128, twice 64 bits at a time.
INLINE __m512i reduce(struct product p)
{
	const __m512i terms = _mm512_set1_epi64((long long)LOW_TERMS);
	__m512i low = _mm512_xor_si512(p.low, _mm512_bslli_epi128(p.middle, 8));
	__m512i high = _mm512_xor_si512(p.high, _mm512_bsrli_epi128(p.middle, 8));
	low = _mm512_xor_si512(_mm512_shuffle_epi32(low, 0x4e), _mm512_clmulepi64_epi128(low, terms, 0x00));
	return _mm512_ternarylogic_epi64(high, _mm512_shuffle_epi32(low, 0x4e),
		_mm512_clmulepi64_epi128(low, terms, 0x00), 0x96);
}

// multiply multiplies in four places.
INLINE __m512i multiply(__m512i a, __m512i h)
{
	struct product p = no_product();
	add_product(&p, a, h);
	return reduce(p);
}

INLINE __m512i fold(__m512i x) // adds the four blocks up, in each place
{
	x = _mm512_xor_si512(x, _mm512_shuffle_i64x2(x, x, 0x4e));
	return _mm512_xor_si512(x, _mm512_shuffle_i64x2(x, x, 0xb1));
}

INLINE __m128i encrypt_block(const struct crust_gcm *key, __m128i x)
{
	x = _mm_xor_si128(x, load_block(key->round[0]));
	for (int i = 1; i < 14; i++)
		x = _mm_aesenc_si128(x, load_block(key->round[i]));
	return _mm_aesenclast_si128(x, load_block(key->round[14]));
}

// spread is x + x<<32 + x<<64 + x<<96.
INLINE __m128i spread(__m128i x)
{
	x = _mm_xor_si128(x, _mm_slli_si128(x, 4));
	return _mm_xor_si128(x, _mm_slli_si128(x, 8));
}

WIDE static void expand_rounds(struct crust_gcm *key, const uint8_t *secret)
{
	__m128i a = load_block(secret), b = load_block(secret + block);
	store_block(key->round[0], a);
	store_block(key->round[1], b);
#define EVEN(i, constant) \
	a = _mm_xor_si128(spread(a), _mm_shuffle_epi32(_mm_aeskeygenassist_si128(b, constant), 0xff)); \
	store_block(key->round[i], a);
#define BOTH(i, constant) \
	EVEN(i, constant) \
	b = _mm_xor_si128(spread(b), _mm_shuffle_epi32(_mm_aeskeygenassist_si128(a, 0), 0xaa)); \
	store_block(key->round[i + 1], b);
	BOTH(2, 0x01)
	BOTH(4, 0x02)
	BOTH(6, 0x04)
	BOTH(8, 0x08)
	BOTH(10, 0x10)
	BOTH(12, 0x20)
	EVEN(14, 0x40)
#undef BOTH
#undef EVEN
}

// divide divides a byte-reversed number by x.
INLINE __m128i divide(__m128i x)
{
	__m128i carry = _mm_srli_epi64(x, 63); // of both halves
	__m128i over = _mm_sub_epi64(_mm_setzero_si128(), _mm_unpackhi_epi64(carry, carry));
	x = _mm_or_si128(_mm_slli_epi64(x, 1), _mm_slli_si128(carry, 8));
	return _mm_xor_si128(x, _mm_and_si128(over, _mm_set_epi64x((long long)LOW_TERMS, 1)));
}

WIDE void crust_gcm_expand(struct crust_gcm *key, const uint8_t *secret)
{
	memset(key->power, 0, sizeof key->power);
	expand_rounds(key, secret);
	__m128i h = divide(reverse_block(encrypt_block(key, _mm_setzero_si128())));
	__m128i power = h;
	for (int i = CRUST_GCM_POWERS - 1; i >= 0; i--) {
		store_block(key->power[i], power);
		power = _mm512_castsi512_si128(multiply(_mm512_broadcast_i32x4(power), _mm512_broadcast_i32x4(h)));
	}
}

// power returns the powers from H^n downwards; those of H^0 and below are zero.
INLINE __m512i powers(const struct crust_gcm *key, size_t n) { return load(key->power[CRUST_GCM_POWERS - n]); }

// same returns H^n four times.
INLINE __m512i same(const struct crust_gcm *key, size_t n) { return four(key->power[CRUST_GCM_POWERS - n]); }

// hash_extra begins the four sums with data that is only authenticated. The last
// block lies in the last place.
INLINE __m512i hash_extra(const struct crust_gcm *key, const uint8_t *extra, size_t n)
{
	__m512i sums = _mm512_setzero_si512();
	size_t at = (vector - (n + block - 1) / block * block % vector) % vector;
	while (n > 0) {
		uint8_t four_blocks[vector] = {0};
		size_t part = n < vector - at ? n : vector - at;
		memcpy(four_blocks + at, extra, part);
		sums = _mm512_xor_si512(multiply(sums, same(key, 4)), reverse(load(four_blocks)));
		extra += part;
		n -= part;
		at = 0;
	}
	return sums;
}

// state is what a message needs while it goes through.
struct state {
	__m512i counter; // of the next four blocks, byte-reversed
	__m512i sums;
	__m512i rounds[15];
};

INLINE __m512i count(struct state *s)
{
	__m512i x = _mm512_xor_si512(reverse(s->counter), s->rounds[0]);
	s->counter = _mm512_add_epi32(s->counter, _mm512_broadcast_i32x4(_mm_set_epi32(0, 0, 0, 4)));
	return x;
}

// key_stream makes the key stream of 16 blocks.
INLINE void key_stream(struct state *s, __m512i *a, __m512i *b, __m512i *c, __m512i *d)
{
	*a = count(s), *b = count(s), *c = count(s), *d = count(s);
#define ROUND(kind, i) \
	*a = kind(*a, s->rounds[i]), *b = kind(*b, s->rounds[i]); \
	*c = kind(*c, s->rounds[i]), *d = kind(*d, s->rounds[i]);
	ROUND(_mm512_aesenc_epi128, 1)
	ROUND(_mm512_aesenc_epi128, 2)
	ROUND(_mm512_aesenc_epi128, 3)
	ROUND(_mm512_aesenc_epi128, 4)
	ROUND(_mm512_aesenc_epi128, 5)
	ROUND(_mm512_aesenc_epi128, 6)
	ROUND(_mm512_aesenc_epi128, 7)
	ROUND(_mm512_aesenc_epi128, 8)
	ROUND(_mm512_aesenc_epi128, 9)
	ROUND(_mm512_aesenc_epi128, 10)
	ROUND(_mm512_aesenc_epi128, 11)
	ROUND(_mm512_aesenc_epi128, 12)
	ROUND(_mm512_aesenc_epi128, 13)
	ROUND(_mm512_aesenclast_epi128, 14)
#undef ROUND
}

// hash_step adds 16 blocks to the four sums.
INLINE void hash_step(struct state *s, const __m512i power[3], __m512i h16, __m512i a, __m512i b, __m512i c, __m512i d)
{
	struct product p = no_product();
	add_product(&p, s->sums, h16);
	add_product(&p, reverse(a), power[0]);
	add_product(&p, reverse(b), power[1]);
	add_product(&p, reverse(c), power[2]);
	s->sums = _mm512_xor_si512(reduce(p), reverse(d));
}

// whole_steps goes through n bytes, a multiple of step. What is sealed is hashed a
// step later, so that neither half waits for the other.
INLINE void whole_steps(const struct crust_gcm *key, struct state *s, uint8_t *dst, const uint8_t *src, size_t n, int opening)
{
	const __m512i h16 = same(key, 16), power[3] = {same(key, 12), same(key, 8), same(key, 4)};
	__m512i a, b, c, d;
	for (size_t at = 0; at < n; at += step) {
		__m512i a0 = load(src + at), b0 = load(src + at + vector);
		__m512i c0 = load(src + at + 2 * vector), d0 = load(src + at + 3 * vector);
		if (opening)
			hash_step(s, power, h16, a0, b0, c0, d0);
		else if (at > 0)
			hash_step(s, power, h16, a, b, c, d);
		key_stream(s, &a, &b, &c, &d);
		a = _mm512_xor_si512(a, a0), b = _mm512_xor_si512(b, b0);
		c = _mm512_xor_si512(c, c0), d = _mm512_xor_si512(d, d0);
		_mm512_storeu_si512(dst + at, a);
		_mm512_storeu_si512(dst + at + vector, b);
		_mm512_storeu_si512(dst + at + 2 * vector, c);
		_mm512_storeu_si512(dst + at + 3 * vector, d);
	}
	if (!opening && n > 0)
		hash_step(s, power, h16, a, b, c, d);
}

// hash_stride adds 32 blocks to the four sums.
INLINE void hash_stride(const struct crust_gcm *key, struct state *s, const uint8_t *text)
{
	struct product p = no_product();
	add_product(&p, s->sums, same(key, 32));
	for (size_t i = 0; i < 7; i++)
		add_product(&p, reverse(load(text + i * vector)), same(key, 28 - 4 * i));
	s->sums = _mm512_xor_si512(reduce(p), reverse(load(text + 7 * vector)));
}

// whole_strides goes through n bytes, a multiple of stride: 32 blocks at a time, as many
// as it takes for each round not to wait for the one before it. Between the rounds
// what is opened is hashed, or what was sealed a stride before.
INLINE void whole_strides(const struct crust_gcm *key, struct state *s, uint8_t *dst, const uint8_t *src, size_t n, int opening)
{
	for (size_t at = 0; at < n; at += stride) {
		const uint8_t *text = opening ? src + at : dst + at - stride;
		const int hashing = opening || at > 0;
		struct product p = no_product();
		__m512i x[8], k;
		for (int i = 0; i < 8; i++)
			x[i] = count(s);
		if (hashing)
			add_product(&p, s->sums, same(key, 32));
#define ROUND(kind, r) \
	k = four(key->round[r]); \
	x[0] = kind(x[0], k), x[1] = kind(x[1], k), x[2] = kind(x[2], k), x[3] = kind(x[3], k); \
	x[4] = kind(x[4], k), x[5] = kind(x[5], k), x[6] = kind(x[6], k), x[7] = kind(x[7], k);
#define HASH(i) \
	if (hashing) \
		add_product(&p, reverse(load(text + (i) * vector)), same(key, 28 - 4 * (i)));
		ROUND(_mm512_aesenc_epi128, 1)
		HASH(0)
		ROUND(_mm512_aesenc_epi128, 2)
		HASH(1)
		ROUND(_mm512_aesenc_epi128, 3)
		HASH(2)
		ROUND(_mm512_aesenc_epi128, 4)
		HASH(3)
		ROUND(_mm512_aesenc_epi128, 5)
		HASH(4)
		ROUND(_mm512_aesenc_epi128, 6)
		HASH(5)
		ROUND(_mm512_aesenc_epi128, 7)
		HASH(6)
		ROUND(_mm512_aesenc_epi128, 8)
		if (hashing)
			s->sums = _mm512_xor_si512(reduce(p), reverse(load(text + 7 * vector)));
		ROUND(_mm512_aesenc_epi128, 9)
		ROUND(_mm512_aesenc_epi128, 10)
		ROUND(_mm512_aesenc_epi128, 11)
		ROUND(_mm512_aesenc_epi128, 12)
		ROUND(_mm512_aesenc_epi128, 13)
		ROUND(_mm512_aesenclast_epi128, 14)
#undef ROUND
#undef HASH
		for (int i = 0; i < 8; i++)
			_mm512_storeu_si512(dst + at + i * vector, _mm512_xor_si512(x[i], load(src + at + i * vector)));
	}
	if (!opening && n > 0)
		hash_stride(key, s, dst + n - stride);
}

// mask_of has a bit for each of the next 64 bytes that is among n.
INLINE __mmask64 mask_of(size_t n) { return n >= vector ? ~0ull : (1ull << n) - 1; }

// end goes through the last n bytes, fewer than step, and the block of lengths, and
// returns the hash.
INLINE __m128i end(const struct crust_gcm *key, struct state *s, uint8_t *dst, const uint8_t *src, size_t n, __m128i lengths, int opening)
{
	__m512i stream[4];
	size_t blocks = (n + block - 1) / block;
	struct product p = no_product();
	add_product(&p, s->sums, powers(key, blocks + 5));
	add_product(&p, _mm512_zextsi128_si512(lengths), powers(key, 1));
	if (n > 0)
		key_stream(s, &stream[0], &stream[1], &stream[2], &stream[3]);
	for (size_t at = 0, i = 0; at < n; at += vector, i++) {
		__mmask64 mask = mask_of(n - at);
		__m512i in = _mm512_maskz_loadu_epi8(mask, src + at);
		__m512i out = _mm512_maskz_mov_epi8(mask, _mm512_xor_si512(in, stream[i]));
		_mm512_mask_storeu_epi8(dst + at, mask, out);
		add_product(&p, reverse(opening ? in : out), powers(key, blocks + 1 - at / block));
	}
	p.low = fold(p.low), p.middle = fold(p.middle), p.high = fold(p.high);
	return _mm512_castsi512_si128(reduce(p));
}

// pass goes through a message and returns its tag.
INLINE __m128i pass(const struct crust_gcm *key, const uint8_t *start, uint8_t *dst, const uint8_t *src, size_t n,
	const uint8_t *extra, size_t extra_len, int opening)
{
	struct state s;
	__m128i first = load_block(start);
	s.counter = _mm512_add_epi32(_mm512_broadcast_i32x4(reverse_block(first)),
		_mm512_set_epi32(0, 0, 0, 4, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 1));
#define KEY(i) s.rounds[i] = four(key->round[i]);
	KEY(0) KEY(1) KEY(2) KEY(3) KEY(4) KEY(5) KEY(6) KEY(7) KEY(8) KEY(9) KEY(10) KEY(11) KEY(12) KEY(13) KEY(14)
#undef KEY
	s.sums = hash_extra(key, extra, extra_len);
	size_t strides = n - n % stride, steps = n - n % step;
	whole_strides(key, &s, dst, src, strides, opening);
	whole_steps(key, &s, dst + strides, src + strides, steps - strides, opening);
	__m128i lengths = _mm_set_epi64x((long long)(extra_len * 8), (long long)(n * 8));
	__m128i hash = end(key, &s, dst + steps, src + steps, n - steps, lengths, opening);
	return _mm_xor_si128(reverse_block(hash), encrypt_block(key, first));
}

WIDE void crust_gcm_seal(const struct crust_gcm *key, const uint8_t *start, uint8_t *dst,
	const uint8_t *src, size_t n, const uint8_t *extra, size_t extra_len)
{
	store_block(dst + n, pass(key, start, dst, src, n, extra, extra_len, 0));
}

WIDE int crust_gcm_open(const struct crust_gcm *key, const uint8_t *start, uint8_t *dst,
	const uint8_t *src, size_t n, const uint8_t *extra, size_t extra_len)
{
	__m128i want = load_block(src + n);
	__m128i wrong = _mm_xor_si128(pass(key, start, dst, src, n, extra, extra_len, 1), want);
	if (_mm_testz_si128(wrong, wrong))
		return 1;
	memset(dst, 0, n);
	return 0;
}
