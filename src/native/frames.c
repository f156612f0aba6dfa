/* The journal's frames (indelible.journal.frames). */
#include "native.h"

#include <structmember.h>

#define FRAME_HEAD 16
#define MAX_PAYLOAD (1 << 20)
/* The next multiple of eight. */
#define PADDED(size) (((size_t)(size) + 7) & ~(size_t)7)

/* CRC-32 as zlib has it, four bytes at a time. */
static uint32_t crc_table[4][256];

static void
make_crc_table(void)
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

/* Write one frame to its place; length, CRC and number are in the machine's own byte order, as indelible.journal.frames has
 * them. The room was looked at before. */
static void
write_frame(unsigned char *to, PyObject *payload, uint64_t number, uint64_t generation, uint64_t offset)
{
    const unsigned char *from = (const unsigned char *)PyBytes_AS_STRING(payload);
    size_t size = (size_t)PyBytes_GET_SIZE(payload);
    uint32_t head[2] = {(uint32_t)(size + 8), (uint32_t)(generation * 0x9e3779b1u + offset)};
    head[1] = crc32_of(crc32_of(head[1], (const unsigned char *)&number, 8), from, size);
    memcpy(to, head, 8);
    memcpy(to + 8, &number, 8);
    memcpy(to + FRAME_HEAD, from, size);
    memset(to + FRAME_HEAD + size, 0, PADDED(FRAME_HEAD + size) - FRAME_HEAD - size);
}

/* ---- Tail: where the next frame goes ------------------------------------------------------------------------------------ */

typedef struct {
    PyObject_HEAD
    Py_buffer map, slot;
    long long offset, room, number;
    uint64_t generation;
    char open;
} Tail;

static PyObject *
tail_stop(Tail *self, PyObject *Py_UNUSED(none))
{
    if (self->open) {
        self->open = 0;
        PyBuffer_Release(&self->map);
        PyBuffer_Release(&self->slot);
    }
    Py_RETURN_NONE;
}

static void
tail_dealloc(Tail *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_DECREF(tail_stop(self, NULL));
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

/* Tail(map, generation, offset, room, slot, number): slot is the place of the number of frames in the journal's header. */
static int
tail_init(Tail *self, PyObject *args, PyObject *kwargs)
{
    PyObject *map, *slot;
    unsigned long long generation;
    long long offset, room, number;
    if (kwargs != NULL && PyDict_GET_SIZE(kwargs)) {
        PyErr_SetString(PyExc_TypeError, "Tail takes no keyword arguments");
        return -1;
    }
    if (!PyArg_ParseTuple(args, "OKLLOL", &map, &generation, &offset, &room, &slot, &number))
        return -1;
    Py_DECREF(tail_stop(self, NULL));
    if (PyObject_GetBuffer(map, &self->map, PyBUF_WRITABLE))
        return -1;
    if (PyObject_GetBuffer(slot, &self->slot, PyBUF_WRITABLE)) {
        PyBuffer_Release(&self->map);
        return -1;
    }
    self->open = 1;
    if (offset < 0 || offset % 8 || room < offset || room > self->map.len || number < 0 || self->slot.len != 8 ||
        (uintptr_t)self->slot.buf % 8) {
        Py_DECREF(tail_stop(self, NULL));
        PyErr_SetString(PyExc_ValueError, "no place for frames");
        return -1;
    }
    self->generation = generation;
    self->offset = offset;
    self->room = room;
    self->number = number;
    return 0;
}

/* append(payload): write it and count it, in one step to every other thread; its number, or None where there is no room. */
static PyObject *
tail_append(Tail *self, PyObject *payload)
{
    if (!PyBytes_CheckExact(payload)) {
        PyErr_SetString(PyExc_TypeError, "append(bytes)");
        return NULL;
    }
    Py_ssize_t size = PyBytes_GET_SIZE(payload);
    if (!self->open || size > MAX_PAYLOAD || (long long)PADDED(FRAME_HEAD + size) > self->room - self->offset)
        Py_RETURN_NONE;
    PyObject *told = PyLong_FromLongLong(self->number);
    if (told == NULL)
        return NULL;
    write_frame((unsigned char *)self->map.buf + self->offset, payload, (uint64_t)self->number, self->generation,
                (uint64_t)self->offset);
    /* crash here => the frame may be read back although append never returned: stored once, like any other. */
    self->offset += (long long)PADDED(FRAME_HEAD + size);
    self->number++;
    __atomic_store_n((uint64_t *)self->slot.buf, (uint64_t)self->number, __ATOMIC_RELEASE);
    /* crash from here on => commit point A is passed: the frame is accepted and will be read back. */
    return told;
}

static PyMemberDef tail_members[] = {
    {"offset", T_LONGLONG, offsetof(Tail, offset), READONLY, NULL},
    {"number", T_LONGLONG, offsetof(Tail, number), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef tail_methods[] = {
    {"append", (PyCFunction)tail_append, METH_O, NULL},
    {"stop", (PyCFunction)tail_stop, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot tail_slots[] = {
    {Py_tp_init, tail_init},       {Py_tp_dealloc, tail_dealloc},    {Py_tp_members, tail_members},
    {Py_tp_methods, tail_methods}, {Py_tp_new, PyType_GenericNew}, {0, NULL},
};

static PyType_Spec tail_spec = {"indelible._native.Tail", sizeof(Tail), 0, Py_TPFLAGS_DEFAULT, tail_slots};

/* read_frames(Frame, buffer, at, generation, offset, end): the frames from buffer[at:] on, which stands at offset in its file,
 * and their padded size together. Their numbers are in a row and, but for the first, below end. Frame makes one of a number
 * and a payload. */
static PyObject *
read_frames(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    if (count != 6 || !PyBytes_CheckExact(args[1])) {
        PyErr_SetString(PyExc_TypeError, "read_frames(Frame, buffer, at, generation, offset, end)");
        return NULL;
    }
    Py_ssize_t at = PyLong_AsSsize_t(args[2]), size = PyBytes_GET_SIZE(args[1]), taken = 0;
    uint64_t generation = PyLong_AsUnsignedLongLong(args[3]), offset = PyLong_AsUnsignedLongLong(args[4]);
    uint64_t end = PyLong_AsUnsignedLongLong(args[5]), number, next = 0;
    if (PyErr_Occurred())
        return NULL;
    PyObject *run = PyList_New(0);
    while (run != NULL && at >= 0 && at <= size - FRAME_HEAD) {
        const unsigned char *frame = (const unsigned char *)PyBytes_AS_STRING(args[1]) + at;
        uint32_t head[2];
        memcpy(head, frame, 8);
        memcpy(&number, frame + 8, 8);
        if (head[0] < 8 || head[0] > MAX_PAYLOAD + 8 || head[0] > (uint64_t)(size - at - 8) ||
            (taken && (number != next || number == 0 || number >= end)) ||
            crc32_of((uint32_t)(generation * 0x9e3779b1u + offset + (uint64_t)taken), frame + 8, head[0]) != head[1])
            break;
        PyObject *parts[2] = {PyLong_FromUnsignedLongLong(number),
                              PyBytes_FromStringAndSize((const char *)frame + FRAME_HEAD, (Py_ssize_t)head[0] - 8)};
        PyObject *made = parts[0] == NULL || parts[1] == NULL ? NULL : PyObject_Vectorcall(args[0], parts, 2, NULL);
        Py_XDECREF(parts[0]);
        Py_XDECREF(parts[1]);
        if (made == NULL || PyList_Append(run, made))
            Py_CLEAR(run);
        Py_XDECREF(made);
        next = number + 1;
        taken += (Py_ssize_t)PADDED(8 + (size_t)head[0]);
        at += (Py_ssize_t)PADDED(8 + (size_t)head[0]);
    }
    return run == NULL ? NULL : Py_BuildValue("Nn", run, taken);
}

int
frame_start(PyObject *module)
{
    make_crc_table();
    PyObject *type = PyType_FromSpec(&tail_spec);
    return type == NULL ? -1 : PyModule_AddObject(module, "Tail", type);
}

PyMethodDef frame_functions[] = {
    {"read_frames", FASTCALL(read_frames)},
    {NULL, NULL, 0, NULL},
};
