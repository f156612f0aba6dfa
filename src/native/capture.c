/* The request path of plain requests.
 *
 * A plain request is what almost every request is: HTTP, answered without an exception, by a route whose event has been
 * worked out in Python before (a plan), about nothing that needs redaction, and without anything of its handler's own.
 * Rules are Python's, and plans are what came of them.
 *
 * All of it runs under the interpreter's lock and lets nobody else run in between, but where it calls Python.
 */
#include "native.h"

#include <structmember.h>
#include <time.h>

/* ---- names that are looked up at each request -------------------------------------------------------------------- */

#define NAMES(X)                                                                                                       \
    X(type) X(headers) X(state) X(root_path) X(path) X(client) X(user) X(method) X(route) X(path_template)             \
    X(path_format) X(path_params) X(query_string) X(status) X(more_body) X(correlation_id) X(ip_address)               \
    X(user_agent) X(user_id) X(reason) X(fields) X(metadata) X(recorded) X(finish) X(_note) X(_received) X(throw)         \
    X(value) X(close) X(gi_code) X(co_flags)

#define DECLARE(name) static PyObject *s_##name;
NAMES(DECLARE)
#undef DECLARE

static PyObject *s_start, *s_body, *s_request, *header_name, *empty;

/* Given by prepare(). */
static PyObject *bound_var, *request_var, *nothing, *record_type, *anonymous, *restore;

#define MAX_AGENT 1024
#define MAX_KEY 255
#define MAX_ADDRESS 64
#define MAX_CORRELATION 128
#define MAX_PATH 2048

static int64_t
now_ns(clockid_t clock)
{
    struct timespec at;
    clock_gettime(clock, &at);
    return (int64_t)at.tv_sec * 1000000000 + at.tv_nsec;
}

/* ---- Seen: one request on its way ---------------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    long long started;
    PyObject *write, *complaints, *scope, *receive, *send, *record, *bound;
    PyObject *correlation_id, *path, *shown, *user_agent, *ip_address, *identity, *named, *status, *close_code, *intent;
    PyObject *usual; /* what plain requests are written by; None: all in Python */
    char is_http, excluded, late, accepted, complete, disconnected;
    char plain; /* read() has seen nothing unusual */
} Seen;

#define OBJECTS(X)                                                                                                     \
    X(write) X(complaints) X(scope) X(receive) X(send) X(record) X(bound) X(correlation_id) X(path) X(shown)           \
    X(user_agent) X(ip_address) X(identity) X(named) X(status) X(close_code) X(intent) X(usual)

static int
seen_traverse(Seen *self, visitproc visit, void *arg)
{
#define VISIT(name) Py_VISIT(self->name);
    OBJECTS(VISIT)
#undef VISIT
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static int
seen_clear(Seen *self)
{
#define CLEAR(name) Py_CLEAR(self->name);
    OBJECTS(CLEAR)
#undef CLEAR
    return 0;
}

static void
seen_dealloc(Seen *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    seen_clear(self);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

/* Put a new reference into a member. */
static void
put(PyObject **member, PyObject *value)
{
    PyObject *before = *member;
    *member = value;
    Py_XDECREF(before);
}

static void
put_none(PyObject **member)
{
    put(member, Py_NewRef(Py_None));
}

static int
seen_init(Seen *self, PyObject *args, PyObject *kwargs)
{
    PyObject *scope, *receive, *send, *write, *complaints;
    if (kwargs != NULL && PyDict_GET_SIZE(kwargs)) {
        PyErr_SetString(PyExc_TypeError, "Seen takes no keyword arguments");
        return -1;
    }
    if (!PyArg_UnpackTuple(args, "Seen", 5, 5, &scope, &receive, &send, &write, &complaints))
        return -1;
    if (record_type == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "prepare() comes first");
        return -1;
    }
    PyObject *kind = PyObject_GetItem(scope, s_type);
    if (kind == NULL)
        return -1;
    self->is_http = PyUnicode_Check(kind) && PyUnicode_CompareWithASCIIString(kind, "http") == 0;
    Py_DECREF(kind);
    PyObject *record = PyObject_CallNoArgs(record_type);
    if (record == NULL)
        return -1;
    self->started = now_ns(CLOCK_MONOTONIC);
    put(&self->record, record);
    put(&self->scope, Py_NewRef(scope));
    put(&self->receive, Py_NewRef(receive));
    put(&self->send, Py_NewRef(send));
    put(&self->write, Py_NewRef(write));
    put(&self->complaints, Py_NewRef(complaints));
    put(&self->identity, Py_NewRef(anonymous));
    put(&self->path, Py_NewRef(empty));
    put(&self->shown, Py_NewRef(empty));
    put(&self->correlation_id, Py_NewRef(empty));
    put_none(&self->bound);
    put_none(&self->user_agent);
    put_none(&self->ip_address);
    put_none(&self->named);
    put_none(&self->status);
    put_none(&self->close_code);
    put_none(&self->intent);
    put_none(&self->usual);
    return 0;
}

/* Whether every member is there: one that was never initialised, or lost one, is a TypeError. */
static int
is_whole(Seen *self)
{
#define THERE(name) &&self->name != NULL
    if (1 OBJECTS(THERE))
        return 1;
#undef THERE
    PyErr_SetString(PyExc_TypeError, "not a whole Seen");
    return 0;
}

static PyObject *
seen_elapsed(Seen *self, PyObject *Py_UNUSED(none))
{
    return PyLong_FromLongLong((now_ns(CLOCK_MONOTONIC) - self->started) / 1000);
}

/* ---- what comes in --------------------------------------------------------------------------------------------------- */

/* The value of a key of an exact dict, borrowed; NULL where there is none. Never leaves an exception. */
static PyObject *
lookup(PyObject *dict, PyObject *key)
{
    PyObject *found = PyDict_GetItemWithError(dict, key);
    if (found == NULL && PyErr_Occurred())
        PyErr_Clear();
    return found;
}

static int
is_printable_ascii(PyObject *text)
{
    if (!PyUnicode_CheckExact(text) || !PyUnicode_IS_ASCII(text))
        return 0;
    const Py_UCS1 *at = PyUnicode_1BYTE_DATA(text), *end = at + PyUnicode_GET_LENGTH(text);
    for (; at < end; at++)
        if (*at < 0x20 || *at > 0x7e)
            return 0;
    return 1;
}

static int
is_correlation_id(const char *at, Py_ssize_t size)
{
    if (size < 1 || size > MAX_CORRELATION)
        return 0;
    for (const char *end = at + size; at < end; at++) {
        char c = *at;
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
              c == ':' || c == '-'))
            return 0;
    }
    return 1;
}

/* Who a remembered header names, a new reference; NULL without an exception where it is for Python to find out.
 *
 * remembered: fingerprint to (identity, not before, expires), the times in seconds since 1970. */
static PyObject *
known_identity(PyObject *remembered, PyObject *authorization)
{
    PyObject *key = fingerprint(NULL, authorization), *known, *identity;
    known = key == NULL ? NULL : lookup(remembered, key);
    Py_XDECREF(key);
    if (known == NULL || !PyTuple_CheckExact(known) || PyTuple_GET_SIZE(known) != 3 ||
        !PyFloat_CheckExact(PyTuple_GET_ITEM(known, 1)) || !PyFloat_CheckExact(PyTuple_GET_ITEM(known, 2))) {
        PyErr_Clear();
        return NULL;
    }
    double now = (double)now_ns(CLOCK_REALTIME) * 1e-9;
    identity = PyTuple_GET_ITEM(known, 0);
    return now >= PyFloat_AS_DOUBLE(PyTuple_GET_ITEM(known, 1)) && now < PyFloat_AS_DOUBLE(PyTuple_GET_ITEM(known, 2))
               ? Py_NewRef(identity)
               : NULL;
}

/* read(excluded, below, usual): fill in what the scope tells; False where anything about it is unusual.
 *
 * excluded: a frozenset of paths; below: a tuple of prefixes; usual: (identify, remembered, plans, current, service, accept),
 * a callable or None, as above, and what write_plain() needs: plans or None, a function that gives the service that events
 * go to, the one that it has given, and that one's function which takes them. */
static PyObject *
seen_read(Seen *self, PyObject *const *args, Py_ssize_t count)
{
    if (count != 3 || !PyTuple_CheckExact(args[1]) || !PyTuple_CheckExact(args[2]) || PyTuple_GET_SIZE(args[2]) != 6) {
        PyErr_SetString(PyExc_TypeError, "read(excluded, below, (identify, remembered, plans, current, service, accept))");
        return NULL;
    }
    PyObject *identify = PyTuple_GET_ITEM(args[2], 0), *remembered = PyTuple_GET_ITEM(args[2], 1);
    if (!is_whole(self))
        return NULL;
    PyObject *scope = self->scope;
    if (!PyDict_CheckExact(scope) || !self->is_http)
        Py_RETURN_FALSE;
    PyObject *path = lookup(scope, s_path), *root = lookup(scope, s_root_path), *headers = lookup(scope, s_headers);
    if (path == NULL || !is_printable_ascii(path))
        Py_RETURN_FALSE;
    if (root != NULL && root != Py_None && !(PyUnicode_CheckExact(root) && PyUnicode_GET_LENGTH(root) == 0))
        Py_RETURN_FALSE;
    PyObject *state = lookup(scope, s_state);
    if (state != NULL && state != Py_None && !PyDict_CheckExact(state))
        Py_RETURN_FALSE;
    PyObject *address = Py_None, *client = lookup(scope, s_client);
    if (client != NULL && client != Py_None) {
        if (PyTuple_CheckExact(client) && PyTuple_GET_SIZE(client) > 0)
            address = PyTuple_GET_ITEM(client, 0);
        else if (PyList_CheckExact(client) && PyList_GET_SIZE(client) > 0)
            address = PyList_GET_ITEM(client, 0);
        else
            Py_RETURN_FALSE;
        if (!PyUnicode_CheckExact(address) || PyUnicode_GET_LENGTH(address) == 0)
            Py_RETURN_FALSE;
    }

    /* Of several headers of one name the first counts. */
    PyObject *correlation = NULL, *agent = NULL, *authorization = NULL;
    if (headers == NULL || !(PyList_CheckExact(headers) || PyTuple_CheckExact(headers)))
        Py_RETURN_FALSE;
    for (Py_ssize_t at = 0, size = PySequence_Fast_GET_SIZE(headers); at < size; at++) {
        PyObject *pair = PySequence_Fast_GET_ITEM(headers, at);
        if (!(PyTuple_CheckExact(pair) || PyList_CheckExact(pair)) || PySequence_Fast_GET_SIZE(pair) != 2)
            Py_RETURN_FALSE;
        PyObject *name = PySequence_Fast_GET_ITEM(pair, 0), *value = PySequence_Fast_GET_ITEM(pair, 1);
        if (!PyBytes_CheckExact(name) || !PyBytes_CheckExact(value))
            Py_RETURN_FALSE;
        const char *text = PyBytes_AS_STRING(name);
        switch (PyBytes_GET_SIZE(name)) {
        case 10:
            if (agent == NULL && memcmp(text, "user-agent", 10) == 0)
                agent = value;
            break;
        case 13:
            if (authorization == NULL && memcmp(text, "authorization", 13) == 0)
                authorization = value;
            break;
        case 16:
            if (correlation == NULL && memcmp(text, "x-correlation-id", 16) == 0)
                correlation = value;
            break;
        }
    }

    /* From here on Python may run, if only to collect garbage: what is needed later is held. */
    PyObject *told = NULL, *made;
    Py_INCREF(path);
    Py_INCREF(address);
    Py_XINCREF(correlation);
    Py_XINCREF(agent);
    Py_XINCREF(authorization);
    if (state == NULL || state == Py_None) {
        state = PyDict_New();
        if (state == NULL || PyDict_SetItem(scope, s_state, state))
            goto done;
    }
    else
        Py_INCREF(state);

    int excluded = PySet_Contains(args[0], path);
    for (Py_ssize_t at = 0; excluded == 0 && at < PyTuple_GET_SIZE(args[1]); at++)
        excluded = (int)PyUnicode_Tailmatch(path, PyTuple_GET_ITEM(args[1], at), 0, PY_SSIZE_T_MAX, -1);
    if (excluded < 0)
        goto done;
    self->excluded = (char)excluded;
    put(&self->path, Py_NewRef(path));
    put(&self->shown, Py_NewRef(path));
    put(&self->ip_address, Py_NewRef(address));

    if (agent == NULL)
        put_none(&self->user_agent);
    else {
        made = PyUnicode_DecodeLatin1(PyBytes_AS_STRING(agent), PyBytes_GET_SIZE(agent), NULL);
        if (made == NULL)
            goto done;
        put(&self->user_agent, made);
    }
    if (correlation != NULL && is_correlation_id(PyBytes_AS_STRING(correlation), PyBytes_GET_SIZE(correlation)))
        made = PyUnicode_FromStringAndSize(PyBytes_AS_STRING(correlation), PyBytes_GET_SIZE(correlation));
    else {
        unsigned char id[UUID_SIZE];
        char text[UUID_TEXT];
        if (uuid7(id)) {
            told = Py_NewRef(Py_False);
            goto done;
        }
        uuid_text(id, text);
        made = PyUnicode_FromStringAndSize(text, UUID_TEXT);
    }
    if (made == NULL)
        goto done;
    put(&self->correlation_id, made);
    if (PyDict_SetItem(state, s_correlation_id, made))
        goto done;

    if (identify != Py_None) {
        made = authorization == NULL || !PyDict_CheckExact(remembered) ? NULL : known_identity(remembered, authorization);
        if (made == NULL)
            made = PyObject_CallOneArg(identify, authorization == NULL ? Py_None : authorization);
        if (made == NULL) {
            if (PyErr_ExceptionMatches(PyExc_Exception)) {
                PyErr_Clear();
                told = Py_NewRef(Py_False);
            }
            goto done;
        }
        put(&self->identity, made);
    }
    put(&self->usual, Py_NewRef(args[2]));
    self->plain = 1;
    told = Py_NewRef(Py_True);
done:
    Py_DECREF(path);
    Py_DECREF(address);
    Py_XDECREF(state);
    Py_XDECREF(correlation);
    Py_XDECREF(agent);
    Py_XDECREF(authorization);
    return told;
}

/* The verified actor where nobody but a token can have named one: 1 and a new reference, 0 where somebody else can. */
static int
plain_user(Seen *self, PyObject **user)
{
    PyObject *scope = self->scope, *state;
    if (self->named != Py_None || !PyDict_CheckExact(scope) || lookup(scope, s_user) != NULL)
        return 0;
    state = lookup(scope, s_state);
    if (state == NULL || !PyDict_CheckExact(state) || lookup(state, s_user) != NULL)
        return 0;
    *user = PyObject_GetAttr(self->identity, s_user_id);
    if (*user == NULL) {
        PyErr_Clear(); /* a dataclass of ours: what it lacks is an AttributeError */
        return 0;
    }
    if (*user != Py_None && !PyUnicode_CheckExact(*user)) {
        Py_CLEAR(*user);
        return 0;
    }
    return 1;
}

/* bind(): bind what is known for the code inside; the tokens that undo it, or None where something is bound already. */
static PyObject *
seen_bind(Seen *self, PyObject *Py_UNUSED(none))
{
    PyObject *around, *user;
    if (!is_whole(self) || PyContextVar_Get(bound_var, NULL, &around))
        return NULL;
    int free_ = around == nothing;
    Py_XDECREF(around);
    if (!free_ || !plain_user(self, &user))
        Py_RETURN_NONE;
    PyObject *bound = PyDict_New(), *first = NULL, *second = NULL, *tokens = NULL;
    if (bound == NULL || PyDict_SetItem(bound, s_correlation_id, self->correlation_id) ||
        PyDict_SetItem(bound, s_ip_address, self->ip_address) ||
        PyDict_SetItem(bound, s_user_agent, self->user_agent) ||
        (user != Py_None && PyDict_SetItem(bound, s_user_id, user)))
        goto done;
    first = PyContextVar_Set(bound_var, bound);
    if (first == NULL)
        goto done;
    second = PyContextVar_Set(request_var, self->record);
    if (second == NULL) {
        PyObject *type, *value, *trace;
        PyErr_Fetch(&type, &value, &trace);
        PyContextVar_Reset(bound_var, first);
        PyErr_Restore(type, value, trace);
        goto done;
    }
    put(&self->bound, Py_NewRef(bound));
    tokens = PyTuple_Pack(2, first, second);
done:
    Py_XDECREF(first);
    Py_XDECREF(second);
    Py_XDECREF(bound);
    Py_DECREF(user);
    return tokens;
}

/* Undo one binding, as restore() of indelible.context does. */
static int
unbind(PyObject *variable, PyObject *token)
{
    if (PyContextVar_Reset(variable, token) == 0)
        return 0;
    if (!PyErr_ExceptionMatches(PyExc_ValueError))
        return -1;
    PyErr_Clear();
    PyObject *done = PyObject_CallFunctionObjArgs(restore, variable, token, NULL);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* leave(bound, request): undo what bind() or enter() did. */
static PyObject *
seen_leave(Seen *Py_UNUSED(self), PyObject *const *args, Py_ssize_t count)
{
    if (count != 2 || restore == NULL) {
        PyErr_SetString(PyExc_TypeError, "leave(bound, request)");
        return NULL;
    }
    if (unbind(request_var, args[1]) || unbind(bound_var, args[0]))
        return NULL;
    Py_RETURN_NONE;
}

/* ---- what goes out --------------------------------------------------------------------------------------------------- */

/* The message with the correlation id among its headers; NULL without an exception where it is an unusual one. */
static PyObject *
with_header(Seen *self, PyObject *message)
{
    PyObject *headers = lookup(message, s_headers);
    if (headers == NULL || !PyList_CheckExact(headers))
        return NULL;
    Py_ssize_t size = PyList_GET_SIZE(headers);
    for (Py_ssize_t at = 0; at < size; at++) {
        PyObject *pair = PyList_GET_ITEM(headers, at);
        if (!(PyTuple_CheckExact(pair) || PyList_CheckExact(pair)) || PySequence_Fast_GET_SIZE(pair) != 2)
            return NULL;
        PyObject *name = PySequence_Fast_GET_ITEM(pair, 0);
        if (!PyBytes_CheckExact(name))
            return NULL;
        if (PyBytes_GET_SIZE(name) == PyBytes_GET_SIZE(header_name) &&
            PyOS_strnicmp(PyBytes_AS_STRING(name), PyBytes_AS_STRING(header_name), PyBytes_GET_SIZE(name)) == 0)
            return Py_NewRef(message);
    }
    PyObject *value = PyUnicode_AsASCIIString(self->correlation_id);
    if (value == NULL) {
        PyErr_Clear();
        return NULL;
    }
    PyObject *pair = PyTuple_Pack(2, header_name, value);
    PyObject *longer = pair == NULL ? NULL : PyList_GetSlice(headers, 0, size);
    PyObject *copy = longer == NULL ? NULL : PyDict_Copy(message);
    Py_XDECREF(value);
    if (copy != NULL && (PyList_Append(longer, pair) || PyDict_SetItem(copy, s_headers, longer)))
        Py_CLEAR(copy);
    Py_XDECREF(pair);
    Py_XDECREF(longer);
    if (copy == NULL)
        PyErr_Clear();
    return copy;
}

static PyObject *seen_pack(Seen *self, PyObject *plans);
static int forgiven(void);

/* Whether current() still gives the service. */
static int
is_current(PyObject *current, PyObject *service)
{
    PyObject *now = PyObject_CallNoArgs(current);
    Py_XDECREF(now);
    return now != NULL && now == service;
}

/* Tell of the exception that is set, a failure of ours: 0, or -1 with another exception. */
static int
complain(PyObject *complaints, const char *step)
{
    PyObject *type, *error, *trace, *told;
    PyErr_Fetch(&type, &error, &trace);
    PyErr_NormalizeException(&type, &error, &trace);
    told = PyObject_CallMethod(complaints, "tell", "sO", step, error);
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(trace);
    Py_XDECREF(told);
    return told == NULL ? -1 : 0;
}

/* finish() of a plain request: 1 where its event is written, or it has none; 0 where that is for Python; -1 with an
 * exception that is no failure of ours. */
static int
write_plain(Seen *self)
{
    if (self->usual == Py_None || self->excluded)
        return 0;
    /* Held: Python runs in between. */
    PyObject *record = Py_NewRef(self->record), *complaints = Py_NewRef(self->complaints), *usual = Py_NewRef(self->usual);
    PyObject *recorded = NULL, *payload = NULL, *done = NULL, *plans = PyTuple_GET_ITEM(usual, 2);
    int written = 0;
    if (plans == Py_None || !is_current(PyTuple_GET_ITEM(usual, 3), PyTuple_GET_ITEM(usual, 4)) ||
        (recorded = PyObject_GetAttr(record, s_recorded)) != Py_False || (payload = seen_pack(self, plans)) == NULL) {
        written = forgiven() ? 0 : -1;
        goto done;
    }
    if (payload == Py_None)
        goto done;
    written = 1;
    if (PyObject_SetAttr(record, s_recorded, Py_True))
        written = -1;
    else if (PyBytes_GET_SIZE(payload)) {
        done = PyObject_CallOneArg(PyTuple_GET_ITEM(usual, 5), payload);
        if (done == NULL && (!PyErr_ExceptionMatches(PyExc_Exception) || complain(complaints, "writing an event")))
            written = -1;
    }
done:
    Py_DECREF(record);
    Py_DECREF(complaints);
    Py_DECREF(usual);
    Py_XDECREF(recorded);
    Py_XDECREF(payload);
    Py_XDECREF(done);
    return written;
}

/* What is passed on for an answer's beginning or a part of its body; None for every other message. */
static PyObject *
seen_note(Seen *self, PyObject *message)
{
    if (!is_whole(self))
        return NULL;
    if (!PyDict_CheckExact(message))
        Py_RETURN_NONE;
    PyObject *kind = lookup(message, s_type);
    if (kind == NULL || !PyUnicode_CheckExact(kind))
        Py_RETURN_NONE;
    if (PyUnicode_Compare(kind, s_body) == 0) {
        PyObject *more = lookup(message, s_more_body);
        int last = more == NULL || more == Py_False;
        if (!last && more != Py_True)
            Py_RETURN_NONE;
        if (last && !self->complete) {
            self->complete = 1;
            int written = write_plain(self);
            PyObject *done = written ? NULL : PyObject_CallMethodNoArgs((PyObject *)self, s_finish);
            if (written < 0 || (!written && done == NULL))
                return NULL;
            Py_XDECREF(done);
        }
        return Py_NewRef(message);
    }
    if (PyUnicode_Compare(kind, s_start) == 0) {
        PyObject *status = lookup(message, s_status), *told;
        if (status == NULL)
            Py_RETURN_NONE;
        told = with_header(self, message);
        if (told == NULL)
            Py_RETURN_NONE;
        put(&self->status, Py_NewRef(status));
        return told;
    }
    Py_RETURN_NONE;
}

/* ---- Passing: one message on its way, in the place of a coroutine ------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    Seen *seen;
    PyObject *message; /* NULL: one that is received */
    PyObject *inner;   /* what the server's send or receive is awaited by */
    char begun, running, over;
} Passing;

static PyTypeObject *passing_type;

static int
passing_traverse(Passing *self, visitproc visit, void *arg)
{
    Py_VISIT(self->seen);
    Py_VISIT(self->message);
    Py_VISIT(self->inner);
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static int
passing_clear(Passing *self)
{
    Py_CLEAR(self->seen);
    Py_CLEAR(self->message);
    Py_CLEAR(self->inner);
    return 0;
}

static void
passing_dealloc(Passing *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    passing_clear(self);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyObject *
passing_new(Seen *seen, PyObject *message)
{
    Passing *self = PyObject_GC_New(Passing, passing_type);
    if (self == NULL)
        return NULL;
    self->seen = (Seen *)Py_NewRef((PyObject *)seen);
    self->message = Py_XNewRef(message);
    self->inner = NULL;
    self->begun = self->running = self->over = 0;
    PyObject_GC_Track(self);
    return (PyObject *)self;
}

/* Way: seen.receive and seen.send, functions that know to be coroutine functions. */
typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
    Seen *seen;
} Way;

static PyTypeObject *way_type;

static int
way_traverse(Way *self, visitproc visit, void *arg)
{
    Py_VISIT(self->seen);
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static int
way_clear(Way *self)
{
    Py_CLEAR(self->seen);
    return 0;
}

static void
way_dealloc(Way *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    way_clear(self);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

/* receive(): the server's next message; tells when the client has gone. */
static PyObject *
way_receive(PyObject *self, PyObject *const *Py_UNUSED(args), size_t count, PyObject *names)
{
    if (PyVectorcall_NARGS(count) || (names != NULL && PyTuple_GET_SIZE(names))) {
        PyErr_SetString(PyExc_TypeError, "receive() takes no arguments");
        return NULL;
    }
    return passing_new(((Way *)self)->seen, NULL);
}

/* send(message): pass it on; the first of an answer gets the correlation id, before the last the event is written. */
static PyObject *
way_send(PyObject *self, PyObject *const *args, size_t count, PyObject *names)
{
    Py_ssize_t named = names == NULL ? 0 : PyTuple_GET_SIZE(names);
    if (PyVectorcall_NARGS(count) + named != 1 ||
        (named && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), "message"))) {
        PyErr_SetString(PyExc_TypeError, "send(message)");
        return NULL;
    }
    return passing_new(((Way *)self)->seen, args[0]);
}

static PyObject *
way_new(Seen *seen, vectorcallfunc call)
{
    Way *self = PyObject_GC_New(Way, way_type);
    if (self == NULL)
        return NULL;
    self->call = call;
    self->seen = (Seen *)Py_NewRef((PyObject *)seen);
    PyObject_GC_Track(self);
    return (PyObject *)self;
}

static PyObject *
seen_get_receive(Seen *self, void *Py_UNUSED(closure))
{
    return way_new(self, way_receive);
}

static PyObject *
seen_get_send(Seen *self, void *Py_UNUSED(closure))
{
    return way_new(self, way_send);
}

static PyMemberDef way_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Way, call), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot way_slots[] = {
    {Py_tp_dealloc, way_dealloc}, {Py_tp_traverse, way_traverse}, {Py_tp_clear, way_clear},
    {Py_tp_members, way_members}, {Py_tp_call, PyVectorcall_Call}, {0, NULL},
};

static PyType_Spec way_spec = {
    "indelible._native.Way", sizeof(Way), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_DISALLOW_INSTANTIATION, way_slots,
};

/* Whether it is a generator of types.coroutine. */
static int
is_generator_based(PyObject *object)
{
    if (!PyGen_CheckExact(object))
        return 0;
    PyObject *code = PyObject_GetAttr(object, s_gi_code), *flags = code == NULL ? NULL : PyObject_GetAttr(code, s_co_flags);
    long bits = flags == NULL ? 0 : PyLong_AsLong(flags);
    Py_XDECREF(code);
    Py_XDECREF(flags);
    PyErr_Clear();
    return bits > 0 && bits & CO_ITERABLE_COROUTINE;
}

/* What ``await`` makes of an object. */
static PyObject *
awaited_by(PyObject *awaitable)
{
    if (PyCoro_CheckExact(awaitable) || is_generator_based(awaitable))
        return Py_NewRef(awaitable);
    PyAsyncMethods *methods = Py_TYPE(awaitable)->tp_as_async;
    if (methods == NULL || methods->am_await == NULL) {
        PyErr_Format(PyExc_TypeError, "object %.100s can't be used in 'await' expression", Py_TYPE(awaitable)->tp_name);
        return NULL;
    }
    PyObject *inner = methods->am_await(awaitable);
    if (inner != NULL && !PyIter_Check(inner)) {
        PyErr_Format(PyExc_TypeError, "__await__() returned non-iterator of type '%.100s'", Py_TYPE(inner)->tp_name);
        Py_CLEAR(inner);
    }
    return inner;
}

static int
passing_begin(Passing *self)
{
    Seen *seen = self->seen;
    PyObject *passed = NULL, *awaitable;
    self->begun = 1;
    if (!is_whole(seen))
        return -1;
    /* Before anything of Python's runs, which might take it away. */
    PyObject *call = Py_NewRef(self->message == NULL ? seen->receive : seen->send);
    if (self->message != NULL) {
        passed = seen_note(seen, self->message);
        if (passed == Py_None) {
            Py_DECREF(passed);
            passed = PyObject_CallMethodOneArg((PyObject *)seen, s__note, self->message);
        }
        if (passed == NULL) {
            Py_DECREF(call);
            return -1;
        }
    }
    awaitable = passed == NULL ? PyObject_CallNoArgs(call) : PyObject_CallOneArg(call, passed);
    Py_DECREF(call);
    Py_XDECREF(passed);
    if (awaitable == NULL)
        return -2;
    self->inner = awaited_by(awaitable);
    Py_DECREF(awaitable);
    return self->inner == NULL ? -2 : 0;
}

/* It has ended with an exception of the server's, which is set. */
static void
passing_failed(Passing *self)
{
    self->over = 1;
    if (self->message != NULL && PyErr_ExceptionMatches(PyExc_OSError))
        self->seen->disconnected = 1;
    Py_CLEAR(self->inner);
}

/* It has ended with this value; -1 with an exception. */
static int
passing_ended(Passing *self, PyObject *value)
{
    self->over = 1;
    Py_CLEAR(self->inner);
    if (self->message != NULL)
        return 0;
    PyObject *kind = PyDict_CheckExact(value) ? lookup(value, s_type) : NULL;
    if (kind != NULL && PyUnicode_Check(kind) && PyUnicode_Compare(kind, s_request) == 0)
        return 0;
    PyObject *done = PyObject_CallMethodOneArg((PyObject *)self->seen, s__received, value);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* Whether it can go on; else an exception is set. */
static int
can_go_on(Passing *self)
{
    if (self->running)
        PyErr_SetString(PyExc_ValueError, "coroutine already executing");
    else if (self->over || self->seen == NULL)
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
    else
        return 1;
    return 0;
}

static PySendResult
passing_step(Passing *self, PyObject *value, PyObject **result)
{
    if (!self->begun) {
        if (value != Py_None) {
            PyErr_SetString(PyExc_TypeError, "can't send non-None value to a just-started coroutine");
            return PYGEN_ERROR;
        }
        int begun = passing_begin(self);
        if (begun == -2)
            passing_failed(self);
        else if (begun < 0)
            self->over = 1;
        if (begun)
            return PYGEN_ERROR;
    }
    PyObject *inner = Py_NewRef(self->inner);
    PySendResult how = PyIter_Send(inner, value, result);
    Py_DECREF(inner);
    if (how == PYGEN_ERROR)
        passing_failed(self);
    else if (how == PYGEN_RETURN) {
        /* Of a message that was sent, as of a coroutine that returns nothing. */
        if (self->message != NULL)
            put(result, Py_NewRef(Py_None));
        if (passing_ended(self, *result)) {
            Py_CLEAR(*result);
            return PYGEN_ERROR;
        }
    }
    return how;
}

static PySendResult
passing_send(Passing *self, PyObject *value, PyObject **result)
{
    *result = NULL;
    if (!can_go_on(self))
        return PYGEN_ERROR;
    self->running = 1;
    PySendResult how = passing_step(self, value, result);
    self->running = 0;
    return how;
}

/* What a step has come to, for whoever iterates. */
static PyObject *
stepped(PySendResult how, PyObject *result)
{
    if (how != PYGEN_RETURN)
        return result;
    PyObject *stop = result == Py_None ? PyObject_CallNoArgs(PyExc_StopIteration)
                                       : PyObject_CallOneArg(PyExc_StopIteration, result);
    Py_DECREF(result);
    if (stop != NULL) {
        PyErr_SetObject(PyExc_StopIteration, stop);
        Py_DECREF(stop);
    }
    return NULL;
}

static PyObject *
passing_send_(Passing *self, PyObject *value)
{
    PyObject *result;
    PySendResult how = passing_send(self, value, &result);
    return stepped(how, result);
}

static PyObject *
passing_next(Passing *self)
{
    return passing_send_(self, Py_None);
}

/* Raise what was thrown at it, where there is nothing that it could be thrown on to. */
static void
raise_thrown(PyObject *args)
{
    PyObject *type, *value = NULL, *trace = NULL;
    if (!PyArg_UnpackTuple(args, "throw", 1, 3, &type, &value, &trace))
        return;
    if (PyExceptionInstance_Check(type))
        PyErr_SetObject((PyObject *)Py_TYPE(type), type);
    else if (PyExceptionClass_Check(type))
        PyErr_SetObject(type, value);
    else
        PyErr_SetString(PyExc_TypeError, "exceptions must be classes or instances deriving from BaseException");
}

static PyObject *
throw_on(Passing *self, PyObject *args)
{
    PyObject *inner = Py_XNewRef(self->inner), *throw_;
    if (inner == NULL || (throw_ = PyObject_GetAttr(inner, s_throw)) == NULL) {
        Py_XDECREF(inner);
        PyErr_Clear();
        raise_thrown(args);
        if (self->begun)
            passing_failed(self);
        self->over = 1;
        return NULL;
    }
    PyObject *yielded = PyObject_Call(throw_, args, NULL);
    Py_DECREF(throw_);
    Py_DECREF(inner);
    if (yielded != NULL)
        return yielded;
    if (!PyErr_ExceptionMatches(PyExc_StopIteration)) {
        passing_failed(self);
        return NULL;
    }
    PyObject *type, *stop, *trace, *value;
    PyErr_Fetch(&type, &stop, &trace);
    PyErr_NormalizeException(&type, &stop, &trace);
    value = PyObject_GetAttr(stop, s_value);
    Py_XDECREF(type);
    Py_XDECREF(stop);
    Py_XDECREF(trace);
    if (value != NULL && self->message != NULL)
        put(&value, Py_NewRef(Py_None));
    if (value == NULL || passing_ended(self, value)) {
        self->over = 1;
        Py_XDECREF(value);
        return NULL;
    }
    return stepped(PYGEN_RETURN, value);
}

static PyObject *
passing_throw(Passing *self, PyObject *args)
{
    if (!can_go_on(self))
        return NULL;
    self->running = 1;
    PyObject *told = throw_on(self, args);
    self->running = 0;
    return told;
}

static PyObject *
passing_close(Passing *self, PyObject *Py_UNUSED(none))
{
    if (self->running) {
        PyErr_SetString(PyExc_ValueError, "coroutine already executing");
        return NULL;
    }
    PyObject *inner = Py_XNewRef(self->inner), *close, *told;
    self->over = 1;
    Py_CLEAR(self->inner);
    if (inner == NULL || (close = PyObject_GetAttr(inner, s_close)) == NULL) {
        Py_XDECREF(inner);
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    told = PyObject_CallNoArgs(close);
    Py_DECREF(close);
    Py_DECREF(inner);
    if (told == NULL)
        passing_failed(self);
    Py_XDECREF(told);
    return told == NULL ? NULL : Py_NewRef(Py_None);
}

static PyObject *
passing_await(Passing *self)
{
    if (self->begun && !self->over) {
        PyErr_SetString(PyExc_RuntimeError, "coroutine is being awaited already");
        return NULL;
    }
    return Py_NewRef((PyObject *)self);
}

static PyObject *
passing_get_suspended(Passing *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->begun && !self->running && !self->over);
}

/* It has no frame that could be shown. */
static PyObject *
passing_get_frame(Passing *Py_UNUSED(self), void *Py_UNUSED(closure))
{
    Py_RETURN_NONE;
}

/* What inspect.getcoroutinestate() asks for, and whoever follows what a task waits for. */
static PyGetSetDef passing_properties[] = {
    {"cr_suspended", (getter)passing_get_suspended, NULL, NULL, NULL},
    {"cr_frame", (getter)passing_get_frame, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef passing_members[] = {
    {"cr_running", T_BOOL, offsetof(Passing, running), READONLY, NULL},
    {"cr_await", T_OBJECT, offsetof(Passing, inner), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef passing_methods[] = {
    {"send", (PyCFunction)passing_send_, METH_O, NULL},
    {"throw", (PyCFunction)passing_throw, METH_VARARGS, NULL},
    {"close", (PyCFunction)passing_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot passing_slots[] = {
    {Py_tp_dealloc, passing_dealloc}, {Py_tp_traverse, passing_traverse},  {Py_tp_clear, passing_clear},
    {Py_tp_methods, passing_methods}, {Py_tp_iternext, passing_next},      {Py_am_await, passing_await},
    {Py_tp_members, passing_members}, {Py_tp_getset, passing_properties},  {Py_am_send, passing_send},
    {0, NULL},
};

static PyType_Spec passing_spec = {
    "indelible._native.Passing", sizeof(Passing), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION, passing_slots,
};

/* ---- the event: MessagePack, as indelible.events.encode_fields writes it ------------------------------------------ */

typedef struct {
    unsigned char *at;
    int fields;
} Out;

static void
put_big(Out *out, uint64_t value, int size)
{
    while (size--)
        *out->at++ = (unsigned char)(value >> (8 * size));
}

static void
put_raw(Out *out, const char *text, size_t size)
{
    memcpy(out->at, text, size);
    out->at += size;
}

static void
put_text(Out *out, const char *text, size_t size)
{
    if (size < 32)
        *out->at++ = (unsigned char)(0xa0 | size);
    else if (size < 256) {
        *out->at++ = 0xd9;
        *out->at++ = (unsigned char)size;
    }
    else {
        *out->at++ = 0xda;
        put_big(out, size, 2);
    }
    put_raw(out, text, size);
}

static void
put_number(Out *out, uint64_t value)
{
    if (value < 128)
        *out->at++ = (unsigned char)value;
    else if (value < 256) {
        *out->at++ = 0xcc;
        put_big(out, value, 1);
    }
    else if (value < 65536) {
        *out->at++ = 0xcd;
        put_big(out, value, 2);
    }
    else if (value <= UINT32_MAX) {
        *out->at++ = 0xce;
        put_big(out, value, 4);
    }
    else {
        *out->at++ = 0xcf;
        put_big(out, value, 8);
    }
}

static void
put_name(Out *out, const char *name)
{
    put_text(out, name, strlen(name));
    out->fields++;
}

/* A text's UTF-8, at most so many characters and none of them NUL; NULL without an exception for any other. */
static const char *
plain_text(PyObject *text, Py_ssize_t most, Py_ssize_t *size)
{
    if (!PyUnicode_CheckExact(text) || PyUnicode_GET_LENGTH(text) > most)
        return NULL;
    const char *utf8 = PyUnicode_AsUTF8AndSize(text, size);
    if (utf8 == NULL) {
        PyErr_Clear();
        return NULL;
    }
    return memchr(utf8, 0, (size_t)*size) == NULL ? utf8 : NULL;
}

static int
is_hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F') || c == '-';
}

/* Whether the path is the template with nothing but hexadecimal digits and dashes in its parameters' places.
 *
 * No such value is a word that a rule knows, a secret by its form, or anything else that would make another event of it.
 * A parameter is a whole segment; templates of another kind get no plan. */
static int
fits(const char *path, const char *template)
{
    const char *first = path;
    while (*template) {
        if (*template != '{') {
            if (*path++ != *template++)
                return 0;
            continue;
        }
        if (!is_hex(*path) || path == first || path[-1] != '/')
            return 0;
        while (is_hex(*path))
            path++;
        if (*path && *path != '/')
            return 0;
        while (*template && *template != '}')
            template++;
        if (*template)
            template++;
    }
    return *path == 0;
}

/* Clear what was raised, unless it is meant to end the process or the task: then 0. */
static int
forgiven(void)
{
    if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_Exception))
        return 0;
    PyErr_Clear();
    return 1;
}

/* The route's template, a new reference; NULL where there is none, or another framework's. */
static PyObject *
template_of(PyObject *scope)
{
    PyObject *route = lookup(scope, s_route), *template;
    if (route == NULL || route == Py_None || lookup(scope, s_path_template) != NULL)
        return NULL;
    /* It may be a property. */
    Py_INCREF(route);
    template = PyObject_GetAttr(route, s_path_format);
    Py_DECREF(route);
    if (template != NULL && !PyUnicode_CheckExact(template))
        Py_CLEAR(template);
    return template;
}

static int
is_empty_dict(PyObject *holder, PyObject *name)
{
    PyObject *held = PyObject_GetAttr(holder, name);
    int is = held != NULL && PyDict_CheckExact(held) && PyDict_GET_SIZE(held) == 0;
    if (held == NULL)
        PyErr_Clear();
    Py_XDECREF(held);
    return is;
}

/* Whether nothing but the request and its answer is to be told. */
static int
is_plain(Seen *self)
{
    PyObject *scope = self->scope, *query, *bound;
    if (!self->plain || self->late || self->accepted || self->disconnected || self->intent != Py_None ||
        self->bound == Py_None || !PyDict_CheckExact(scope) || !PyLong_CheckExact(self->status))
        return 0;
    query = lookup(scope, s_query_string);
    if (query != NULL && !(PyBytes_CheckExact(query) && PyBytes_GET_SIZE(query) == 0))
        return 0;
    if (PyContextVar_Get(bound_var, NULL, &bound)) {
        PyErr_Clear();
        return 0;
    }
    Py_XDECREF(bound);
    return bound == self->bound && is_empty_dict(self->record, s_fields) && is_empty_dict(self->record, s_metadata);
}

/* The first of several plans whose whole template the path fits, borrowed; NULL where none does. */
static PyObject *
plan_for(PyObject *plans, const char *path)
{
    Py_ssize_t shape_size;
    for (Py_ssize_t at = 0; at < PyTuple_GET_SIZE(plans); at++) {
        PyObject *plan = PyTuple_GET_ITEM(plans, at);
        if (!PyTuple_CheckExact(plan) || PyTuple_GET_SIZE(plan) != 4 || !PyLong_CheckExact(PyTuple_GET_ITEM(plan, 1)) ||
            !PyBytes_CheckExact(PyTuple_GET_ITEM(plan, 2)))
            return NULL;
        const char *shape = plain_text(PyTuple_GET_ITEM(plan, 0), MAX_PATH, &shape_size);
        if (shape != NULL && fits(path, shape))
            return plan;
    }
    return NULL;
}

/* pack(plans): the journal's payload for a plain request; b"" where a plan says that it is not recorded; None where there
 * is no plan, or the request is not plain.
 *
 * plans: (template, method, status) to a tuple of (whole, count, prefix, parameter): the template from the root on, the
 * number of fields that every such event has, their encoding, and which path parameter is the resource's id, or None;
 * count 0 is for what is not recorded. */
static PyObject *
seen_pack(Seen *self, PyObject *plans)
{
    if (!is_whole(self))
        return NULL;
    if (!PyDict_CheckExact(plans) || !is_plain(self))
        Py_RETURN_NONE;
    /* Held: Python runs in between, if only to collect garbage. */
    PyObject *scope = Py_NewRef(self->scope), *shown = Py_NewRef(self->shown), *seen_agent = Py_NewRef(self->user_agent);
    PyObject *seen_address = Py_NewRef(self->ip_address), *seen_correlation = Py_NewRef(self->correlation_id);
    PyObject *method = Py_XNewRef(lookup(scope, s_method)), *template = template_of(scope);
    PyObject *several = NULL, *plan = NULL, *user = NULL, *resource = NULL, *payload = NULL;
    unsigned char event_id[UUID_SIZE];

    if (method == NULL || template == NULL)
        goto not_plain;
    PyObject *key = PyTuple_Pack(3, template, method, self->status);
    if (key == NULL)
        goto not_plain;
    several = Py_XNewRef(lookup(plans, key));
    Py_DECREF(key);

    const char *path, *who = NULL, *agent = NULL, *address = NULL, *correlation, *id = NULL;
    Py_ssize_t path_size, correlation_size, who_size = 0, agent_size = 0, address_size = 0, id_size = 0;
    if (several == NULL || !PyTuple_CheckExact(several) || (path = plain_text(shown, MAX_PATH, &path_size)) == NULL ||
        (plan = Py_XNewRef(plan_for(several, path))) == NULL)
        goto not_plain;
    long fields = PyLong_AsLong(PyTuple_GET_ITEM(plan, 1));
    PyObject *prefix = PyTuple_GET_ITEM(plan, 2), *parameter = PyTuple_GET_ITEM(plan, 3);
    if (fields < 0 || fields > 64 || !plain_user(self, &user))
        goto not_plain;
    if (user == Py_None) {
        /* Why a token was not believed is told in the metadata. */
        PyObject *reason = PyObject_GetAttr(self->identity, s_reason);
        int told = reason != Py_None;
        Py_XDECREF(reason);
        if (told)
            goto not_plain;
    }
    else if ((who = plain_text(user, MAX_KEY, &who_size)) == NULL)
        goto not_plain;
    if (fields == 0) {
        payload = PyBytes_FromStringAndSize(NULL, 0);
        goto done;
    }
    if ((seen_agent != Py_None && (agent = plain_text(seen_agent, MAX_AGENT, &agent_size)) == NULL) ||
        (seen_address != Py_None && (address = plain_text(seen_address, MAX_ADDRESS, &address_size)) == NULL) ||
        (correlation = plain_text(seen_correlation, MAX_CORRELATION, &correlation_size)) == NULL)
        goto not_plain;
    PyObject *params = lookup(scope, s_path_params);
    if (params != NULL && params != Py_None && !PyDict_CheckExact(params))
        goto not_plain;
    if (parameter == Py_None) {
        if (params != NULL && params != Py_None && PyDict_GET_SIZE(params))
            goto not_plain;
    }
    else {
        PyObject *value = params == NULL || params == Py_None ? NULL : lookup(params, parameter);
        if (value == NULL || !(PyUnicode_CheckExact(value) || PyLong_CheckExact(value)))
            goto not_plain;
        resource = PyObject_Str(value);
        if (resource == NULL || (id = plain_text(resource, MAX_KEY, &id_size)) == NULL)
            goto not_plain;
    }
    if (uuid7(event_id))
        goto not_plain;
    /* 256 is more than all names and lengths take. */
    payload = PyBytes_FromStringAndSize(NULL, PyBytes_GET_SIZE(prefix) + who_size + agent_size + address_size +
                                                  correlation_size + id_size + path_size + 256);
    if (payload == NULL)
        goto not_plain;
    unsigned char *start = (unsigned char *)PyBytes_AS_STRING(payload);
    Out out = {start + 3, (int)fields};
    int64_t took = (now_ns(CLOCK_MONOTONIC) - self->started) / 1000;
    put_raw(&out, PyBytes_AS_STRING(prefix), (size_t)PyBytes_GET_SIZE(prefix));
    put_name(&out, "duration_us");
    put_number(&out, (uint64_t)(took < 0 ? 0 : took));
#define TEXT(name, text, size)                                                                                         \
    if (text != NULL) {                                                                                                \
        put_name(&out, name);                                                                                          \
        put_text(&out, text, (size_t)size);                                                                            \
    }
    TEXT("user_id", who, who_size)
    TEXT("ip_address", address, address_size)
    TEXT("user_agent", agent, agent_size)
    TEXT("correlation_id", correlation, correlation_size)
    TEXT("resource_id", id, id_size)
    TEXT("request_path", path, path_size)
#undef TEXT
    put_name(&out, "timestamp");
    put_number(&out, (uint64_t)(now_ns(CLOCK_REALTIME) / 1000));
    put_name(&out, "id");
    *out.at++ = 0xc4;
    *out.at++ = UUID_SIZE;
    put_raw(&out, (const char *)event_id, UUID_SIZE);
    start[0] = 0xde;
    start[1] = 0;
    start[2] = (unsigned char)out.fields;
    _PyBytes_Resize(&payload, (Py_ssize_t)(out.at - start));
    goto done;

not_plain:
    payload = forgiven() ? Py_NewRef(Py_None) : NULL;
done:
    Py_DECREF(scope);
    Py_DECREF(shown);
    Py_DECREF(seen_agent);
    Py_DECREF(seen_address);
    Py_DECREF(seen_correlation);
    Py_XDECREF(method);
    Py_XDECREF(template);
    Py_XDECREF(several);
    Py_XDECREF(plan);
    Py_XDECREF(user);
    Py_XDECREF(resource);
    return payload;
}

/* ---- the type ----------------------------------------------------------------------------------------- */

#define MEMBER(public, name) {public, T_OBJECT_EX, offsetof(Seen, name), 0, NULL}
#define FLAG(name) {#name, T_BOOL, offsetof(Seen, name), 0, NULL}

static PyMemberDef seen_members[] = {
    MEMBER("_write", write), MEMBER("_complaints", complaints), MEMBER("scope", scope), MEMBER("_receive", receive),
    MEMBER("_send", send), MEMBER("record", record), MEMBER("_bound", bound), MEMBER("correlation_id", correlation_id),
    MEMBER("path", path), MEMBER("shown", shown), MEMBER("user_agent", user_agent), MEMBER("ip_address", ip_address),
    MEMBER("identity", identity), MEMBER("named", named), MEMBER("status", status), MEMBER("close_code", close_code),
    MEMBER("intent", intent), FLAG(is_http), FLAG(excluded), FLAG(late), FLAG(accepted), FLAG(complete),
    FLAG(disconnected), {NULL, 0, 0, 0, NULL},
};

static PyMethodDef seen_methods[] = {
    {"read", FASTCALL(seen_read)},
    {"bind", (PyCFunction)seen_bind, METH_NOARGS, NULL},
    {"leave", FASTCALL(seen_leave)},
    {"pack", (PyCFunction)seen_pack, METH_O, NULL},
    {"elapsed", (PyCFunction)seen_elapsed, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef seen_properties[] = {
    {"receive", (getter)seen_get_receive, NULL, NULL, NULL},
    {"send", (getter)seen_get_send, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot seen_slots[] = {
    {Py_tp_init, seen_init},       {Py_tp_dealloc, seen_dealloc}, {Py_tp_traverse, seen_traverse},
    {Py_tp_clear, seen_clear},     {Py_tp_members, seen_members}, {Py_tp_methods, seen_methods},
    {Py_tp_new, PyType_GenericNew}, {Py_tp_getset, seen_properties}, {0, NULL},
};

static PyType_Spec seen_spec = {
    "indelible._native.Seen", sizeof(Seen), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, seen_slots,
};

/* prepare(bound, request, nothing, record_type, anonymous, restore): once, before the first Seen is made. */
static PyObject *
prepare(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *given[6];
    if (!PyArg_UnpackTuple(args, "prepare", 6, 6, &given[0], &given[1], &given[2], &given[3], &given[4], &given[5]))
        return NULL;
    PyObject **places[6] = {&bound_var, &request_var, &nothing, &record_type, &anonymous, &restore};
    for (int at = 0; at < 6; at++)
        put(places[at], Py_NewRef(given[at]));
    Py_RETURN_NONE;
}

/* fits(path, template): as above; False for what is no plain text. */
static PyObject *
fits_(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    Py_ssize_t size;
    const char *path, *template;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "fits(path, template)");
        return NULL;
    }
    path = plain_text(args[0], MAX_PATH, &size);
    template = plain_text(args[1], MAX_PATH, &size);
    return PyBool_FromLong(path != NULL && template != NULL && fits(path, template));
}

PyMethodDef capture_functions[] = {
    {"fits", FASTCALL(fits_)},
    {"prepare", prepare, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

int
capture_start(PyObject *module)
{
#define MAKE(name)                                                                                                     \
    if ((s_##name = PyUnicode_InternFromString(#name)) == NULL)                                                        \
        return -1;
    NAMES(MAKE)
#undef MAKE
    s_start = PyUnicode_InternFromString("http.response.start");
    s_body = PyUnicode_InternFromString("http.response.body");
    s_request = PyUnicode_InternFromString("http.request");
    header_name = PyBytes_FromString("x-correlation-id");
    empty = PyUnicode_FromString("");
    PyObject *type = PyType_FromSpec(&seen_spec);
    passing_type = (PyTypeObject *)PyType_FromSpec(&passing_spec);
    way_type = (PyTypeObject *)PyType_FromSpec(&way_spec);
    if (type == NULL || passing_type == NULL || way_type == NULL || s_start == NULL || s_body == NULL ||
        s_request == NULL || header_name == NULL || empty == NULL)
        return -1;
    Py_INCREF(way_type);
    return PyModule_AddObject(module, "Seen", type) || PyModule_AddObject(module, "Way", (PyObject *)way_type) ? -1 : 0;
}
