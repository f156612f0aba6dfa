/* Ids of events and correlation ids: UUIDs of version 7 (RFC 9562, section 5.7). */
#include "native.h"

#include <time.h>
#include <unistd.h>
#ifdef __APPLE__
#include <sys/random.h>
#endif

#define RANDOM 8

/* Under the interpreter's lock. A forked process must not go on with its parent's: see forget(). */
static unsigned char pool[32 * RANDOM];
static size_t left;

int
uuid7(unsigned char id[UUID_SIZE])
{
    struct timespec now;
    if (left < RANDOM) {
        if (getentropy(pool, sizeof pool))
            return -1;
        left = sizeof pool;
    }
    left -= RANDOM;
    memcpy(id + 8, pool + left, RANDOM);
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
    /* The twelve bits behind the millisecond are its fraction (section 6.2, method 3). */
    uint64_t fraction = (uint64_t)now.tv_nsec % 1000000 * 4096 / 1000000;
    for (int at = 0; at < 6; at++)
        id[at] = (unsigned char)(ms >> (40 - 8 * at));
    id[6] = (unsigned char)(0x70 | fraction >> 8);
    id[7] = (unsigned char)fraction;
    id[8] = (unsigned char)(0x80 | (id[8] & 0x3f));
    return 0;
}

void
uuid_text(const unsigned char id[UUID_SIZE], char text[UUID_TEXT])
{
    static const char digits[] = "0123456789abcdef";
    for (int at = 0; at < UUID_SIZE; at++) {
        if (at == 4 || at == 6 || at == 8 || at == 10)
            *text++ = '-';
        *text++ = digits[id[at] >> 4];
        *text++ = digits[id[at] & 15];
    }
}

/* uuid7(): a new one, as text. OSError where the system gives nothing random. */
static PyObject *
uuid7_(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none))
{
    unsigned char id[UUID_SIZE];
    char text[UUID_TEXT];
    if (uuid7(id))
        return PyErr_SetFromErrno(PyExc_OSError);
    uuid_text(id, text);
    return PyUnicode_FromStringAndSize(text, UUID_TEXT);
}

/* forget(): take fresh randomness from the system. To be called in every forked process. */
static PyObject *
forget(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none))
{
    left = 0;
    Py_RETURN_NONE;
}

PyMethodDef id_functions[] = {
    {"forget", forget, METH_NOARGS, NULL},
    {"uuid7", uuid7_, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};
