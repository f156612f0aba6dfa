/* The journal's frames (indelible.journal.frames). */
#include "native.h"

#define FRAME_HEAD 16
#define MAX_PAYLOAD (1u << 20)

/* CRC-32 as zlib has it, four bytes at a time. */
static uint32_t crc_table[4][256];

void
frame_start(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? (crc >> 1) ^ 0xedb88320u : crc >> 1;
        crc_table[0][byte] = crc;
    }
    for (int row = 1; row < 4; row++)
        for (int byte = 0; byte < 256; byte++)
            crc_table[row][byte] =
                (crc_table[row - 1][byte] >> 8) ^ crc_table[0][crc_table[row - 1][byte] & 0xff];
}

static uint32_t
crc32_of(uint32_t crc, const unsigned char *at, size_t size)
{
    crc = ~crc;
    for (; size >= 4; size -= 4, at += 4) {
        crc ^= (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
        crc = crc_table[3][crc & 0xff] ^ crc_table[2][crc >> 8 & 0xff] ^ crc_table[1][crc >> 16 & 0xff] ^
              crc_table[0][crc >> 24];
    }
    while (size--)
        crc = (crc >> 8) ^ crc_table[0][(crc ^ *at++) & 0xff];
    return ~crc;
}

/* put_frame(map, payload, number, generation, offset): write one frame to its place in a writable buffer.
 *
 * Length, CRC and number are in the machine's own byte order, as indelible.journal.frames has them. */
static PyObject *
put_frame(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    if (count != 5 || !PyBytes_CheckExact(args[1])) {
        PyErr_SetString(PyExc_TypeError, "put_frame(map, payload, number, generation, offset)");
        return NULL;
    }
    uint64_t number = PyLong_AsUnsignedLongLong(args[2]), generation = PyLong_AsUnsignedLongLong(args[3]);
    Py_ssize_t offset = PyLong_AsSsize_t(args[4]), size = PyBytes_GET_SIZE(args[1]);
    if (PyErr_Occurred())
        return NULL;
    uint32_t head[2] = {(uint32_t)(size + 8), (uint32_t)(generation * 0x9e3779b1u + (uint64_t)offset)};
    Py_ssize_t padded = (FRAME_HEAD + size + 7) & ~(Py_ssize_t)7;
    Py_buffer map;
    if (PyObject_GetBuffer(args[0], &map, PyBUF_WRITABLE))
        return NULL;
    if (offset < 0 || offset > map.len - padded || size > UINT32_MAX - 8) {
        PyBuffer_Release(&map);
        PyErr_SetString(PyExc_IndexError, "the frame does not fit into the map");
        return NULL;
    }
    const unsigned char *payload = (const unsigned char *)PyBytes_AS_STRING(args[1]);
    unsigned char *to = (unsigned char *)map.buf + offset;
    head[1] = crc32_of(crc32_of(head[1], (const unsigned char *)&number, 8), payload, (size_t)size);
    memcpy(to, head, 8);
    memcpy(to + 8, &number, 8);
    memcpy(to + FRAME_HEAD, payload, (size_t)size);
    memset(to + FRAME_HEAD + size, 0, (size_t)(padded - FRAME_HEAD - size));
    PyBuffer_Release(&map);
    Py_RETURN_NONE;
}

/* read_frame(buffer, at, generation, offset): number, payload and padded size of the frame at buffer[at:], which stands at
 * offset in its file; None where there is none. */
static PyObject *
read_frame(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    if (count != 4 || !PyBytes_CheckExact(args[0])) {
        PyErr_SetString(PyExc_TypeError, "read_frame(buffer, at, generation, offset)");
        return NULL;
    }
    uint64_t generation = PyLong_AsUnsignedLongLong(args[2]), offset = PyLong_AsUnsignedLongLong(args[3]), number;
    Py_ssize_t at = PyLong_AsSsize_t(args[1]), size = PyBytes_GET_SIZE(args[0]);
    if (PyErr_Occurred())
        return NULL;
    if (at < 0 || at > size - FRAME_HEAD)
        Py_RETURN_NONE;
    const unsigned char *frame = (const unsigned char *)PyBytes_AS_STRING(args[0]) + at;
    uint32_t head[2];
    memcpy(head, frame, 8);
    memcpy(&number, frame + 8, 8);
    if (head[0] < 8 || head[0] > MAX_PAYLOAD + 8 || head[0] > (uint64_t)(size - at - 8) ||
        crc32_of((uint32_t)(generation * 0x9e3779b1u + offset), frame + 8, head[0]) != head[1])
        Py_RETURN_NONE;
    return Py_BuildValue("Ky#n", (unsigned long long)number, (const char *)frame + FRAME_HEAD, (Py_ssize_t)head[0] - 8,
                         (Py_ssize_t)(8 + (uint64_t)head[0] + 7) & ~(Py_ssize_t)7);
}

PyMethodDef frame_functions[] = {
    {"put_frame", FASTCALL(put_frame)},
    {"read_frame", FASTCALL(read_frame)},
    {NULL, NULL, 0, NULL},
};
