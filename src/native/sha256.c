/* SHA-256 (FIPS 180-4), for work without the interpreter's lock: hashlib has it only with a Python object for each digest.
 *
 * With the processor's own instructions where it is an x86 that has them, else in portable C. What is sealed with this is
 * verified with hashlib. */
#include "native.h"

static const uint32_t start_state[8] = {
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};

static const uint32_t constants[64] __attribute__((aligned(16))) = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01,
    0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc,
    0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
    0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08,
    0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
    0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

#define RIGHT(x, bits) (((x) >> (bits)) | ((x) << (32 - (bits))))

static uint32_t
big32(const unsigned char *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | (uint32_t)at[3];
}

static void
put_big32(unsigned char *to, uint32_t value)
{
    for (int at = 0; at < 4; at++)
        to[at] = (unsigned char)(value >> (24 - 8 * at));
}

static void
compress_portable(uint32_t state[8], const unsigned char *at, size_t blocks)
{
    for (; blocks--; at += 64) {
        uint32_t w[64], a = state[0], b = state[1], c = state[2], d = state[3], e = state[4], f = state[5], g = state[6],
                        h = state[7];
        for (int t = 0; t < 16; t++)
            w[t] = big32(at + 4 * t);
        for (int t = 16; t < 64; t++) {
            uint32_t x = w[t - 15], y = w[t - 2];
            w[t] = w[t - 16] + w[t - 7] + (RIGHT(x, 7) ^ RIGHT(x, 18) ^ x >> 3) + (RIGHT(y, 17) ^ RIGHT(y, 19) ^ y >> 10);
        }
        for (int t = 0; t < 64; t++) {
            uint32_t one = h + (RIGHT(e, 6) ^ RIGHT(e, 11) ^ RIGHT(e, 25)) + ((e & f) ^ (~e & g)) + constants[t] + w[t];
            uint32_t two = (RIGHT(a, 2) ^ RIGHT(a, 13) ^ RIGHT(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
            h = g, g = f, f = e, e = d + one, d = c, c = b, b = a, a = one + two;
        }
        state[0] += a, state[1] += b, state[2] += c, state[3] += d;
        state[4] += e, state[5] += f, state[6] += g, state[7] += h;
    }
}

typedef void Compress(uint32_t state[8], const unsigned char *at, size_t blocks);

#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
#include <cpuid.h>
#include <immintrin.h>

/* The instructions keep the state as (a, b, e, f) and (c, d, g, h), highest first, and do two rounds each. */
__attribute__((target("sha,sse4.1,ssse3"))) static void
compress_x86(uint32_t state[8], const unsigned char *at, size_t blocks)
{
    const __m128i big_endian = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
    __m128i dcba = _mm_loadu_si128((const __m128i *)state), hgfe = _mm_loadu_si128((const __m128i *)(state + 4));
    __m128i cdab = _mm_shuffle_epi32(dcba, 0xb1), efgh = _mm_shuffle_epi32(hgfe, 0x1b);
    __m128i abef = _mm_alignr_epi8(cdab, efgh, 8), cdgh = _mm_blend_epi16(efgh, cdab, 0xf0);
    for (; blocks--; at += 64) {
        __m128i abef_before = abef, cdgh_before = cdgh, w[4];
        for (int i = 0; i < 4; i++)
            w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(at + 16 * i)), big_endian);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            __m128i now = w[i & 3], before = w[(i + 3) & 3];
            __m128i added = _mm_add_epi32(now, _mm_load_si128((const __m128i *)(constants + 4 * i)));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, added);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(added, 0x0e));
            if (i < 12)
                w[i & 3] = _mm_sha256msg2_epu32(_mm_add_epi32(_mm_sha256msg1_epu32(now, w[(i + 1) & 3]),
                                                              _mm_alignr_epi8(before, w[(i + 2) & 3], 4)),
                                                before);
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    __m128i feba = _mm_shuffle_epi32(abef, 0x1b), dchg = _mm_shuffle_epi32(cdgh, 0xb1);
    _mm_storeu_si128((__m128i *)state, _mm_blend_epi16(feba, dchg, 0xf0));
    _mm_storeu_si128((__m128i *)(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

static int
has_instructions(void)
{
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSSE3) || !(c & bit_SSE4_1))
        return 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & (1u << 29));
}
#else
#define compress_x86 compress_portable

static int
has_instructions(void)
{
    return 0;
}
#endif

static void
digest_with(Compress *compress, const unsigned char *at, size_t size, unsigned char digest[SHA256_SIZE])
{
    uint32_t state[8];
    unsigned char end[128] = {0};
    size_t whole = size / 64, rest = size % 64, padded = rest < 56 ? 64 : 128;
    memcpy(state, start_state, sizeof state);
    compress(state, at, whole);
    memcpy(end, at + 64 * whole, rest);
    end[rest] = 0x80;
    put_big32(end + padded - 8, (uint32_t)((uint64_t)size >> 29));
    put_big32(end + padded - 4, (uint32_t)((uint64_t)size << 3));
    compress(state, end, padded / 64);
    for (int i = 0; i < 8; i++)
        put_big32(digest + 4 * i, state[i]);
}

static Compress *fastest = compress_portable;

void
sha256(const unsigned char *at, size_t size, unsigned char digest[SHA256_SIZE])
{
    digest_with(fastest, at, size, digest);
}

/* Whether it gives the standard's examples. */
static int
is_right(Compress *compress)
{
    static const unsigned char one[] = "abc", two[] = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    static const unsigned char digest_one[] = "\xba\x78\x16\xbf\x8f\x01\xcf\xea\x41\x41\x40\xde\x5d\xae\x22\x23"
                                              "\xb0\x03\x61\xa3\x96\x17\x7a\x9c\xb4\x10\xff\x61\xf2\x00\x15\xad";
    static const unsigned char digest_two[] = "\x24\x8d\x6a\x61\xd2\x06\x38\xb8\xe5\xc0\x26\x93\x0c\x3e\x60\x39"
                                              "\xa3\x3c\xe4\x59\x64\xff\x21\x67\xf6\xec\xed\xd4\x19\xdb\x06\xc1";
    unsigned char told[2][SHA256_SIZE];
    digest_with(compress, one, sizeof one - 1, told[0]);
    digest_with(compress, two, sizeof two - 1, told[1]);
    return memcmp(told[0], digest_one, SHA256_SIZE) == 0 && memcmp(told[1], digest_two, SHA256_SIZE) == 0;
}

int
sha256_start(void)
{
    if (has_instructions() && is_right(compress_x86))
        fastest = compress_x86;
    return is_right(fastest) ? 0 : -1;
}

/* sha256(data, portable): of bytes; for tests. */
static PyObject *
sha256_of(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    unsigned char digest[SHA256_SIZE];
    if (count != 2 || !PyBytes_CheckExact(args[0]) || !PyBool_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "sha256(bytes, bool)");
        return NULL;
    }
    digest_with(args[1] == Py_True ? compress_portable : fastest, (const unsigned char *)PyBytes_AS_STRING(args[0]),
                (size_t)PyBytes_GET_SIZE(args[0]), digest);
    return PyBytes_FromStringAndSize((const char *)digest, SHA256_SIZE);
}

PyMethodDef sha256_functions[] = {
    {"sha256", FASTCALL(sha256_of)},
    {NULL, NULL, 0, NULL},
};
