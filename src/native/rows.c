/* The drainer's part: from the payloads of the journal to what the database is given, and to the leaf hashes of the log.
 *
 * A payload is an event as MessagePack, a map of its fields (indelible.events). What is said here about fields, bounds,
 * leaves and columns is said by indelible.events, indelible.integrity.leaf and indelible.stores.schema; a payload that is
 * anything but what a plain event is, is left to them. Sealing, and making a COPY, go on without the interpreter's lock: beside
 * an event loop they take nothing from it but a processor.
 */
#include "native.h"

/* ---- bytes that are made -------------------------------------------------------------------------------------------- */

typedef struct {
    unsigned char *start;
    size_t size, room;
} Buffer;

/* Room for so many more bytes; 0 where there is no memory. */
static int
reserve(Buffer *buffer, size_t more)
{
    if (buffer->room - buffer->size >= more)
        return 1;
    size_t room = 2 * buffer->room > buffer->size + more ? 2 * buffer->room : buffer->size + more;
    unsigned char *start = PyMem_RawRealloc(buffer->start, room);
    if (start == NULL)
        return 0;
    buffer->start = start;
    buffer->room = room;
    return 1;
}

/* All that follow write into room that was reserved. */
static void
add(Buffer *buffer, const void *at, size_t size)
{
    memcpy(buffer->start + buffer->size, at, size);
    buffer->size += size;
}

#define ADD(buffer, literal) add(buffer, literal, sizeof(literal) - 1)

static const char base64url[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

#define BASE64_SIZE(size) (((size) * 4 + 2) / 3)

/* Base64url without padding (RFC 4648 section 5). */
static void
add_base64(Buffer *buffer, const unsigned char *at, size_t size)
{
    unsigned char *to = buffer->start + buffer->size;
    for (; size >= 3; size -= 3, at += 3) {
        uint32_t bits = (uint32_t)at[0] << 16 | (uint32_t)at[1] << 8 | at[2];
        *to++ = (unsigned char)base64url[bits >> 18];
        *to++ = (unsigned char)base64url[bits >> 12 & 63];
        *to++ = (unsigned char)base64url[bits >> 6 & 63];
        *to++ = (unsigned char)base64url[bits & 63];
    }
    if (size) {
        uint32_t bits = (uint32_t)at[0] << 16 | (size > 1 ? (uint32_t)at[1] << 8 : 0);
        *to++ = (unsigned char)base64url[bits >> 18];
        *to++ = (unsigned char)base64url[bits >> 12 & 63];
        if (size > 1)
            *to++ = (unsigned char)base64url[bits >> 6 & 63];
    }
    buffer->size = (size_t)(to - buffer->start);
}

/* Decimal digits, padded with zeros to at least so many. */
static void
add_digits(Buffer *buffer, uint64_t value, int least)
{
    char digits[20];
    int at = 20;
    while (value || least > 0) {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
        least--;
    }
    add(buffer, digits + at, (size_t)(20 - at));
}

static void
add_integer(Buffer *buffer, int64_t value)
{
    if (value < 0)
        ADD(buffer, "-");
    add_digits(buffer, value < 0 ? 0 - (uint64_t)value : (uint64_t)value, 1);
}

/* A text of JSON as RFC 8785 section 3.2.2.2 has it; six bytes of room for each of its own, and two. */
static void
add_quoted(Buffer *buffer, const unsigned char *at, size_t size)
{
    static const char hex[] = "0123456789abcdef";
    unsigned char *to = buffer->start + buffer->size;
    *to++ = '"';
    for (const unsigned char *end = at + size; at < end; at++) {
        if (*at >= 0x20 && *at != '"' && *at != '\\') {
            *to++ = *at;
            continue;
        }
        *to++ = '\\';
        switch (*at) {
        case '\b':
            *to++ = 'b';
            break;
        case '\t':
            *to++ = 't';
            break;
        case '\n':
            *to++ = 'n';
            break;
        case '\f':
            *to++ = 'f';
            break;
        case '\r':
            *to++ = 'r';
            break;
        case '"':
        case '\\':
            *to++ = *at;
            break;
        default:
            memcpy(to, "u00", 3);
            to[3] = (unsigned char)hex[*at >> 4];
            to[4] = (unsigned char)hex[*at & 15];
            to += 5;
        }
    }
    *to++ = '"';
    buffer->size = (size_t)(to - buffer->start);
}

static void
add_uuid(Buffer *buffer, const unsigned char id[16])
{
    static const char hex[] = "0123456789abcdef";
    unsigned char *to = buffer->start + buffer->size;
    for (int at = 0; at < 16; at++) {
        if (at == 4 || at == 6 || at == 8 || at == 10)
            *to++ = '-';
        *to++ = (unsigned char)hex[id[at] >> 4];
        *to++ = (unsigned char)hex[id[at] & 15];
    }
    buffer->size = (size_t)(to - buffer->start);
}

/* The years 1 to 9999 in Unix µs. */
#define MIN_TIME INT64_C(-62135596800000000)
#define MAX_TIME INT64_C(253402300799999999)

/* RFC 3339 in UTC with six digits of a second; the calendar counts from the March of the year 0. */
static void
add_time(Buffer *buffer, int64_t us)
{
    uint64_t since = (uint64_t)(us - MIN_TIME), second = since / 1000000 % 86400;
    uint64_t day = since / 86400000000u + 306; /* 1 January of the year 1 is 306 days after 1 March of the year 0 */
    uint64_t era = day / 146097, of_era = day % 146097;
    uint64_t year_of = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    uint64_t of_year = of_era - (365 * year_of + year_of / 4 - year_of / 100);
    uint64_t month_of = (5 * of_year + 2) / 153, month = month_of < 10 ? month_of + 3 : month_of - 9;
    add_digits(buffer, era * 400 + year_of + (month <= 2), 4);
    ADD(buffer, "-");
    add_digits(buffer, month, 2);
    ADD(buffer, "-");
    add_digits(buffer, of_year - (153 * month_of + 2) / 5 + 1, 2);
    ADD(buffer, "T");
    add_digits(buffer, second / 3600, 2);
    ADD(buffer, ":");
    add_digits(buffer, second / 60 % 60, 2);
    ADD(buffer, ":");
    add_digits(buffer, second % 60, 2);
    ADD(buffer, ".");
    add_digits(buffer, since % 1000000, 6);
    ADD(buffer, "Z");
}

/* ---- events that are read ------------------------------------------------------------------------------------------- */

/* The fields of an event (indelible.events.AuditEvent) and the most characters of each text, 0 for no bound. */
#define FIELDS(X)                                                                                                      \
    X(id, ID, 0) X(timestamp, TIME, 0) X(event_type, TEXT, 64) X(action, TEXT, 128) X(status, TEXT, 16)                \
    X(tenant_id, TEXT, 256) X(resource_type, TEXT, 128) X(request_method, TEXT, 32) X(response_status, INTEGER, 0)     \
    X(duration_us, INTEGER, 0) X(source, TEXT, 128) X(user_id, TEXT, 256) X(on_behalf_of, TEXT, 256)                   \
    X(ip_address, TEXT, 64) X(user_agent, TEXT, 1024) X(session_id, TEXT, 256) X(correlation_id, TEXT, 128)            \
    X(resource_id, TEXT, 256) X(request_path, TEXT, 2048) X(old_value, TEXT, 0) X(new_value, TEXT, 0)                  \
    X(metadata, TEXT, 0) X(error, TEXT, 4096)

#define NUMBERED(name, kind, most) F_##name,
enum { FIELDS(NUMBERED) FIELD_COUNT };
#undef NUMBERED

/* Those before this one have to be there. */
#define FIRST_OPTIONAL F_tenant_id

enum kind { TEXT, INTEGER, TIME, ID };

#define DESCRIBED(name, kind, most) {#name, sizeof(#name) - 1, kind, most},
static const struct {
    const char *name;
    size_t size;
    enum kind kind;
    size_t most;
} described[FIELD_COUNT] = {FIELDS(DESCRIBED)};
#undef DESCRIBED

#define MAX_INTEGER ((INT64_C(1) << 53) - 1)
#define SALT_SIZE 16
#define MAX_LEAF 65535

typedef struct {
    const unsigned char *at; /* of a text, or of an id; NULL where it is absent */
    size_t size;
    int64_t number;
    char is;
} Value;

typedef Value Event[FIELD_COUNT];

/* Whether these bytes are UTF-8 without U+0000 (RFC 3629), and how many characters. */
static int
is_text(const unsigned char *at, size_t size, size_t *characters)
{
    const unsigned char *end = at + size;
    size_t following = 0;
    while (at < end) {
        uint64_t eight;
        /* Eight bytes that are ASCII and none of them zero. */
        while (end - at >= 8) {
            memcpy(&eight, at, 8);
            if ((eight | (eight - 0x0101010101010101u)) & 0x8080808080808080u)
                break;
            at += 8;
        }
        if (at == end)
            break;
        unsigned char lead = *at;
        size_t more;
        if (lead < 0x80) {
            if (lead == 0)
                return 0;
            at++;
            continue;
        }
        unsigned char least = 0x80, most = 0xbf;
        if (lead >= 0xc2 && lead <= 0xdf)
            more = 1;
        else if (lead >= 0xe0 && lead <= 0xef) {
            more = 2;
            least = lead == 0xe0 ? 0xa0 : 0x80;
            most = lead == 0xed ? 0x9f : 0xbf;
        }
        else if (lead >= 0xf0 && lead <= 0xf4) {
            more = 3;
            least = lead == 0xf0 ? 0x90 : 0x80;
            most = lead == 0xf4 ? 0x8f : 0xbf;
        }
        else
            return 0;
        if ((size_t)(end - at) <= more || at[1] < least || at[1] > most)
            return 0;
        for (size_t i = 2; i <= more; i++)
            if (at[i] < 0x80 || at[i] > 0xbf)
                return 0;
        following += more;
        at += more + 1;
    }
    *characters = size - following;
    return 1;
}

static uint64_t
big(const unsigned char *at, int size)
{
    uint64_t value = 0;
    while (size--)
        value = value << 8 | *at++;
    return value;
}

/* The length of the str that begins at *at, which moves on to its text; -1 for what is none. */
static int64_t
read_length(const unsigned char **at, const unsigned char *end)
{
    unsigned char form = *(*at)++;
    if (form >= 0xa0 && form <= 0xbf)
        return form & 31;
    if (form < 0xd9 || form > 0xdb)
        return -1;
    int bytes = 1 << (form - 0xd9);
    if (end - *at < bytes)
        return -1;
    int64_t length = (int64_t)big(*at, bytes);
    *at += bytes;
    return length;
}

static int
read_number(const unsigned char **at, const unsigned char *end, int64_t *number)
{
    unsigned char form = *(*at)++;
    if (form <= 0x7f || form >= 0xe0) {
        *number = (int8_t)form;
        return 1;
    }
    if (form < 0xcc || form > 0xd3)
        return 0;
    int bytes = 1 << ((form - 0xcc) & 3);
    if (end - *at < bytes)
        return 0;
    uint64_t value = big(*at, bytes);
    *at += bytes;
    if (form >= 0xd0 && bytes < 8 && value >> (8 * bytes - 1))
        value |= ~UINT64_C(0) << (8 * bytes);
    else if (form < 0xd0 && value > INT64_MAX)
        return 0;
    *number = (int64_t)value;
    return 1;
}

static int
read_value(Value *value, int field, const unsigned char **at, const unsigned char *end)
{
    if (*at == end)
        return 0;
    if (**at == 0xc0) {
        ++*at;
        return field >= FIRST_OPTIONAL;
    }
    value->is = 1;
    int64_t size;
    size_t characters;
    switch (described[field].kind) {
    case TEXT:
        if ((size = read_length(at, end)) < 0 || size > end - *at)
            return 0;
        value->at = *at;
        value->size = (size_t)size;
        *at += size;
        return is_text(value->at, value->size, &characters) &&
               (described[field].most == 0 || characters <= described[field].most);
    case ID:
        if (end - *at < 18 || (*at)[0] != 0xc4 || (*at)[1] != 16)
            return 0;
        value->at = *at + 2;
        value->size = 16;
        *at += 18;
        return 1;
    case TIME:
        return read_number(at, end, &value->number) && value->number >= MIN_TIME && value->number <= MAX_TIME;
    default:
        return read_number(at, end, &value->number) && value->number >= -MAX_INTEGER && value->number <= MAX_INTEGER;
    }
}

/* The event of a payload, whose texts stay where they are in it; 0 for anything unusual. */
static int
read_event(Event event, const unsigned char *at, size_t size)
{
    const unsigned char *end = at + size;
    memset(event, 0, sizeof(Event));
    if (size < 3)
        return 0;
    unsigned count = *at++;
    if (count >= 0x80 && count <= 0x8f)
        count &= 15;
    else if (count == 0xde) {
        count = (unsigned)big(at, 2);
        at += 2;
    }
    else
        return 0;
    int next = 0; /* fields mostly come in their order */
    char seen[FIELD_COUNT] = {0};
    while (count--) {
        int64_t length;
        if (at == end || (length = read_length(&at, end)) < 0 || length > end - at)
            return 0;
        int field = next, tried = 0;
        while (described[field].size != (size_t)length || memcmp(described[field].name, at, (size_t)length)) {
            if (++tried == FIELD_COUNT)
                return 0;
            field = field + 1 == FIELD_COUNT ? 0 : field + 1;
        }
        at += length;
        if (seen[field] || !read_value(&event[field], field, &at, end))
            return 0;
        seen[field] = 1;
        next = field + 1 == FIELD_COUNT ? 0 : field + 1;
    }
    for (int field = 0; field < FIRST_OPTIONAL; field++)
        if (!event[field].is)
            return 0;
    return at == end;
}

/* ---- leaves (docs/formats/leaf.md) ------------------------------------------------------------------------------------- */

static const int actor_fields[] = {F_ip_address, F_on_behalf_of, F_session_id, F_user_agent, F_user_id};
static const int details_fields[] = {
    F_correlation_id, F_error, F_metadata, F_new_value, F_old_value, F_request_path, F_resource_id,
};

#define COUNT(array) (int)(sizeof(array) / sizeof((array)[0]))

static int
has_any(const Event event, const int *fields, int count)
{
    for (int at = 0; at < count; at++)
        if (event[fields[at]].is)
            return 1;
    return 0;
}

#define HAS_ACTOR(event) has_any(event, actor_fields, COUNT(actor_fields))
#define HAS_DETAILS(event) has_any(event, details_fields, COUNT(details_fields))

/* The bytes that JSON takes of an event at the most: its texts six times, its names and numbers, and what is round them. */
static size_t
most_of(const Event event)
{
    size_t size = 2048;
    for (int field = 0; field < FIELD_COUNT; field++)
        size += 6 * event[field].size;
    return size;
}

static void
add_name(Buffer *buffer, const char *name)
{
    unsigned char last = buffer->start[buffer->size - 1];
    if (last != '{')
        ADD(buffer, ",");
    ADD(buffer, "\"");
    add(buffer, name, strlen(name));
    ADD(buffer, "\":");
}

static void
add_field(Buffer *buffer, const Event event, int field)
{
    const Value *value = &event[field];
    if (!value->is)
        return;
    add_name(buffer, described[field].name);
    if (described[field].kind == TEXT)
        add_quoted(buffer, value->at, value->size);
    else
        add_integer(buffer, value->number);
}

/* The digest of a group's disclosure, as the member of the leaf that it is; 0 where there is no memory. */
static int
add_group(Buffer *leaf, Buffer *made, const Event event, const char *group, const int *fields, int count,
          const unsigned char *salt)
{
    unsigned char digest[SHA256_SIZE];
    size_t most = most_of(event);
    if (!has_any(event, fields, count))
        return 1;
    made->size = 0;
    if (!reserve(made, most + BASE64_SIZE(most)))
        return 0;
    ADD(made, "[\"");
    add_base64(made, salt, SALT_SIZE);
    ADD(made, "\",\"");
    add(made, group, strlen(group));
    ADD(made, "\",{");
    for (int at = 0; at < count; at++)
        add_field(made, event, fields[at]);
    ADD(made, "}]");
    size_t json = made->size;
    add_base64(made, made->start, json);
    sha256(made->start + json, made->size - json, digest);
    add_name(leaf, group);
    ADD(leaf, "\"");
    add_base64(leaf, digest, SHA256_SIZE);
    ADD(leaf, "\"");
    return 1;
}

/* What all rows of a call share. */
typedef struct {
    const unsigned char *writer_id, *salts;
    int64_t recorded_at, number; /* number of the first */
} Shared;

/* The hash of an event's leaf: 1, 0 for a leaf that is too long, -1 where there is no memory. */
static int
hash_leaf(unsigned char hash[SHA256_SIZE], const Event event, const Shared *shared, Py_ssize_t at, Buffer *leaf,
          Buffer *made)
{
    const unsigned char *salt = shared->salts + 2 * SALT_SIZE * at;
    leaf->size = 0;
    if (!reserve(leaf, most_of(event)))
        return -1;
    /* The byte that tells leaves from nodes (RFC 6962 section 2.1). */
    add(leaf, "\0{", 2);
    add_field(leaf, event, F_action);
    if (!add_group(leaf, made, event, "actor", actor_fields, COUNT(actor_fields), salt) ||
        !add_group(leaf, made, event, "details", details_fields, COUNT(details_fields), salt + SALT_SIZE))
        return -1;
    add_field(leaf, event, F_duration_us);
    add_field(leaf, event, F_event_type);
    ADD(leaf, ",\"id\":\"");
    add_uuid(leaf, event[F_id].at);
    ADD(leaf, "\",\"recorded_at\":\"");
    add_time(leaf, shared->recorded_at);
    ADD(leaf, "\"");
    add_field(leaf, event, F_request_method);
    add_field(leaf, event, F_resource_type);
    add_field(leaf, event, F_response_status);
    add_field(leaf, event, F_source);
    add_field(leaf, event, F_status);
    add_field(leaf, event, F_tenant_id);
    ADD(leaf, ",\"timestamp\":\"");
    add_time(leaf, event[F_timestamp].number);
    ADD(leaf, "\",\"v\":1,\"writer_id\":\"");
    add_uuid(leaf, shared->writer_id);
    ADD(leaf, "\",\"writer_seq\":");
    add_integer(leaf, shared->number + at);
    ADD(leaf, "}");
    if (leaf->size - 1 > MAX_LEAF)
        return 0;
    sha256(leaf->start, leaf->size, hash);
    return 1;
}

/* ---- what the calls take ------------------------------------------------------------------------------------------------ */

/* payloads: a tuple of bytes; writer_id: 16 bytes; the writer's number of the first; recorded_at: Unix µs; salts: 32 bytes each.
 * 1; 0 for what Python has to look at; -1 with an exception. */
static int
take(PyObject *const *args, Shared *shared)
{
    if (!PyTuple_CheckExact(args[0]) || !PyBytes_CheckExact(args[1]) || PyBytes_GET_SIZE(args[1]) != 16 ||
        !PyBytes_CheckExact(args[4])) {
        PyErr_SetString(PyExc_TypeError, "a tuple of payloads, 16 bytes, two integers and the salts");
        return -1;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(args[0]);
    if (PyBytes_GET_SIZE(args[4]) != 2 * SALT_SIZE * count) {
        PyErr_SetString(PyExc_ValueError, "salts are 32 bytes an event");
        return -1;
    }
    for (Py_ssize_t at = 0; at < count; at++)
        if (!PyBytes_CheckExact(PyTuple_GET_ITEM(args[0], at))) {
            PyErr_SetString(PyExc_TypeError, "a payload is bytes");
            return -1;
        }
    shared->writer_id = (const unsigned char *)PyBytes_AS_STRING(args[1]);
    shared->salts = (const unsigned char *)PyBytes_AS_STRING(args[4]);
    shared->number = PyLong_AsLongLong(args[2]);
    if (!PyErr_Occurred())
        shared->recorded_at = PyLong_AsLongLong(args[3]);
    if (PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError))
            return -1;
        PyErr_Clear();
        return 0;
    }
    return shared->number >= 0 && shared->number <= MAX_INTEGER - count && shared->recorded_at >= MIN_TIME &&
           shared->recorded_at <= MAX_TIME;
}

#define READ(event, payloads, at)                                                                                      \
    read_event(event, (const unsigned char *)PyBytes_AS_STRING(PyTuple_GET_ITEM(payloads, at)),                        \
               (size_t)PyBytes_GET_SIZE(PyTuple_GET_ITEM(payloads, at)))

/* seal(payloads, writer_id, number, recorded_at, salts): the leaf hashes; None for what Python has to look at. */
static PyObject *
seal(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    Shared shared;
    if (count != 5) {
        PyErr_SetString(PyExc_TypeError, "seal(payloads, writer_id, number, recorded_at, salts)");
        return NULL;
    }
    int good = take(args, &shared);
    if (good < 1)
        return good ? NULL : Py_NewRef(Py_None);
    PyObject *payloads = args[0];
    Py_ssize_t rows = PyTuple_GET_SIZE(payloads);
    unsigned char *hashes = PyMem_RawMalloc((size_t)(rows ? rows : 1) * SHA256_SIZE);
    Buffer leaf = {0}, made = {0};
    if (hashes == NULL)
        return PyErr_NoMemory();
    Py_BEGIN_ALLOW_THREADS
    Event event;
    for (Py_ssize_t at = 0; good == 1 && at < rows; at++)
        good = READ(event, payloads, at) ? hash_leaf(hashes + SHA256_SIZE * at, event, &shared, at, &leaf, &made) : 0;
    Py_END_ALLOW_THREADS
    PyMem_RawFree(leaf.start);
    PyMem_RawFree(made.start);
    PyObject *told = good < 0 ? PyErr_NoMemory() : good ? PyList_New(rows) : Py_NewRef(Py_None);
    for (Py_ssize_t at = 0; told != NULL && good == 1 && at < rows; at++) {
        PyObject *hash = PyBytes_FromStringAndSize((const char *)hashes + SHA256_SIZE * at, SHA256_SIZE);
        if (hash == NULL)
            Py_CLEAR(told);
        else
            PyList_SET_ITEM(told, at, hash);
    }
    PyMem_RawFree(hashes);
    return told;
}

/* The columns of a row (indelible.stores.schema) from the one behind writer_seq to the one before the leaf's hash. */
static const int columns[] = {
    F_event_type, F_action, F_status, F_resource_type, F_request_method, F_response_status, F_duration_us, F_source,
    F_user_id, F_on_behalf_of, F_ip_address, F_user_agent, F_session_id, F_correlation_id, F_resource_id, F_request_path,
    F_old_value, F_new_value, F_metadata, F_error,
};

/* seq, recorded_at, id, timestamp, tenant_id, writer_id, writer_seq; those; leaf_hash, two salts, two digests. */
#define COLUMN_COUNT (7 + COUNT(columns) + 5)

/* A list of the hashes of so many rows, as a tuple that nobody changes; NULL with an exception. */
static PyObject *
kept_hashes(PyObject *hashes, Py_ssize_t count)
{
    PyObject *kept = PyList_CheckExact(hashes) ? PyList_AsTuple(hashes) : NULL;
    int good = kept != NULL && PyTuple_GET_SIZE(kept) == count;
    for (Py_ssize_t at = 0; good && at < count; at++) {
        PyObject *hash = PyTuple_GET_ITEM(kept, at);
        good = PyBytes_CheckExact(hash) && PyBytes_GET_SIZE(hash) == SHA256_SIZE;
    }
    if (good)
        return kept;
    Py_XDECREF(kept);
    if (!PyErr_Occurred())
        PyErr_SetString(PyExc_TypeError, "a list of so many hashes");
    return NULL;
}

/* The place of the first row, which is out of range beyond 53 bits; -1 with an exception. */
static int64_t
read_seq(PyObject *given)
{
    int64_t seq = PyLong_AsLongLong(given);
    if (!PyErr_Occurred() && (seq < 0 || seq > MAX_INTEGER))
        PyErr_SetString(PyExc_ValueError, "seq is out of range");
    return PyErr_Occurred() ? -1 : seq;
}

static void
add_big(Buffer *buffer, uint64_t value, int size)
{
    unsigned char bytes[8];
    for (int at = 0; at < size; at++)
        bytes[at] = (unsigned char)(value >> (8 * (size - 1 - at)));
    add(buffer, bytes, (size_t)size);
}

/* One field of a binary COPY: its length and itself, or -1 for NULL. */
static void
add_copied(Buffer *buffer, const void *at, size_t size)
{
    if (at == NULL) {
        add_big(buffer, UINT32_MAX, 4);
        return;
    }
    add_big(buffer, size, 4);
    add(buffer, at, size);
}

static void
add_copied_number(Buffer *buffer, int64_t value)
{
    add_big(buffer, 8, 4);
    add_big(buffer, (uint64_t)value, 8);
}

/* copied(payloads, writer_id, number, recorded_at, salts, hashes, seq, epoch): the rows as a binary COPY of PostgreSQL takes
 * them, without its head and trailer, times in µs since epoch (Unix µs); None for what Python has to look at. */
static PyObject *
copied(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    Shared shared;
    if (count != 8) {
        PyErr_SetString(PyExc_TypeError, "copied(payloads, writer_id, number, recorded_at, salts, hashes, seq, epoch)");
        return NULL;
    }
    int good = take(args, &shared);
    if (good < 1)
        return good ? NULL : Py_NewRef(Py_None);
    PyObject *payloads = args[0];
    Py_ssize_t rows = PyTuple_GET_SIZE(payloads);
    int64_t seq = read_seq(args[6]), epoch = seq < 0 ? 0 : PyLong_AsLongLong(args[7]);
    if (PyErr_Occurred())
        return NULL;
    if (epoch < -MAX_TIME || epoch > MAX_TIME) {
        PyErr_SetString(PyExc_ValueError, "epoch is out of range");
        return NULL;
    }
    PyObject *kept = kept_hashes(args[5], rows);
    if (kept == NULL)
        return NULL;
    Buffer made = {0};
    Py_BEGIN_ALLOW_THREADS
    Event event;
    for (Py_ssize_t at = 0; good == 1 && at < rows; at++) {
        if (!READ(event, payloads, at)) {
            good = 0;
            break;
        }
        size_t size = 12 * COLUMN_COUNT + 2 * 16 + SHA256_SIZE + 2 * SALT_SIZE;
        for (int field = 0; field < FIELD_COUNT; field++)
            size += event[field].size;
        if (!reserve(&made, size)) {
            good = -1;
            break;
        }
        const unsigned char *salt = shared.salts + 2 * SALT_SIZE * at;
        add_big(&made, COLUMN_COUNT, 2);
        add_copied_number(&made, seq + at);
        add_copied_number(&made, shared.recorded_at - epoch);
        add_copied(&made, event[F_id].at, 16);
        add_copied_number(&made, event[F_timestamp].number - epoch);
        add_copied(&made, event[F_tenant_id].at, event[F_tenant_id].size);
        add_copied(&made, shared.writer_id, 16);
        add_copied_number(&made, shared.number + at);
        for (int column = 0; column < COUNT(columns); column++) {
            const Value *value = &event[columns[column]];
            if (value->is && described[columns[column]].kind == INTEGER)
                add_copied_number(&made, value->number);
            else
                add_copied(&made, value->at, value->size);
        }
        add_copied(&made, PyBytes_AS_STRING(PyTuple_GET_ITEM(kept, at)), SHA256_SIZE);
        add_copied(&made, HAS_ACTOR(event) ? salt : NULL, SALT_SIZE);
        add_copied(&made, HAS_DETAILS(event) ? salt + SALT_SIZE : NULL, SALT_SIZE);
        add_copied(&made, NULL, 0);
        add_copied(&made, NULL, 0);
    }
    Py_END_ALLOW_THREADS
    Py_DECREF(kept);
    PyObject *told = good < 0    ? PyErr_NoMemory()
                     : good == 0 ? Py_NewRef(Py_None)
                                 : PyBytes_FromStringAndSize((const char *)made.start, (Py_ssize_t)made.size);
    PyMem_RawFree(made.start);
    return told;
}

/* bound(payloads, writer_id, number, recorded_at, salts, hashes, seq, null): the rows as parameters of SQLite, one behind the
 * other: ids as their text, hashes and salts as bytearrays, null for what is absent; None for what Python has to look at. */
static PyObject *
bound(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    Shared shared;
    if (count != 8) {
        PyErr_SetString(PyExc_TypeError, "bound(payloads, writer_id, number, recorded_at, salts, hashes, seq, null)");
        return NULL;
    }
    int good = take(args, &shared);
    if (good < 1)
        return good ? NULL : Py_NewRef(Py_None);
    PyObject *payloads = args[0], *null = args[7], *hashes;
    Py_ssize_t rows = PyTuple_GET_SIZE(payloads);
    int64_t seq = read_seq(args[6]);
    if (seq < 0 || (hashes = kept_hashes(args[5], rows)) == NULL)
        return NULL;
    unsigned char text[36];
    Buffer id = {text, 0, sizeof text};
    add_uuid(&id, shared.writer_id);
    PyObject *writer = PyUnicode_DecodeASCII((const char *)text, 36, NULL), *told = NULL;
    PyObject *recorded_at = PyLong_FromLongLong(shared.recorded_at);
    if (writer == NULL || recorded_at == NULL || (told = PyList_New(rows * COLUMN_COUNT)) == NULL)
        goto done;
    Py_ssize_t to = 0;
#define PUT(made)                                                                                                      \
    do {                                                                                                               \
        PyObject *object = (made);                                                                                     \
        if (object == NULL)                                                                                            \
            goto failed;                                                                                               \
        PyList_SET_ITEM(told, to++, object);                                                                           \
    } while (0)
#define PUT_TEXT(field)                                                                                                \
    PUT(event[field].is ? PyUnicode_DecodeUTF8((const char *)event[field].at, (Py_ssize_t)event[field].size, NULL)     \
                        : Py_NewRef(null))
#define PUT_BYTES(there, at, size)                                                                                     \
    PUT((there) ? PyByteArray_FromStringAndSize((const char *)(at), size) : Py_NewRef(null))
    Event event;
    for (Py_ssize_t at = 0; at < rows; at++) {
        if (!READ(event, payloads, at)) {
            Py_CLEAR(told);
            told = Py_NewRef(Py_None);
            break;
        }
        const unsigned char *salt = shared.salts + 2 * SALT_SIZE * at;
        PUT(PyLong_FromLongLong(seq + at));
        PUT(Py_NewRef(recorded_at));
        id.size = 0;
        add_uuid(&id, event[F_id].at);
        PUT(PyUnicode_DecodeASCII((const char *)text, 36, NULL));
        PUT(PyLong_FromLongLong(event[F_timestamp].number));
        PUT_TEXT(F_tenant_id);
        PUT(Py_NewRef(writer));
        PUT(PyLong_FromLongLong(shared.number + at));
        for (int column = 0; column < COUNT(columns); column++) {
            int field = columns[column];
            if (event[field].is && described[field].kind == INTEGER)
                PUT(PyLong_FromLongLong(event[field].number));
            else
                PUT_TEXT(field);
        }
        PUT_BYTES(1, PyBytes_AS_STRING(PyTuple_GET_ITEM(hashes, at)), SHA256_SIZE);
        PUT_BYTES(HAS_ACTOR(event), salt, SALT_SIZE);
        PUT_BYTES(HAS_DETAILS(event), salt + SALT_SIZE, SALT_SIZE);
        PUT(Py_NewRef(null));
        PUT(Py_NewRef(null));
    }
    goto done;
failed:
    Py_CLEAR(told);
done:
    Py_DECREF(hashes);
    Py_XDECREF(writer);
    Py_XDECREF(recorded_at);
    return told;
}

PyMethodDef row_functions[] = {
    {"seal", FASTCALL(seal)},
    {"copied", FASTCALL(copied)},
    {"bound", FASTCALL(bound)},
    {NULL, NULL, 0, NULL},
};

int
row_start(PyObject *module)
{
    static const char *before[] = {"seq", "recorded_at", "id", "timestamp", "tenant_id", "writer_id", "writer_seq"};
    static const char *behind[] = {"leaf_hash", "actor_salt", "details_salt", "actor_digest", "details_digest"};
    PyObject *names = PyTuple_New(COLUMN_COUNT);
    for (int at = 0; names != NULL && at < COLUMN_COUNT; at++) {
        int of = at - COUNT(before);
        PyObject *name = PyUnicode_FromString(of < 0                ? before[at]
                                              : of < COUNT(columns) ? described[columns[of]].name
                                                                    : behind[of - COUNT(columns)]);
        if (name == NULL)
            Py_CLEAR(names);
        else
            PyTuple_SET_ITEM(names, at, name);
    }
    return names == NULL ? -1 : PyModule_AddObject(module, "COLUMNS", names);
}
