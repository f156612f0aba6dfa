/* What a token is remembered by. */
#include "native.h"

/* SipHash-2-4 with 128 bits (Aumasson and Bernstein, https://github.com/veorq/SipHash), under a key of this process. */
static uint64_t sip_key[2];

#define ROTATE(x, bits) (((x) << (bits)) | ((x) >> (64 - (bits))))

static void
sip_rounds(uint64_t v[4], int rounds)
{
    while (rounds--) {
        v[0] += v[1], v[1] = ROTATE(v[1], 13) ^ v[0], v[0] = ROTATE(v[0], 32);
        v[2] += v[3], v[3] = ROTATE(v[3], 16) ^ v[2];
        v[0] += v[3], v[3] = ROTATE(v[3], 21) ^ v[0];
        v[2] += v[1], v[1] = ROTATE(v[1], 17) ^ v[2], v[2] = ROTATE(v[2], 32);
    }
}

static uint64_t
little(const unsigned char *at, size_t size)
{
    uint64_t value = 0;
    for (size_t i = 0; i < size; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

static uint64_t
little64(const unsigned char *at)
{
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    uint64_t value;
    memcpy(&value, at, 8);
    return value;
#else
    return little(at, 8);
#endif
}

static void
sip128(const uint64_t key[2], const unsigned char *at, size_t size, unsigned char told[16])
{
    uint64_t v[4] = {key[0] ^ 0x736f6d6570736575u, key[1] ^ 0x646f72616e646f6du ^ 0xee, key[0] ^ 0x6c7967656e657261u,
                     key[1] ^ 0x7465646279746573u};
    uint64_t last = (uint64_t)size << 56;
    for (; size >= 8; size -= 8, at += 8) {
        uint64_t word = little64(at);
        v[3] ^= word;
        sip_rounds(v, 2);
        v[0] ^= word;
    }
    last |= little(at, size);
    v[3] ^= last;
    sip_rounds(v, 2);
    v[0] ^= last;
    v[2] ^= 0xee;
    for (int half = 0; half < 2; half++) {
        sip_rounds(v, 4);
        uint64_t word = v[0] ^ v[1] ^ v[2] ^ v[3];
        for (int i = 0; i < 8; i++)
            told[8 * half + i] = (unsigned char)(word >> (8 * i));
        v[1] ^= 0xdd;
    }
}

PyObject *
fingerprint(PyObject *Py_UNUSED(module), PyObject *data)
{
    unsigned char told[16];
    if (!PyBytes_CheckExact(data)) {
        PyErr_SetString(PyExc_TypeError, "fingerprint(bytes)");
        return NULL;
    }
    sip128(sip_key, (const unsigned char *)PyBytes_AS_STRING(data), (size_t)PyBytes_GET_SIZE(data), told);
    return PyBytes_FromStringAndSize((const char *)told, 16);
}

/* key(bytes): the 16 secret bytes that fingerprints are made with. */
static PyObject *
set_key(PyObject *Py_UNUSED(module), PyObject *key)
{
    if (!PyBytes_CheckExact(key) || PyBytes_GET_SIZE(key) != 16) {
        PyErr_SetString(PyExc_ValueError, "a key has 16 bytes");
        return NULL;
    }
    const unsigned char *at = (const unsigned char *)PyBytes_AS_STRING(key);
    sip_key[0] = little(at, 8);
    sip_key[1] = little(at + 8, 8);
    Py_RETURN_NONE;
}

PyMethodDef fingerprint_functions[] = {
    {"fingerprint", fingerprint, METH_O, NULL},
    {"key", set_key, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};
