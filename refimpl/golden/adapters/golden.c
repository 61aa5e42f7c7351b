/* Golden values answered in C99, with no library: a template for a backend in C, C++ or CUDA.

   Reads a bundle (manifest.json, arrays.safetensors), answers the cases of the operations in
   OPERATIONS below, and writes THEIRS/arrays.safetensors for `refimpl golden check`:

       refimpl golden write --container safetensors golden
       cc -std=c99 -O2 -o answers golden.c -lm
       for b in $(ls golden); do mkdir -p theirs/$b; ./answers golden/$b theirs/$b; done
       refimpl golden check theirs --against golden --only-answered

   To test your own library, put calls of it where the functions answer_... compute; what is
   around them stays.  One function is one operation; `refimpl golden describe NAME` tells what it
   must do.  A case that a function does not know (it returns 0) is left out.

   Arrays are row after row.  Memory is never given back: a run lasts milliseconds.  The machine
   must be little-endian. */

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------------- text and memory */

static void fail(const char *what, const char *which)
{
    fprintf(stderr, "golden: %s %s\n", what, which);
    exit(2);
}

static void *room(size_t bytes) /* zeros */
{
    void *p = calloc(bytes + 1, 1);
    if (!p)
        fail("no memory left for", "arrays");
    return p;
}

static float *floats(long n)
{
    return room((size_t)n * sizeof(float));
}

static char *joined(const char *a, const char *b, const char *c)
{
    char *text = room(strlen(a) + strlen(b) + strlen(c));
    strcat(strcat(strcpy(text, a), b), c);
    return text;
}

static char *read_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        fail("cannot read", path);
    fseek(file, 0, SEEK_END);
    long bytes = ftell(file);
    rewind(file);
    char *content = room((size_t)bytes);
    if (fread(content, 1, (size_t)bytes, file) != (size_t)bytes)
        fail("cannot read", path);
    fclose(file);
    *size = (size_t)bytes;
    return content;
}

/* ------------------------------------------------------------------------------------ JSON */

typedef struct Json Json;
struct Json {
    char kind;    /* { [ " 0 (number) t f n */
    char *name;   /* of a member of an object */
    char *text;   /* of a string */
    double value; /* of a number, or 1 for true */
    Json *first, *next;
};

static const char *at; /* where the parser is */

static char peek(void)
{
    while (*at && strchr(" \t\r\n,:", *at))
        at++;
    return *at;
}

static char *quoted(void)
{
    char *text = room(strlen(at) < 4096 ? strlen(at) : 4096), *end = text;
    for (peek(), at++; *at && *at != '"'; at++) {
        if (*at == '\\')
            at++; /* no name or setting has an escape that matters here */
        if (end - text < 4095)
            *end++ = *at;
    }
    at++;
    return text;
}

static Json *parsed(void)
{
    Json *json = room(sizeof *json), **tail = &json->first;
    json->kind = peek();
    if (json->kind == '{' || json->kind == '[') {
        for (at++; peek() != '}' && peek() != ']'; tail = &(*tail)->next) {
            if (!*at)
                fail("JSON ends too early", "");
            char *name = json->kind == '{' ? quoted() : NULL;
            *tail = parsed();
            (*tail)->name = name;
        }
        at++;
    } else if (json->kind == '"') {
        json->text = quoted();
    } else if (strchr("tfn", json->kind)) {
        json->value = json->kind == 't';
        while (*at >= 'a' && *at <= 'z')
            at++;
    } else {
        char *end;
        json->value = strtod(at, &end);
        if (end == at)
            fail("no JSON:", at);
        at = end;
        json->kind = '0';
    }
    return json;
}

static Json *member(Json *json, const char *name)
{
    for (Json *one = json ? json->first : NULL; one; one = one->next)
        if (one->name && !strcmp(one->name, name))
            return one;
    return NULL;
}

static int length_of(Json *json)
{
    int n = 0;
    for (Json *one = json->first; one; one = one->next)
        n++;
    return n;
}

/* ------------------------------------------------------------------------------ safetensors */

enum { AXES = 4 };

typedef struct {
    char *name;
    const char *dtype; /* F32 F64 I64 U32 U8 */
    int axes;
    long shape[AXES];
    void *data;
} Tensor;

static long size_of(const Tensor *t)
{
    long n = 1;
    for (int i = 0; i < t->axes; i++)
        n *= t->shape[i];
    return n;
}

static size_t width_of(const char *dtype)
{
    return !strcmp(dtype, "U8") ? 1 : strstr(dtype, "64") ? 8 : 4;
}

typedef struct {
    Tensor *tensors;
    int count;
} Archive;

static Archive load(const char *path)
{
    size_t size;
    char *content = read_file(path, &size);
    uint64_t header = 0;
    if (size >= 8)
        memcpy(&header, content, 8);
    if (size < 8 || header > size - 8)
        fail("no safetensors file:", path);
    char *text = room(header), *data = content + 8 + header;
    at = memcpy(text, content + 8, header);
    Json *json = parsed();
    Archive archive = {room((size_t)length_of(json) * sizeof(Tensor)), 0};
    for (Json *one = json->first; one; one = one->next) {
        if (!strcmp(one->name, "__metadata__"))
            continue;
        Tensor *t = &archive.tensors[archive.count++];
        Json *offsets = member(one, "data_offsets")->first;
        t->name = one->name;
        t->dtype = member(one, "dtype")->text;
        for (Json *n = member(one, "shape")->first; n && t->axes < AXES; n = n->next)
            t->shape[t->axes++] = (long)n->value;
        size_t bytes = (size_t)size_of(t) * width_of(t->dtype);
        size_t begin = (size_t)offsets->value;
        if (begin + bytes > size - 8 - header)
            fail("array out of its file:", t->name);
        t->data = memcpy(room(bytes), data + begin, bytes); /* aligned, and ours to change */
    }
    return archive;
}

static void save(const char *path, const Archive *archive)
{
    size_t room_for = 16, begin = 0;
    for (int i = 0; i < archive->count; i++)
        room_for += strlen(archive->tensors[i].name) + 200;
    char *text = room(room_for), *end = text;
    end += sprintf(end, "{");
    for (int i = 0; i < archive->count; i++) {
        Tensor *t = &archive->tensors[i];
        size_t bytes = (size_t)size_of(t) * width_of(t->dtype);
        end += sprintf(end, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", i ? "," : "", t->name, t->dtype);
        for (int j = 0; j < t->axes; j++)
            end += sprintf(end, "%s%ld", j ? "," : "", t->shape[j]);
        end += sprintf(end, "],\"data_offsets\":[%lu,%lu]}", (unsigned long)begin,
                       (unsigned long)(begin + bytes));
        begin += bytes;
    }
    end += sprintf(end, "}");
    while ((end - text) % 8)
        *end++ = ' ';
    uint64_t header = (uint64_t)(end - text);
    FILE *file = fopen(path, "wb");
    if (!file)
        fail("cannot write", path);
    size_t written = fwrite(&header, 8, 1, file) + fwrite(text, header, 1, file);
    for (int i = 0; i < archive->count; i++) {
        Tensor *t = &archive->tensors[i];
        size_t bytes = (size_t)size_of(t) * width_of(t->dtype);
        written += bytes ? fwrite(t->data, bytes, 1, file) : 1;
    }
    if (fclose(file) || written != (size_t)archive->count + 2)
        fail("cannot write", path);
}

/* ------------------------------------------------------------------------------ one question */

typedef struct {
    const char *name, *operation;
    Json *settings;
    const Archive *given;
    Archive *answers;
} Case;

static Tensor *input(Case *c, const char *name)
{
    char *full = joined(c->name, "/", name);
    for (int i = 0; i < c->given->count; i++)
        if (!strcmp(c->given->tensors[i].name, full))
            return &c->given->tensors[i];
    return NULL;
}

static Tensor *needed(Case *c, const char *name)
{
    Tensor *t = input(c, name);
    if (!t)
        fail("no input", joined(c->name, "/", name));
    return t;
}

static void *out(Case *c, const char *name, const char *dtype, int axes, long a, long b, long d)
{
    Tensor *t = &c->answers->tensors[c->answers->count++];
    t->name = joined(c->name, "/", name);
    t->dtype = dtype;
    t->axes = axes;
    t->shape[0] = a;
    t->shape[1] = b;
    t->shape[2] = d;
    return t->data = room((size_t)size_of(t) * width_of(dtype));
}

static double number(Case *c, const char *name)
{
    Json *json = member(c->settings, name);
    if (!json)
        fail("no setting", name);
    return json->value;
}

static const char *word(Case *c, const char *name)
{
    Json *json = member(c->settings, name);
    return json && json->text ? json->text : "";
}

static double hyper(Case *c, const char *name) /* 0 where there is none */
{
    Json *json = member(member(c->settings, "hyper"), name);
    return json ? json->value : 0;
}

/* Whether all settings are among these words: a case that has others asks for more than we do. */
static int only(Case *c, const char *known)
{
    for (Json *one = c->settings->first; one; one = one->next)
        if (!strstr(known, joined(" ", one->name, " ")))
            return 0;
    return 1;
}

static long offset(long n, long p, long c) /* where chunk c of n values on p ranks begins */
{
    return c * (n / p) + (c < n % p ? c : n % p);
}

static long longest(long n, long p)
{
    return (n + p - 1) / p;
}

/* ------------------------------------------------------------------------------ collectives */

typedef struct {
    int p, N, k;     /* ranks; nodes, and ranks on each */
    int *node;       /* of each rank */
    int *place;      /* place[i * k + j]: local rank j of node i */
    const float *x;  /* p vectors of n values */
    long n;
} World;

static float value(const World *w, int rank, long i)
{
    return w->x[rank * w->n + i];
}

static float round_ring(const World *w, int chunk, long i) /* chunk + 1, chunk + 2, ..., chunk */
{
    float sum = value(w, (chunk + 1) % w->p, i);
    for (int j = 2; j <= w->p; j++)
        sum += value(w, (chunk + j) % w->p, i);
    return sum;
}

/* A rank's partners when ranges of ranks are halved: after `level` cuts, whose sums it adds. */
static int sources(int p, int rank, int level, int from[2])
{
    int lo = 0, hi = p, count = 0;
    for (; level >= 0; level--) {
        int mid = (lo + hi + 1) / 2, surplus = (hi - lo) % 2 ? mid - 1 : -1;
        count = 0;
        if (rank >= mid) {
            from[count++] = lo + rank - mid;
            if (surplus >= 0 && rank == hi - 1)
                from[count++] = surplus;
            lo = mid;
        } else {
            if (rank != surplus)
                from[count++] = mid + rank - lo;
            hi = mid;
        }
    }
    return count;
}

static int levels(int p, int rank)
{
    int lo = 0, hi = p, count = 0;
    for (; hi - lo > 1; count++) {
        int mid = (lo + hi + 1) / 2;
        if (rank >= mid)
            lo = mid;
        else
            hi = mid;
    }
    return count;
}

static float halved(const World *w, int rank, int level, long i)
{
    if (level == 0)
        return value(w, rank, i);
    int from[2];
    float sum = halved(w, rank, level - 1, i);
    int count = sources(w->p, rank, level - 1, from);
    for (int s = 0; s < count; s++)
        sum += halved(w, from[s], level - 1, i);
    return sum;
}

/* A binomial tree over leaves[0..p-1], rooted at root: v adds v + 1, v + 2, v + 4, ... */
static float tree(const float *leaves, int p, int root, int v)
{
    float sum = leaves[(v + root) % p];
    for (int bit = 1; v + bit < p && !(v & bit); bit *= 2)
        sum += tree(leaves, p, root, v + bit);
    return sum;
}

static float over_tree(const World *w, int root, long i)
{
    float *leaves = floats(w->p);
    for (int r = 0; r < w->p; r++)
        leaves[r] = value(w, r, i);
    return tree(leaves, w->p, root, 0);
}

static float doubled(const World *w, long i)
{
    int q = 1;
    while (2 * q <= w->p)
        q *= 2;
    int folded = w->p - q;
    float *held = floats(q);
    for (int v = 0; v < q; v++)
        held[v] = v < folded ? value(w, 2 * v, i) + value(w, 2 * v + 1, i)
                             : value(w, folded + v, i);
    for (; q > 1; q /= 2)
        for (int v = 0; v < q / 2; v++)
            held[v] = held[2 * v] + held[2 * v + 1];
    return held[0];
}

static float two_rings(const World *w, int node, int local, long i)
{
    float sum = 0;
    for (int a = 1; a <= w->N; a++) {
        int *members = w->place + (node + a) % w->N * w->k;
        float inside = value(w, members[(local + 1) % w->k], i);
        for (int b = 2; b <= w->k; b++)
            inside += value(w, members[(local + b) % w->k], i);
        sum = a == 1 ? inside : sum + inside;
    }
    return sum;
}

static float two_trees(const World *w, int node, int local, long i)
{
    float *inside = floats(w->N), *leaves = floats(w->k);
    for (int a = 0; a < w->N; a++) {
        for (int b = 0; b < w->k; b++)
            leaves[b] = value(w, w->place[a * w->k + b], i);
        inside[a] = tree(leaves, w->k, local, 0);
    }
    return tree(inside, w->N, node, 0);
}

/* Where a rank sits: node and local index.  Returns 0 if the nodes hold unequal numbers. */
static int seats(World *w)
{
    int most = 0;
    w->N = 0;
    w->place = room(sizeof(int) * (size_t)w->p);
    int filled = 0;
    for (int low = -1;;) { /* nodes in the order of their numbers */
        int next = -1;
        for (int r = 0; r < w->p; r++)
            if (w->node[r] > low && (next < 0 || w->node[r] < next))
                next = w->node[r];
        if (next < 0)
            break;
        int count = 0;
        for (int r = 0; r < w->p; r++)
            if (w->node[r] == next) {
                w->place[filled++] = r;
                count++;
            }
        if (w->N && count != most)
            return 0;
        most = count;
        w->N++;
        low = next;
    }
    w->k = most;
    return 1;
}

static void seat(const World *w, int rank, int *node, int *local)
{
    for (int s = 0; s < w->p; s++)
        if (w->place[s] == rank) {
            *node = s / w->k;
            *local = s % w->k;
        }
}

/* The sum of value i, which is in chunk c of p; for an all-reduce, or of chunk c only. */
static int summed(const World *w, const char *algorithm, int whole, int c, long i, float *sum)
{
    int node = 0, local = 0;
    if (!strcmp(algorithm, "ring")) {
        *sum = round_ring(w, c, i);
    } else if (!strcmp(algorithm, "halving-doubling")) {
        *sum = halved(w, c, levels(w->p, c), i);
    } else if (!strcmp(algorithm, "tree")) {
        *sum = over_tree(w, 0, i);
    } else if (!strcmp(algorithm, "recursive-doubling")) {
        *sum = doubled(w, i);
    } else if (!strcmp(algorithm, "hierarchical")) {
        if (whole) { /* cut into k chunks, each of these into N */
            while (local < w->k - 1 && i >= offset(w->n, w->k, local + 1))
                local++;
            long begin = offset(w->n, w->k, local), size = offset(w->n, w->k, local + 1) - begin;
            while (node < w->N - 1 && i - begin >= offset(size, w->N, node + 1))
                node++;
        } else {
            seat(w, c, &node, &local);
        }
        *sum = two_rings(w, node, local, i);
    } else {
        return 0;
    }
    return 1;
}

static int answer_collective(Case *c)
{
    Tensor *x = needed(c, "x");
    World world = {(int)number(c, "ranks"), 0, 0, NULL, NULL, x->data, x->shape[1]}, *w = &world;
    int p = w->p, r = 0, root = member(c->settings, "root") ? (int)number(c, "root") : 0;
    long n = w->n;
    const char *operation = c->operation, *algorithm = word(c, "algorithm");
    if (!only(c, " algorithm ranks nodes root ") || strcmp(x->dtype, "F32"))
        return 0;
    w->node = room(sizeof(int) * (size_t)p);
    for (Json *node = member(c->settings, "nodes")->first; node && r < p; node = node->next)
        w->node[r++] = (int)node->value;
    if (!seats(w) && !strcmp(algorithm, "hierarchical"))
        return 0;

    if (!strcmp(operation, "reduce")) {
        int node = 0, local = 0, two = !strcmp(algorithm, "hierarchical");
        if (!two && strcmp(algorithm, "tree"))
            return 0;
        if (two)
            seat(w, root, &node, &local);
        float *result = out(c, "result", "F32", 1, n, 0, 0);
        for (long i = 0; i < n; i++)
            result[i] = two ? two_trees(w, node, local, i) : over_tree(w, root, i);
        return 1;
    }
    if (!strcmp(operation, "reduce_scatter")) {
        long most = longest(n, p);
        float *result = out(c, "result", "F32", 2, p, most, 0), unused;
        if (!summed(w, algorithm, 0, 0, 0, n ? result : &unused) && n)
            return c->answers->count--, 0;
        for (r = 0; r < p; r++)
            for (long i = offset(n, p, r); i < offset(n, p, r + 1); i++)
                summed(w, algorithm, 0, r, i, &result[r * most + i - offset(n, p, r)]);
        return 1;
    }
    if (!strcmp(operation, "alltoall")) {
        long most = longest(n, p) * p;
        float *result = out(c, "result", "F32", 2, p, most, 0);
        for (r = 0; r < p; r++) {
            float *to = result + r * most;
            for (int q = 0; q < p; q++)
                for (long i = offset(n, p, r); i < offset(n, p, r + 1); i++)
                    *to++ = value(w, q, i);
        }
        return 1;
    }
    float *result = out(c, "result", "F32", 2, p, n, 0);
    for (int chunk = 0; chunk < p; chunk++)
        for (long i = offset(n, p, chunk); i < offset(n, p, chunk + 1); i++) {
            float one = 0;
            if (!strcmp(operation, "allgather"))
                one = value(w, chunk, i);
            else if (!strcmp(operation, "broadcast"))
                one = value(w, root, i);
            else if (!summed(w, algorithm, 1, chunk, i, &one))
                return c->answers->count--, 0;
            for (r = 0; r < p; r++)
                result[r * n + i] = one;
        }
    return 1;
}

/* ---------------------------------------------------------------------------------------- GTC */

static long gtc_encode(float *residual, const float *gradient, long n, float tau, uint32_t *words)
{
    long m = 0;
    for (long i = 0; i < n; i++) {
        residual[i] += gradient[i];
        if (residual[i] > tau) {
            residual[i] -= tau;
            words[m++] = (uint32_t)i << 1 | 1;
        } else if (residual[i] < -tau) {
            residual[i] += tau;
            words[m++] = (uint32_t)i << 1;
        }
    }
    return m;
}

typedef struct {
    unsigned char *to;
    long bits;
} Bits;

static void put(Bits *bits, uint32_t value, int count) /* most significant bit first */
{
    for (int b = count - 1; b >= 0; b--, bits->bits++)
        if (value >> b & 1)
            bits->to[bits->bits / 8] |= (unsigned char)(128 >> bits->bits % 8);
}

static uint32_t take(Bits *bits, int count)
{
    uint32_t value = 0;
    for (int b = 0; b < count; b++, bits->bits++)
        value = value << 1 | (bits->to[bits->bits / 8] >> (7 - bits->bits % 8) & 1);
    return value;
}

static void fill_byte(Bits *bits)
{
    bits->bits = (bits->bits + 7) / 8 * 8;
}

static int rice_parameter(long m, long n) /* floor(log2(floor(n / m))), 0 for m = 0 */
{
    int k = 0;
    for (long ratio = m ? n / m : 1; ratio > 1; ratio /= 2)
        k++;
    return k;
}

enum { INDEX, TWO_BIT, RICE, HEADER = 24 };

static long gtc_bytes(const uint32_t *words, long m, long n, int format)
{
    if (format == INDEX)
        return HEADER + 4 * m;
    if (format == TWO_BIT)
        return HEADER + (2 * n + 7) / 8;
    int k = rice_parameter(m, n);
    long quotients = m, before = -1;
    for (long e = 0; e < m; before = words[e++] >> 1)
        quotients += ((long)(words[e] >> 1) - before - 1) >> k;
    return HEADER + (m + 7) / 8 + (m * k + 7) / 8 + (quotients + 7) / 8;
}

static int gtc_format(const char *name, const uint32_t *words, long m, long n)
{
    if (!strcmp(name, "auto") || !strcmp(name, "smallest")) {
        int best = INDEX;
        for (int format = TWO_BIT; format <= (name[0] == 's' ? RICE : TWO_BIT); format++)
            if (gtc_bytes(words, m, n, format) < gtc_bytes(words, m, n, best))
                best = format;
        return best;
    }
    return !strcmp(name, "index") ? INDEX : !strcmp(name, "two-bit") ? TWO_BIT : RICE;
}

static void gtc_write(const uint32_t *words, long m, long n, double tau, int format,
                      unsigned char *message)
{
    int k = format == RICE ? rice_parameter(m, n) : 0;
    uint32_t values = (uint32_t)n, entries = (uint32_t)m;
    memcpy(message, "GTC1", 4);
    message[4] = (unsigned char)format;
    message[5] = (unsigned char)k;
    memcpy(message + 8, &values, 4);
    memcpy(message + 12, &entries, 4);
    memcpy(message + 16, &tau, 8);
    Bits bits = {message + HEADER, 0};
    if (format == INDEX) {
        memcpy(message + HEADER, words, 4 * (size_t)m);
    } else if (format == TWO_BIT) {
        for (long e = 0; e < m; e++) {
            bits.bits = 2 * (long)(words[e] >> 1);
            put(&bits, 2 | (words[e] & 1), 2);
        }
    } else {
        for (long e = 0; e < m; e++)
            put(&bits, words[e] & 1, 1);
        fill_byte(&bits);
        long before = -1;
        for (long e = 0; e < m; before = words[e++] >> 1)
            put(&bits, (uint32_t)((long)(words[e] >> 1) - before - 1), k);
        fill_byte(&bits);
        before = -1;
        for (long e = 0; e < m; before = words[e++] >> 1) {
            bits.bits += ((long)(words[e] >> 1) - before - 1) >> k;
            put(&bits, 1, 1);
        }
    }
}

static long gtc_read(unsigned char *message, uint32_t *words)
{
    uint32_t n, m;
    memcpy(&n, message + 8, 4);
    memcpy(&m, message + 12, 4);
    int k = message[5];
    Bits bits = {message + HEADER, 0};
    if (message[4] == INDEX) {
        memcpy(words, message + HEADER, 4 * (size_t)m);
    } else if (message[4] == TWO_BIT) {
        uint32_t *to = words;
        for (uint32_t i = 0; i < n; i++) {
            uint32_t code = take(&bits, 2);
            if (code & 2)
                *to++ = i << 1 | (code & 1);
        }
    } else {
        for (uint32_t e = 0; e < m; e++)
            words[e] = take(&bits, 1);
        fill_byte(&bits);
        uint32_t *gaps = room(sizeof(uint32_t) * m), index = (uint32_t)-1;
        for (uint32_t e = 0; e < m; e++)
            gaps[e] = take(&bits, k);
        fill_byte(&bits);
        for (uint32_t e = 0; e < m; e++) {
            while (!take(&bits, 1))
                gaps[e] += (uint32_t)1 << k;
            index += gaps[e] + 1;
            words[e] |= index << 1;
        }
    }
    return (long)m;
}

static int answer_gtc_encode(Case *c)
{
    Tensor *gradient = needed(c, "gradient");
    long steps = gradient->shape[0], n = gradient->shape[1], most = 0;
    if (strcmp(gradient->dtype, "F32") || !only(c, " tau "))
        return 0;
    float *residual = needed(c, "residual")->data, *g = gradient->data;
    uint32_t *words = room(sizeof(uint32_t) * (size_t)(steps * n));
    int64_t *entries = out(c, "entries", "I64", 1, steps, 0, 0);
    float *after = out(c, "residual_after", "F32", 2, steps, n, 0);
    for (long s = 0; s < steps; s++) {
        entries[s] = gtc_encode(residual, g + s * n, n, (float)number(c, "tau"), words + s * n);
        memcpy(after + s * n, residual, sizeof(float) * (size_t)n);
        most = entries[s] > most ? entries[s] : most;
    }
    uint32_t *said = out(c, "words", "U32", 2, steps, most, 0);
    for (long s = 0; s < steps; s++)
        memcpy(said + s * most, words + s * n, sizeof(uint32_t) * (size_t)entries[s]);
    return 1;
}

static int answer_gtc_message(Case *c)
{
    Tensor *words = needed(c, "words");
    long m = words->shape[0], n = (long)number(c, "n");
    int format = gtc_format(word(c, "format"), words->data, m, n);
    void *message = out(c, "message", "U8", 1, gtc_bytes(words->data, m, n, format), 0, 0);
    gtc_write(words->data, m, n, number(c, "tau"), format, message);
    return 1;
}

static int answer_gtc_decode(Case *c)
{
    long n = (long)number(c, "n");
    uint32_t *words = room(sizeof(uint32_t) * (size_t)n);
    long m = gtc_read(needed(c, "message")->data, words);
    memcpy(out(c, "words", "U32", 1, m, 0, 0), words, sizeof(uint32_t) * (size_t)m);
    float *values = out(c, "values", "F32", 1, n, 0, 0), tau = (float)number(c, "tau");
    for (long e = 0; e < m; e++)
        values[words[e] >> 1] = words[e] & 1 ? tau : -tau;
    return 1;
}

/* A step of p ranks with n values each: residuals go on, total (n,) is what all get. */
typedef struct {
    unsigned char **message; /* of each rank */
    long *size;
} Messages;

static Messages gtc_step(float **residual, float **gradient, int p, long n, float tau,
                         const char *format, float *total)
{
    Messages sent = {room(sizeof(char *) * (size_t)p), room(sizeof(long) * (size_t)p)};
    uint32_t *words = room(sizeof(uint32_t) * (size_t)n);
    int32_t *count = room(sizeof(int32_t) * (size_t)n);
    for (int r = 0; r < p; r++) {
        long m = gtc_encode(residual[r], gradient[r], n, tau, words);
        int chosen = gtc_format(format, words, m, n);
        sent.size[r] = gtc_bytes(words, m, n, chosen);
        sent.message[r] = room((size_t)sent.size[r]);
        gtc_write(words, m, n, tau, chosen, sent.message[r]);
        m = gtc_read(sent.message[r], words); /* as every rank does that gets it */
        for (long e = 0; e < m; e++)
            count[words[e] >> 1] += words[e] & 1 ? 1 : -1;
    }
    for (long i = 0; i < n; i++)
        total[i] = (float)count[i] * tau;
    return sent;
}

/* Answer with messages of all steps and ranks, filled up with zeros to the longest. */
static void out_messages(Case *c, const Messages *sent, long steps, int p)
{
    long most = 0;
    int64_t *sizes = out(c, "message_size", "I64", 2, steps, p, 0);
    for (long s = 0; s < steps; s++)
        for (int r = 0; r < p; r++) {
            sizes[s * p + r] = sent[s].size[r];
            most = sent[s].size[r] > most ? sent[s].size[r] : most;
        }
    unsigned char *bytes = out(c, "message", "U8", 3, steps, p, most);
    for (long s = 0; s < steps; s++)
        for (int r = 0; r < p; r++)
            memcpy(bytes + (s * p + r) * most, sent[s].message[r], (size_t)sent[s].size[r]);
}

static int answer_gtc_exchange(Case *c)
{
    Tensor *gradient = needed(c, "gradient");
    long steps = gradient->shape[0], p = gradient->shape[1], n = gradient->shape[2];
    if (strcmp(gradient->dtype, "F32") || !only(c, " tau format ranks "))
        return 0;
    float *residual = out(c, "residual", "F32", 3, steps, p, n);
    float *total = out(c, "total", "F32", 3, steps, p, n);
    float **own = room(sizeof(float *) * (size_t)p), **mine = room(sizeof(float *) * (size_t)p);
    Messages *sent = room(sizeof(Messages) * (size_t)steps);
    for (long r = 0; r < p; r++)
        own[r] = floats(n);
    for (long s = 0; s < steps; s++) {
        float *sum = total + s * p * n;
        for (long r = 0; r < p; r++)
            mine[r] = (float *)gradient->data + (s * p + r) * n;
        sent[s] = gtc_step(own, mine, (int)p, n, (float)number(c, "tau"), word(c, "format"), sum);
        for (long r = 0; r < p; r++) {
            memcpy(residual + (s * p + r) * n, own[r], sizeof(float) * (size_t)n);
            memmove(sum + r * n, sum, sizeof(float) * (size_t)n);
        }
    }
    out_messages(c, sent, steps, (int)p);
    return 1;
}

static int answer_gtc_adapt(Case *c)
{
    Tensor *entries = needed(c, "entries");
    double tau = number(c, "tau"), target = number(c, "target") * number(c, "n");
    double *after = out(c, "tau", "F64", 1, entries->shape[0], 0, 0);
    const double factor = 0.9659363289248456;
    for (long s = 0; s < entries->shape[0]; s++) {
        double sent = (double)((int64_t *)entries->data)[s];
        if (sent > target)
            tau /= factor;
        else if (sent < target)
            tau *= factor;
        tau = fmin(fmax(tau, FLT_MIN), FLT_MAX);
        after[s] = tau = (float)tau; /* rounded before the next step */
    }
    return 1;
}

static int answer_gtc_sparse(Case *c)
{
    Tensor *value = needed(c, "value");
    long steps = value->shape[0], told = value->shape[1], n = (long)number(c, "n");
    long most = 0, most_bytes = 0;
    if (strcmp(value->dtype, "F32") || !only(c, " n tau format "))
        return 0;
    int64_t *index = needed(c, "index")->data;
    float *residual = floats(n), *gradient = floats(n), tau = (float)number(c, "tau");
    uint32_t *words = room(sizeof(uint32_t) * (size_t)(steps * n));
    int64_t *entries = out(c, "entries", "I64", 1, steps, 0, 0);
    int64_t *sizes = out(c, "message_size", "I64", 1, steps, 0, 0);
    float *at_index = out(c, "residual_at", "F32", 2, steps, told, 0);
    int *format = room(sizeof(int) * (size_t)steps);
    for (long s = 0; s < steps; s++) {
        for (long e = 0; e < told; e++)
            gradient[index[e]] = ((float *)value->data)[s * told + e];
        long m = entries[s] = gtc_encode(residual, gradient, n, tau, words + s * n);
        format[s] = gtc_format(word(c, "format"), words + s * n, m, n);
        sizes[s] = gtc_bytes(words + s * n, m, n, format[s]);
        most = m > most ? m : most;
        most_bytes = sizes[s] > most_bytes ? sizes[s] : most_bytes;
        for (long e = 0; e < told; e++)
            at_index[s * told + e] = residual[index[e]];
    }
    uint32_t *said = out(c, "words", "U32", 2, steps, most, 0);
    unsigned char *message = out(c, "message", "U8", 2, steps, most_bytes, 0);
    for (long s = 0; s < steps; s++) {
        memcpy(said + s * most, words + s * n, sizeof(uint32_t) * (size_t)entries[s]);
        gtc_write(words + s * n, entries[s], n, tau, format[s], message + s * most_bytes);
    }
    return 1;
}

static int answer_gtc_total(Case *c)
{
    Tensor *message = needed(c, "message");
    long ranks = message->shape[0], n = (long)number(c, "n");
    uint32_t *words = room(sizeof(uint32_t) * (size_t)n);
    long *sum = room(sizeof(long) * (size_t)n);
    float *total = out(c, "total", "F32", 1, n, 0, 0), tau = (float)number(c, "tau");
    for (long r = 0; r < ranks; r++) {
        long m = gtc_read((unsigned char *)message->data + r * message->shape[1], words);
        for (long e = 0; e < m; e++)
            sum[words[e] >> 1] += words[e] & 1 ? 1 : -1;
    }
    for (long i = 0; i < n; i++)
        total[i] = (float)sum[i] * tau;
    return 1;
}

/* Whether these bytes are what is written for n values and tau: read, and written again, they
   are the same. */
static int gtc_is_message(const unsigned char *bytes, long size, long n, double tau)
{
    uint32_t values, m;
    if (size < HEADER || memcmp(bytes, "GTC1", 4) || bytes[4] > RICE || bytes[6] || bytes[7])
        return 0;
    memcpy(&values, bytes + 8, 4);
    memcpy(&m, bytes + 12, 4);
    if (values != (uint32_t)n || m > values || memcmp(bytes + 16, &tau, 8) ||
        bytes[5] != (bytes[4] == RICE ? rice_parameter((long)m, n) : 0))
        return 0;
    size_t more = 8 * ((size_t)n + 8); /* ones, at which a reader comes to its end */
    unsigned char *copy = room((size_t)size + more);
    memcpy(copy, bytes, (size_t)size);
    memset(copy + size, 255, more);
    uint32_t *words = room(sizeof(uint32_t) * (size_t)(n + 1));
    gtc_read(copy, words);
    for (uint32_t e = 0; e < m; e++)
        if (words[e] >> 1 >= values || (e && words[e] >> 1 <= words[e - 1] >> 1))
            return 0;
    if (gtc_bytes(words, (long)m, n, bytes[4]) != size)
        return 0;
    unsigned char *again = room((size_t)size);
    gtc_write(words, (long)m, n, tau, bytes[4], again);
    return !memcmp(again, bytes, (size_t)size);
}

static int answer_gtc_accepts(Case *c)
{
    Tensor *message = needed(c, "message");
    int64_t *sizes = needed(c, "message_size")->data;
    int64_t *accepted = out(c, "accepted", "I64", 1, message->shape[0], 0, 0);
    for (long i = 0; i < message->shape[0]; i++)
        accepted[i] = gtc_is_message((unsigned char *)message->data + i * message->shape[1],
                                     (long)sizes[i], (long)number(c, "n"), number(c, "tau"));
    return 1;
}

/* --------------------------------------------------------------------- one bit per value, top-k */

static float onebit_encode(float *x, long n, unsigned char *message)
{
    double sum = 0;
    for (long i = 0; i < n; i++)
        sum += fabs(x[i]);
    float scale = n ? (float)(sum / (double)n) : 0;
    double wide = scale;
    memcpy(message, &wide, 8);
    Bits bits = {message + 8, 0};
    for (long i = 0; i < n; i++) {
        int plus = x[i] >= 0;
        put(&bits, (uint32_t)plus, 1);
        x[i] -= plus ? scale : -scale;
    }
    return scale;
}

static void onebit_add(const unsigned char *message, float *to, long n)
{
    double scale;
    memcpy(&scale, message, 8);
    for (long i = 0; i < n; i++)
        to[i] += message[8 + i / 8] >> (7 - i % 8) & 1 ? (float)scale : -(float)scale;
}

static int answer_onebit_encode(Case *c)
{
    Tensor *x = needed(c, "x");
    long n = x->shape[0];
    if (strcmp(x->dtype, "F32"))
        return 0;
    onebit_encode(x->data, n, out(c, "message", "U8", 1, 8 + (n + 7) / 8, 0, 0));
    memcpy(out(c, "residual", "F32", 1, n, 0, 0), x->data, sizeof(float) * (size_t)n);
    return 1;
}

static int answer_onebit_allreduce(Case *c)
{
    Tensor *gradient = needed(c, "gradient");
    long steps = gradient->shape[0], p = gradient->shape[1], n = gradient->shape[2];
    long most = longest(n, p);
    if (strcmp(gradient->dtype, "F32") || !only(c, " ranks "))
        return 0;
    float *residual = out(c, "residual", "F32", 3, steps, p, n), *own = floats(p * n);
    float *owned = out(c, "owned", "F32", 3, steps, p, most), *debt = floats(p * most);
    float *result = out(c, "result", "F32", 3, steps, p, n);
    for (long s = 0; s < steps; s++) {
        for (long i = 0; i < p * n; i++)
            own[i] += ((float *)gradient->data)[s * p * n + i];
        for (long j = 0; j < p; j++) { /* chunk j, its owner being rank j */
            long begin = offset(n, p, j), size = offset(n, p, j + 1) - begin;
            for (long r = 0; r < p; r++) {
                unsigned char *message = room(8 + (size_t)(size + 7) / 8);
                onebit_encode(own + r * n + begin, size, message);
                onebit_add(message, debt + j * most, size);
            }
            unsigned char *message = room(8 + (size_t)(size + 7) / 8);
            onebit_encode(debt + j * most, size, message);
            for (long r = 0; r < p; r++)
                onebit_add(message, result + (s * p + r) * n + begin, size);
        }
        memcpy(residual + s * p * n, own, sizeof(float) * (size_t)(p * n));
        memcpy(owned + s * p * most, debt, sizeof(float) * (size_t)(p * most));
    }
    return 1;
}

static int answer_onebit_accepts(Case *c)
{
    Tensor *message = needed(c, "message");
    int64_t *sizes = needed(c, "message_size")->data;
    int64_t *accepted = out(c, "accepted", "I64", 1, message->shape[0], 0, 0);
    long n = (long)number(c, "n");
    for (long i = 0; i < message->shape[0]; i++) {
        const unsigned char *bytes = (unsigned char *)message->data + i * message->shape[1];
        double scale = 0;
        if (sizes[i] != 8 + (n + 7) / 8)
            continue;
        memcpy(&scale, bytes, 8);
        accepted[i] = !(scale < 0) && !(n % 8 && bytes[sizes[i] - 1] & 255 >> n % 8);
    }
    return 1;
}

/* The places (rising) of the most largest magnitudes of x (n,); of equal ones the first. */
static void largest(const float *x, long n, long most, uint16_t *places)
{
    char *taken = room((size_t)n);
    for (long e = 0; e < most; e++) {
        long best = 0;
        while (taken[best])
            best++;
        for (long i = best + 1; i < n; i++)
            if (!taken[i] && fabsf(x[i]) > fabsf(x[best]))
                best = i;
        taken[best] = 1;
    }
    for (long i = 0, e = 0; i < n; i++)
        if (taken[i])
            places[e++] = (uint16_t)i;
}

static int answer_topk_exchange(Case *c)
{
    Tensor *gradient = needed(c, "gradient");
    long steps = gradient->shape[0], p = gradient->shape[1], n = gradient->shape[2];
    long most = (long)number(c, "most"), length = (long)number(c, "length");
    long chunks = (n + length - 1) / length, E = 0;
    int two_bit = (int)number(c, "two_bit"), over_senders = (int)number(c, "over_senders");
    float decay = (float)number(c, "decay");
    if (strcmp(gradient->dtype, "F32") || !only(c, " most length decay two_bit over_senders ranks "))
        return 0;
    for (long k = 0; k < chunks; k++) {
        long size = k < chunks - 1 ? length : n - k * length;
        E += most < size ? most : size;
    }
    long bytes = 2 * E + (two_bit ? 2 * chunks + (2 * E + 7) / 8 : 4 * E);
    unsigned char *message = out(c, "message", "U8", 3, steps, p, bytes);
    float *residual = out(c, "residual", "F32", 3, steps, p, n), *own = floats(p * n);
    float *total = out(c, "total", "F32", 3, steps, p, n);
    for (long s = 0; s < steps; s++) {
        float *sum = floats(n);
        long *senders = room(sizeof(long) * (size_t)n);
        for (long r = 0; r < p; r++, message += bytes) {
            float *mine = own + r * n;
            for (long i = 0; i < n; i++) {
                mine[i] *= decay;
                mine[i] += ((float *)gradient->data)[(s * p + r) * n + i];
            }
            Bits codes = {message + 2 * E + 2 * chunks, 0};
            for (long k = 0, e = 0; k < chunks; k++) {
                long size = k < chunks - 1 ? length : n - k * length;
                long count = most < size ? most : size;
                float *chunk = mine + k * length, top = 0, t = 0;
                uint16_t *places = room(sizeof(uint16_t) * (size_t)count);
                largest(chunk, size, count, places);
                memcpy(message + 2 * e, places, 2 * (size_t)count);
                if (two_bit) {
                    int log2 = -32768;
                    for (long j = 0; j < count; j++)
                        top = fmaxf(top, fabsf(chunk[places[j]]));
                    if (top >= 1.17549435e-38f) {
                        frexpf(top, &log2);
                        t = ldexpf(1, --log2);
                    }
                    int16_t said = (int16_t)log2;
                    memcpy(message + 2 * E + 2 * k, &said, 2);
                }
                for (long j = 0; j < count; j++, e++) {
                    float v = chunk[places[j]];
                    if (two_bit) {
                        int minus = v < 0, large = fabsf(v) >= t;
                        put(&codes, (uint32_t)(2 * minus + large), 2);
                        v = (minus ? -1 : 1) * (large ? 1.5f : 0.5f) * t;
                    } else {
                        memcpy(message + 2 * E + 4 * e, &v, 4);
                    }
                    chunk[places[j]] -= v;
                    sum[k * length + places[j]] += v;
                    senders[k * length + places[j]]++;
                }
            }
        }
        for (long i = 0; over_senders && i < n; i++)
            if (senders[i])
                sum[i] = sum[i] * (float)p / (float)senders[i];
        memcpy(residual + s * p * n, own, sizeof(float) * (size_t)(p * n));
        for (long r = 0; r < p; r++)
            memcpy(total + (s * p + r) * n, sum, sizeof(float) * (size_t)n);
    }
    return 1;
}

static int topk_is_message(const unsigned char *bytes, long size, long n, long most, long length,
                           int two_bit)
{
    long chunks = (n + length - 1) / length, E = 0;
    for (long k = 0; k < chunks; k++) {
        long of = k < chunks - 1 ? length : n - k * length, before = -1;
        for (long e = 0; e < (most < of ? most : of); e++, E++) {
            uint16_t place;
            if (size < 2 * E + 2)
                return 0;
            memcpy(&place, bytes + 2 * E, 2);
            if (place <= before || place >= of)
                return 0;
            before = place;
        }
    }
    if (size != 2 * E + (two_bit ? 2 * chunks + (2 * E + 7) / 8 : 4 * E))
        return 0;
    for (long k = 0; two_bit && k < chunks; k++) {
        int16_t log2;
        memcpy(&log2, bytes + 2 * E + 2 * k, 2);
        if (log2 != -32768 && (log2 < -126 || log2 > 127))
            return 0;
    }
    return !(two_bit && 2 * E % 8 && bytes[size - 1] & 255 >> 2 * E % 8);
}

static int answer_topk_accepts(Case *c)
{
    Tensor *message = needed(c, "message");
    int64_t *sizes = needed(c, "message_size")->data;
    int64_t *accepted = out(c, "accepted", "I64", 1, message->shape[0], 0, 0);
    for (long i = 0; i < message->shape[0]; i++)
        accepted[i] = topk_is_message((unsigned char *)message->data + i * message->shape[1],
                                      (long)sizes[i], (long)number(c, "n"),
                                      (long)number(c, "most"), (long)number(c, "length"),
                                      (int)number(c, "two_bit"));
    return 1;
}

/* ------------------------------------------------------------------------------------- blocks */

static int answer_bmuf(Case *c)
{
    Tensor *found = needed(c, "found");
    long blocks = found->shape[0], b = found->shape[1], n = found->shape[2];
    float *W = needed(c, "initial")->data, *D = floats(n), *start = floats(n);
    float eta = (float)(1 - 1 / (double)b), zeta = (float)number(c, "zeta");
    int nesterov = (int)number(c, "nesterov");
    if (member(c->settings, "eta")->kind != 'n')
        eta = (float)number(c, "eta");
    float *model = out(c, "model", "F32", 2, blocks, n, 0);
    float *update = out(c, "update", "F32", 2, blocks, n, 0);
    float *next = out(c, "start", "F32", 2, blocks, n, 0);
    memcpy(start, W, sizeof(float) * (size_t)n);
    for (long t = 0; t < blocks; t++)
        for (long i = 0; i < n; i++) {
            float sum = 0;
            for (long m = 0; m < b; m++) /* found is a way from the start, not a model */
                sum += start[i] + ((float *)found->data)[(t * b + m) * n + i];
            float G = sum / (float)b - start[i];
            D[i] = eta * D[i] + zeta * G;
            W[i] += D[i];
            start[i] = nesterov ? W[i] + eta * D[i] : W[i];
            model[t * n + i] = W[i];
            update[t * n + i] = D[i];
            next[t * n + i] = start[i];
        }
    return 1;
}

static int answer_outer_sgd(Case *c)
{
    Tensor *found = needed(c, "found");
    long blocks = found->shape[0], b = found->shape[1], n = found->shape[2];
    float *W = needed(c, "initial")->data, *u = floats(n);
    float rate = (float)number(c, "rate"), mu = (float)number(c, "momentum");
    float *model = out(c, "model", "F32", 2, blocks, n, 0);
    float *memory = out(c, "memory", "F32", 2, blocks, n, 0);
    for (long t = 0; t < blocks; t++)
        for (long i = 0; i < n; i++) {
            float sum = 0;
            for (long m = 0; m < b; m++)
                sum += W[i] + ((float *)found->data)[(t * b + m) * n + i];
            float a = W[i] - sum / (float)b;
            u[i] = mu * u[i] + a;
            W[i] -= rate * (a + mu * u[i]);
            model[t * n + i] = W[i];
            memory[t * n + i] = u[i];
        }
    return 1;
}

/* ------------------------------------------------------------------------------------- layers */

static int answer_affine(Case *c)
{
    Tensor *tx = needed(c, "x"), *tw = needed(c, "w");
    long B = tx->shape[0], I = tw->shape[0], O = tw->shape[1];
    float *x = tx->data, *w = tw->data, *b = needed(c, "b")->data, *dy = needed(c, "dy")->data;
    float *y = out(c, "y", "F32", 2, B, O, 0), *dw = out(c, "dw", "F32", 2, I, O, 0);
    float *db = out(c, "db", "F32", 1, O, 0, 0), *dx = out(c, "dx", "F32", 2, B, I, 0);
    for (long r = 0; r < B; r++)
        for (long o = 0; o < O; o++) {
            y[r * O + o] = b[o];
            db[o] += dy[r * O + o];
            for (long i = 0; i < I; i++) {
                y[r * O + o] += x[r * I + i] * w[i * O + o];
                dw[i * O + o] += x[r * I + i] * dy[r * O + o];
                dx[r * I + i] += dy[r * O + o] * w[i * O + o];
            }
        }
    return 1;
}

static int answer_curve(Case *c)
{
    Tensor *tx = needed(c, "x");
    float *x = tx->data, *dy = needed(c, "dy")->data;
    float *y = out(c, "y", "F32", 2, tx->shape[0], tx->shape[1], 0);
    float *dx = out(c, "dx", "F32", 2, tx->shape[0], tx->shape[1], 0);
    for (long i = 0; i < size_of(tx); i++)
        if (!strcmp(c->operation, "relu")) {
            y[i] = x[i] > 0 ? x[i] : 0;
            dx[i] = x[i] > 0 ? dy[i] : 0;
        } else if (!strcmp(c->operation, "sigmoid")) {
            y[i] = 1 / (1 + expf(-x[i]));
            dx[i] = dy[i] * y[i] * (1 / (1 + expf(x[i]))); /* 1 - y would cancel */
        } else {
            y[i] = tanhf(x[i]);
            dx[i] = (float)(dy[i] / pow(cosh(x[i]), 2)); /* 1 - y^2 would cancel */
        }
    return 1;
}

static int answer_softmax_cross_entropy(Case *c)
{
    Tensor *logits = needed(c, "logits");
    long B = logits->shape[0], C = logits->shape[1];
    int64_t *labels = needed(c, "labels")->data;
    float *dlogits = out(c, "dlogits", "F32", 2, B, C, 0), *loss = out(c, "loss", "F32", 0, 0, 0, 0);
    double total = 0;
    for (long r = 0; r < B; r++) {
        float *row = (float *)logits->data + r * C, top = row[0];
        double sum = 0;
        for (long k = 0; k < C; k++)
            top = fmaxf(top, row[k]);
        for (long k = 0; k < C; k++)
            sum += exp((double)row[k] - top);
        for (long k = 0; k < C; k++)
            dlogits[r * C + k] =
                (float)(exp((double)row[k] - top) / sum - (k == (long)labels[r] ? 1 : 0));
        total += log(sum) - ((double)row[labels[r]] - top);
    }
    *loss = (float)total;
    return 1;
}

/* --------------------------------------------------------------------------------- optimizers */

/* One step on n values, t = 1, 2, ...; a and b are the states: v, or m and v. */
static int step(Case *c, const char *name, double lr, double scale, long t, long n, double *w,
                const double *gradient, double *a, double *b)
{
    double decay = hyper(c, "weight_decay"), mu = hyper(c, "momentum");
    double beta1 = hyper(c, "beta1"), beta2 = hyper(c, "beta2");
    int adamw = !strcmp(name, "adamw"), adam = adamw || !strcmp(name, "adam");
    int nesterov = !strcmp(name, "nesterov");
    if (!adam && !nesterov && strcmp(name, "sgd") && strcmp(name, "momentum"))
        return 0;
    for (long i = 0; i < n; i++) {
        double g = scale * gradient[i] + (adamw ? 0 : decay * w[i]);
        if (adam) {
            w[i] -= adamw ? lr * decay * w[i] : 0;
            a[i] = beta1 * a[i] + (1 - beta1) * g;
            b[i] = beta2 * b[i] + (1 - beta2) * g * g;
            double root = sqrt(b[i] / (1 - pow(beta2, (double)t))) + hyper(c, "eps");
            w[i] -= lr / (1 - pow(beta1, (double)t)) * a[i] / root;
        } else {
            a[i] = mu * a[i] + g;
            w[i] -= lr * (nesterov ? g + mu * a[i] : a[i]);
        }
    }
    return 1;
}

static void rounded(float *to, const double *from, long n)
{
    for (long i = 0; i < n; i++)
        to[i] = (float)from[i];
}

static double *widened(const float *from, long n)
{
    double *to = room(sizeof(double) * (size_t)n);
    for (long i = 0; i < n; i++)
        to[i] = from[i];
    return to;
}

static int answer_optimizer(Case *c)
{
    Tensor *gradient = needed(c, "gradient");
    long steps = gradient->shape[0], n = gradient->shape[1];
    const char *name = word(c, "name");
    double *w = widened(needed(c, "w")->data, n), *a = widened(floats(n), n), *b = widened(floats(n), n);
    int adam = !strncmp(name, "adam", 4), plain = !strcmp(name, "sgd");
    float *after = out(c, "w_after", "F32", 2, steps, n, 0), *first = NULL, *second = NULL;
    if (!plain)
        first = out(c, adam ? "first" : "momentum", "F32", 2, steps, n, 0);
    if (adam)
        second = out(c, "second", "F32", 2, steps, n, 0);
    for (long s = 0; s < steps; s++) {
        double *g = widened((float *)gradient->data + s * n, n);
        if (!step(c, name, number(c, "lr"), number(c, "scale"), s + 1, n, w, g, a, b))
            return c->answers->count -= 1 + !plain + adam, 0;
        rounded(after + s * n, w, n);
        if (first)
            rounded(first + s * n, a, n);
        if (second)
            rounded(second + s * n, b, n);
    }
    return 1;
}

static int answer_clipping(Case *c)
{
    Tensor *gradient = needed(c, "gradient");
    float *g = gradient->data, *norm = out(c, "norm", "F32", 0, 0, 0, 0);
    float *clipped = out(c, "clipped", "F32", 2, gradient->shape[0], gradient->shape[1], 0);
    double squares = 0, most = number(c, "max_norm");
    for (long i = 0; i < size_of(gradient); i++)
        squares += (double)g[i] * g[i];
    double length = sqrt(squares), factor = length > most ? most / length : 1;
    *norm = (float)length;
    for (long i = 0; i < size_of(gradient); i++)
        clipped[i] = (float)(g[i] * factor);
    return 1;
}

static int answer_learning_rate(Case *c)
{
    long per = (long)number(c, "steps_per_epoch"), steps = (long)number(c, "steps");
    double lr = number(c, "lr"), decay = hyper(c, "decay"), factor = 1, best = INFINITY;
    double warmup = hyper(c, "warmup") * (double)per;
    const char *name = word(c, "name");
    int halving = 0;
    Tensor *loss = input(c, "loss");
    float *rate = out(c, "rate", "F32", 1, steps, 0, 0);
    int64_t *accepted = NULL, *stopped = NULL;
    if (loss) {
        accepted = out(c, "accepted", "I64", 1, loss->shape[0], 0, 0);
        stopped = out(c, "stopped", "I64", 1, loss->shape[0], 0, 0);
    }
    for (long s = 0; s < steps; s++) {
        double line = warmup > 0 && s + 1 < warmup ? (double)(s + 1) / warmup : 1;
        if (!strcmp(name, "step"))
            factor = pow(decay, floor((double)s / (hyper(c, "every") * (double)per)));
        if (!strcmp(name, "exponential"))
            factor = pow(decay, (double)s / (double)per);
        rate[s] = (float)(lr * line * factor);
        if (!loss || (s + 1) % per)
            continue;
        double now = ((double *)loss->data)[s / per], improvement = 0;
        if (now < best) {
            improvement = best < INFINITY ? (best - now) / best : 1;
            best = now;
            accepted[s / per] = 1;
        }
        if (halving && improvement < hyper(c, "stop")) {
            stopped[s / per] = 1;
            continue;
        }
        halving = halving || improvement < hyper(c, "start");
        factor *= halving ? decay : 1;
    }
    return 1;
}

static int answer_fixed_point(Case *c)
{
    Tensor *x = needed(c, "x");
    long terms = x->shape[0], n = x->shape[1];
    int bits = (int)number(c, "bits");
    int64_t *encoded = out(c, "encoded", "I64", 2, terms, n, 0);
    int64_t *total = out(c, "total", "I64", 1, n, 0, 0);
    float *decoded = out(c, "decoded", "F32", 1, n, 0, 0);
    for (long i = 0; i < terms * n; i++) {
        encoded[i] = llrint(ldexp(((float *)x->data)[i], bits)); /* half to even */
        total[i % n] += encoded[i];
    }
    for (long i = 0; i < n; i++)
        decoded[i] = (float)ldexp((double)total[i], -bits);
    return 1;
}

/* ----------------------------------------------------------------------------------- training */

/* One block, sums or GTC; a shard has piece s of every unit.  Ranks are (member g, shard p). */
static int answer_train(Case *c)
{
    const char *known = " strategy grid stage gradient units microsteps frames collectives "
                        "optimizer hyper lr exact gtc ";
    Json *grid = member(c->settings, "grid")->first, *units = member(c->settings, "units");
    Json *options = member(c->settings, "gtc");
    int gtc = !strcmp(word(c, "gradient"), "gtc");
    if ((int)grid->value != 1 || (!gtc && strcmp(word(c, "gradient"), "exact")) || !only(c, known))
        return 0;
    for (Json *one = options ? options->first : NULL; one; one = one->next)
        if (!strstr(" tau units format ", joined(" ", one->name, " ")) ||
            (!strcmp(one->name, "units") && strcmp(one->text, "sum")))
            return 0;
    if (gtc && !options)
        return 0;
    Tensor *targets = needed(c, "targets"), *takes = needed(c, "micro_batch");
    long steps = targets->shape[0], M = targets->shape[1], n = targets->shape[2];
    long micro = takes->shape[1], size = 0, begin = 0;
    int g = (int)grid->next->value, p = (int)grid->next->next->value, ranks = g * p;
    const char *name = word(c, "optimizer");
    int adam = !strncmp(name, "adam", 4), plain = !strcmp(name, "sgd");

    /* Where each value of a shard is in the whole vector; -1: padding. */
    long *place = room(sizeof(long) * (size_t)(p * (n + length_of(units)))), pieces[64], u = 0;
    for (Json *unit = units->first; unit && u < 64; unit = unit->next)
        size += pieces[u++] = longest((long)unit->value, p);
    for (int s = 0; s < p; s++) {
        long to = s * size;
        u = begin = 0;
        for (Json *unit = units->first; unit; begin += (long)unit->value, unit = unit->next, u++)
            for (long i = 0; i < pieces[u]; i++) {
                long within = s * pieces[u] + i;
                place[to++] = within < (long)unit->value ? begin + within : -1;
            }
    }

    float *initial = needed(c, "initial")->data;
    float *gradient = out(c, "gradient", "F32", 3, steps, ranks, size);
    float *combined = out(c, "combined", "F32", 3, steps, ranks, size);
    float *parameters = out(c, "parameters", "F32", 3, steps, ranks, size);
    float *first = NULL, *second = NULL, *residual = NULL, *model = out(c, "model", "F32", 1, n, 0, 0);
    if (!plain)
        first = out(c, adam ? "first" : "momentum", "F32", 3, steps, ranks, size);
    if (adam)
        second = out(c, "second", "F32", 3, steps, ranks, size);
    if (gtc)
        residual = out(c, "residual", "F32", 3, steps, ranks, size);
    Messages *sent = room(sizeof(Messages) * (size_t)steps);

    /* All workers hold the same parameters: shard s of one is that of all. */
    double *w = room(sizeof(double) * (size_t)(p * size));
    double *a = room(sizeof(double) * (size_t)(p * size)), *b = room(sizeof(double) * (size_t)(p * size));
    float *whole = floats(n), **debt = room(sizeof(float *) * (size_t)ranks);
    for (long i = 0; i < p * size; i++)
        w[i] = place[i] < 0 ? 0 : initial[place[i]];
    for (int r = 0; r < ranks; r++)
        debt[r] = floats(size);
    for (long t = 0; t < steps; t++) {
        for (long i = 0; i < p * size; i++)
            if (place[i] >= 0)
                whole[place[i]] = (float)w[i];
        sent[t].message = room(sizeof(char *) * (size_t)ranks);
        sent[t].size = room(sizeof(long) * (size_t)ranks);
        for (int r = 0; r < ranks; r++) {
            float *mine = gradient + (t * ranks + r) * size;
            for (int q = r / p * p; q < (r / p + 1) * p; q++) /* the ranks of this worker */
                for (long m = 0; m < micro; m++) {
                    long batch = (long)((int64_t *)takes->data)[q * micro + m];
                    float *row = (float *)targets->data + (t * M + batch) * n;
                    for (long i = 0; i < size; i++)
                        if (place[r % p * size + i] >= 0) {
                            long at_whole = place[r % p * size + i];
                            mine[i] += whole[at_whole] - row[at_whole];
                        }
                }
        }
        for (int s = 0; s < p; s++) { /* a gradient group: the same shard of all workers */
            float **mine = room(sizeof(float *) * (size_t)g), *sum = floats(size);
            float **owe = room(sizeof(float *) * (size_t)g);
            for (int k = 0; k < g; k++) {
                mine[k] = gradient + (t * ranks + k * p + s) * size;
                owe[k] = debt[k * p + s];
                for (long i = 0; i < size && !gtc; i++)
                    sum[i] += mine[k][i];
            }
            if (gtc) {
                float tau = (float)member(options, "tau")->value;
                Json *format = member(options, "format");
                Messages some = gtc_step(owe, mine, g, size, tau,
                                         format ? format->text : "auto", sum);
                for (int k = 0; k < g; k++) {
                    sent[t].message[k * p + s] = some.message[k];
                    sent[t].size[k * p + s] = some.size[k];
                }
            }
            step(c, name, number(c, "lr"), 1 / number(c, "frames"), t + 1, size, w + s * size,
                 widened(sum, size), a + s * size, b + s * size);
            for (int k = 0; k < g; k++) {
                long to = (t * ranks + k * p + s) * size;
                memcpy(combined + to, sum, sizeof(float) * (size_t)size);
                rounded(parameters + to, w + s * size, size);
                if (first)
                    rounded(first + to, a + s * size, size);
                if (second)
                    rounded(second + to, b + s * size, size);
                if (gtc)
                    memcpy(residual + to, owe[k], sizeof(float) * (size_t)size);
            }
        }
    }
    for (long i = 0; i < p * size; i++)
        if (place[i] >= 0)
            model[place[i]] = (float)w[i];
    if (gtc)
        out_messages(c, sent, steps, ranks);
    return 1;
}

/* --------------------------------------------------------------------------------------- main */

static const struct {
    const char *name;
    int (*answer)(Case *);
} OPERATIONS[] = {
    {"allgather", answer_collective},
    {"reduce_scatter", answer_collective},
    {"allreduce", answer_collective},
    {"broadcast", answer_collective},
    {"reduce", answer_collective},
    {"alltoall", answer_collective},
    {"gtc_encode", answer_gtc_encode},
    {"gtc_message", answer_gtc_message},
    {"gtc_decode", answer_gtc_decode},
    {"gtc_exchange", answer_gtc_exchange},
    {"gtc_adapt", answer_gtc_adapt},
    {"gtc_sparse", answer_gtc_sparse},
    {"gtc_total", answer_gtc_total},
    {"gtc_accepts", answer_gtc_accepts},
    {"onebit_encode", answer_onebit_encode},
    {"onebit_allreduce", answer_onebit_allreduce},
    {"onebit_accepts", answer_onebit_accepts},
    {"topk_exchange", answer_topk_exchange},
    {"topk_accepts", answer_topk_accepts},
    {"bmuf", answer_bmuf},
    {"outer_sgd", answer_outer_sgd},
    {"affine", answer_affine},
    {"relu", answer_curve},
    {"sigmoid", answer_curve},
    {"tanh", answer_curve},
    {"softmax_cross_entropy", answer_softmax_cross_entropy},
    {"optimizer", answer_optimizer},
    {"clipping", answer_clipping},
    {"learning_rate", answer_learning_rate},
    {"fixed_point", answer_fixed_point},
    {"train", answer_train},
};

int main(int arguments, char **argument)
{
    if (arguments != 3)
        fail("give two folders, GOLDEN/BUNDLE and THEIRS/BUNDLE, as in", argument[0]);
    size_t size;
    at = read_file(joined(argument[1], "/", "manifest.json"), &size);
    Json *manifest = parsed();
    Archive given = load(joined(argument[1], "/", "arrays.safetensors"));
    Archive answers = {room((size_t)(given.count + 1) * sizeof(Tensor)), 0};
    for (Json *one = member(manifest, "cases")->first; one; one = one->next) {
        Case c = {member(one, "name")->text, member(one, "operation")->text,
                  member(one, "settings"), &given, &answers};
        for (size_t i = 0; i < sizeof OPERATIONS / sizeof *OPERATIONS; i++)
            if (!strcmp(OPERATIONS[i].name, c.operation))
                OPERATIONS[i].answer(&c);
    }
    if (answers.count)
        save(joined(argument[2], "/", "arrays.safetensors"), &answers);
    return 0;
}
