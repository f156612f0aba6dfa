/* The compiled part of Indelible; see indelible.native.
 *
 * Every function here either does exactly what its Python counterpart does, or changes nothing that matters and says that
 * it has not; then the Python way is gone. What is decided is decided in Python; what is said here a second time, of fields,
 * bounds and layouts, is compared with it at import or in the tests.
 */
#ifndef INDELIBLE_NATIVE_H
#define INDELIBLE_NATIVE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>

/* What indelible.native asks for: to be counted up with every change that the Python side can tell. */
#define VERSION 7

#define FASTCALL(function) (PyCFunction)(void (*)(void))function, METH_FASTCALL, NULL

#define SHA256_SIZE 32

/* The digest (FIPS 180-4) of size bytes. */
void sha256(const unsigned char *at, size_t size, unsigned char digest[SHA256_SIZE]);
/* Choose the fastest way that gives the standard's own examples; -1 if none does. */
int sha256_start(void);

#define UUID_SIZE 16
#define UUID_TEXT 36

/* A new UUID of version 7; -1 where the system gives nothing random. Under the interpreter's lock. */
int uuid7(unsigned char id[UUID_SIZE]);
/* Its text, without a NUL behind it. */
void uuid_text(const unsigned char id[UUID_SIZE], char text[UUID_TEXT]);

/* fingerprint(data): 16 bytes that only this process can make of data. */
PyObject *fingerprint(PyObject *module, PyObject *data);

/* What each file adds to the module: its functions, and what has to be made before the first call; -1 with an exception. */
extern PyMethodDef capture_functions[], fingerprint_functions[], frame_functions[], id_functions[],
    row_functions[], sha256_functions[];
int capture_start(PyObject *module);
int frame_start(PyObject *module);
int row_start(PyObject *module);

#endif
