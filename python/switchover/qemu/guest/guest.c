/* The guest of `switchover qemu run`: writes memory as it is told, checks its own data, and says that it runs.
 *
 * A Multiboot kernel for QEMU's `-kernel`, in 32 bits without paging, on one vCPU. Its parameters are its command line
 * (`-append`): NAME=VALUE, numbers in decimal. What it writes follows from page and version alone, and the versions are
 * kept in memory too, so that it can tell at any time whether each page holds what it wrote last.
 *
 *   serial 1   out: '.' at each beat, 'p' and 8 hex digits (pages written so far) every 16th, 'F' once memory is filled,
 *              'K' and 8 hex digits (pages) when a check passed, 'X' and 8 hex digits (the page) when one did not;
 *              in: 'c' check, 'r' rest from writing, 'g' go on
 *   serial 2   echoes each byte
 *
 * Time is the ACPI timer's: it stands still while the guest does not run. `guest.hex` is this file compiled, as
 * `scripts/guest` does it.
 */

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

enum { SERIAL1 = 0x3f8, SERIAL2 = 0x2f8, TIMER = 0x608, PAGE = 4096, WORDS = PAGE / 4, SEGMENTS = 96 };
enum { ZERO, COUNTER, TEXT, RANDOM, MIX, IMAGE };
enum { DRAW, SWEEP, SLIDE };

/* Equally likely are `weight` of 65536 draws; a draw is uniform in `count` places from `first` on. */
struct segment { u32 weight, first, count; };

static struct segment segments[SEGMENTS];
static u32 segment_count, mode, pages, scatter, content, edits, share, gap, beat, window, period, fill_kind;
static u32 noise_state, place, written;
static volatile u32 *versions;
static u8 *memory;

static inline void out(u32 port, u8 value) { __asm__ volatile("outb %0, %w1" : : "a"(value), "d"(port)); }
static inline u8 in(u32 port) {
    u8 value;
    __asm__ volatile("inb %w1, %0" : "=a"(value) : "d"(port));
    return value;
}
static inline u32 in32(u32 port) {
    u32 value;
    __asm__ volatile("inl %w1, %0" : "=a"(value) : "d"(port));
    return value;
}

static void say(u8 letter) { out(SERIAL1, letter); }

static void say_number(u8 letter, u32 number) {
    say(letter);
    for (int shift = 28; shift >= 0; shift -= 4)
        say("0123456789abcdef"[number >> shift & 15]);
    say('\n');
}

/* The timer has 24 bits; what it counts is kept in 64. */
static u64 now(void) {
    static u64 time;
    static u32 last;
    u32 ticks = in32(TIMER) & 0xffffff;
    time += (ticks - last) & 0xffffff;
    last = ticks;
    return time;
}

static u32 noise(u32 *state) {
    u32 x = *state;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return *state = x;
}

static u32 mixed(u32 x) {
    x ^= x >> 16;
    x *= 0x7feb352d;
    x ^= x >> 15;
    x *= 0x846ca68b;
    return x ^ x >> 16;
}

/* The least of 0 .. limit-1 that a draw of 32 bits stands for. */
static u32 below(u32 draw, u32 limit) { return (u64)draw * limit >> 32; }

static const char vocabulary[] = "the migration of a running guest moves memory while it goes on writing to page after ";

/* Word `at` of what `version` of a page holds; `state` is the page's own noise, at the word before. */
static u32 text_word(u32 *state) {
    u32 value = 0, from = below(noise(state) & noise(state), sizeof vocabulary - 5);
    for (int each = 0; each < 4; each++)
        value |= (u32)(u8)vocabulary[from + each] << 8 * each;
    return value;
}

static u32 kind_of(u32 page, u32 kind) {
    if (kind != IMAGE)
        return kind;
    u32 draw = mixed(page ^ 0x51ab) % 20;
    return draw < 5 ? ZERO : draw < 10 ? TEXT : draw < 12 ? RANDOM : MIX;
}

/* Goes through what a version of a page holds: writes it, or says whether it is there. */
static int go_through(u32 page, u32 version, int write) {
    u32 *words = (u32 *)(memory + (u64)page * PAGE);
    u32 kind = kind_of(page, content == COUNTER || version == 0 ? fill_kind : content);
    u32 stamp = content == COUNTER && version ? 0 : version;
    u32 state = mixed(page * 0x9e3779b9 + stamp) | 1, repeated = state;
    u32 noisy = kind == MIX ? share * WORDS / 100 : kind == ZERO || kind == TEXT ? 0 : WORDS;
    u32 step = content == COUNTER && version ? WORDS / (edits + 1) : 0, next = step, edited = 0;
    for (u32 at = 0; at < WORDS; at++) {
        u32 value = kind == TEXT ? text_word(&state) : kind == ZERO ? 0 : at < noisy ? noise(&state) : repeated;
        if (step && at == next && edited < edits) {
            value = version;
            next += step;
            edited++;
        }
        if (write)
            words[at] = value;
        else if (words[at] != value)
            return 0;
    }
    return 1;
}

/* Counters change alone: the rest of the page is not written. */
static void count(u32 page, u32 version) {
    volatile u32 *words = (volatile u32 *)(memory + (u64)page * PAGE);
    u32 step = WORDS / (edits + 1);
    for (u32 edited = 0; edited < edits; edited++)
        words[(edited + 1) * step] = version;
}

/* In 32 bits a division by a 64-bit number would call for a library. The quotient must fit 32 bits. */
static u64 divided(u64 value, u32 by) {
    u32 quotient, rest;
    __asm__("divl %4" : "=a"(quotient), "=d"(rest) : "0"((u32)value), "1"((u32)(value >> 32)), "r"(by));
    return quotient;
}

static u32 remainder(u64 value, u32 by) { return value - divided(value, by) * by; }

static u32 next_page(u64 time) {
    u32 draw = noise(&noise_state) >> 16, at;
    if (mode == SWEEP) {
        at = place;
        place = place + 1 < segments[0].count ? place + 1 : 0;
        return at;
    }
    if (mode == SLIDE) {
        /* Milliseconds into the period, as a share of it. */
        u32 into = remainder(divided(time, 3580), period);
        at = divided((u64)into * pages, period) + below(noise(&noise_state), window);
        return at < pages ? at : at - pages;
    }
    struct segment *each = segments;
    while (each < segments + segment_count - 1 && draw >= each->weight) {
        draw -= each->weight;
        each++;
    }
    at = each->first + below(noise(&noise_state), each->count);
    /* Every place is some page's: the factor has no divisor in common with the number of pages. */
    return scatter ? remainder((u64)at * scatter, pages) : at;
}

static void write_one(u64 time) {
    u32 page = next_page(time), version = ++versions[page];
    if (content == COUNTER)
        count(page, version);
    else
        go_through(page, version, 1);
    written++;
}

static void check(void) {
    for (u32 page = 0; page < pages; page++)
        if (!go_through(page, versions[page], 0))
            return say_number('X', page);
    say_number('K', pages);
}

static void fill(void) {
    for (u32 page = 0; page < pages; page++) {
        versions[page] = 0;
        go_through(page, 0, 1);
    }
    say('F');
}

static int resting;

static void hear(void) {
    if (in(SERIAL2 + 5) & 1)
        out(SERIAL2, in(SERIAL2));
    if (!(in(SERIAL1 + 5) & 1))
        return;
    u8 letter = in(SERIAL1);
    if (letter == 'c')
        check();
    else
        resting = letter == 'r' ? 1 : letter == 'g' ? 0 : resting;
}

static void run(void) {
    /* Of writes in 1/256 ticks, of beats in ticks. */
    u64 due = now() << 8, next_beat = 0;
    u32 beats = 0;
    for (;;) {
        u64 time = now();
        if (time >= next_beat) {
            next_beat = time + beat;
            say('.');
            if (!(++beats & 15))
                say_number('p', written);
            hear();
        }
        if (resting || !gap) {
            due = time << 8;
            continue;
        }
        if (time << 8 < due)
            continue;
        /* What it got no time for within 50 ms is not made up. */
        if ((time << 8) - due > (u64)178977 << 8)
            due = time << 8;
        due += gap;
        write_one(time);
    }
}

static const char *number(const char *text, u32 *value) {
    for (*value = 0; *text >= '0' && *text <= '9'; text++)
        *value = *value * 10 + (*text - '0');
    return text;
}

static int named(const char *text, const char *name) {
    while (*name)
        if (*text++ != *name++)
            return 0;
    return *text == '=';
}

static void read_segment(const char *text) {
    struct segment *each = &segments[segment_count < SEGMENTS - 1 ? segment_count++ : segment_count];
    text = number(text, &each->weight);
    text = number(*text ? text + 1 : text, &each->first);
    number(*text ? text + 1 : text, &each->count);
}

static void read_parameters(const char *text) {
    static const struct { const char *name; u32 *value; } known[] = {
        {"mode", &mode}, {"pages", &pages}, {"scatter", &scatter}, {"content", &content}, {"edits", &edits},
        {"share", &share}, {"gap", &gap}, {"beat", &beat}, {"window", &window}, {"period", &period},
        {"fill", &fill_kind}, {"seed", &noise_state},
    };
    for (; *text; text++) {
        const char *value = text;
        while (*value && *value != '=' && *value != ' ')
            value++;
        if (*value == '=') {
            if (named(text, "seg"))
                read_segment(value + 1);
            for (u32 each = 0; each < sizeof known / sizeof *known; each++)
                if (named(text, known[each].name))
                    number(value + 1, known[each].value);
        }
        while (*text && *text != ' ')
            text++;
        if (!*text)
            return;
    }
}

struct boot { u32 flags, lower, upper, device; const char *arguments; };

/* Versions begin at 2 MiB, the pages at the next whole MiB after them. */
__attribute__((used, noreturn)) void start(struct boot *boot) {
    noise_state = 1;
    beat = 3580;
    edits = 4;
    share = 40;
    fill_kind = IMAGE;
    content = MIX;
    read_parameters(boot->arguments);
    noise_state = mixed(noise_state) | 1;
    versions = (volatile u32 *)(2 << 20);
    memory = (u8 *)(((2 << 20) + pages * 4 + (1 << 20) - 1) & ~((1u << 20) - 1));
    fill();
    run();
    __builtin_unreachable();
}

__asm__(
    ".section .head, \"ax\"\n"
    ".globl entry\n"
    ".balign 4\n"
    "header: .long 0x1badb002, 0x10003, -(0x1badb002 + 0x10003)\n"
    ".long header, begin, end_of_data, end_of_all, entry\n"
    "entry: mov $stack_top, %esp\n"
    "push %ebx\n"
    "push $0\n"
    "jmp start\n"
    ".text\n");
