# The guest of the tests: a boot sector that fills memory, writes it again at a given rate, and rests when it is told
# to.
#
#   1. It fills `pages` pages from page `first` on, each by its kind: page & `kinds` is 0 noise, 1 one word again and
#      again, 2 left as it is (zero), 3 a few words of noise. Then it says 'F' on the first serial port.
#   2. It writes pages of that range again: each `step` pages after the one before, round and round, `words` words of
#      noise from a place that moves; a page whose number in the sequence has all bits of `zeroes` is cleared instead.
#      After each `burst` pages it waits until `interval` ticks of the ACPI timer (3.579545 MHz) have gone by since the
#      last wait. Each time `pages` pages are written it says 'P', and after `passes` such (0: never) goes on to 3.
#   3. As soon as a byte waits at the serial port, too, it reads one word of every page, says 'H' and halts.
#
# It writes no other memory but one page for its stack and counters. The parameters stand at byte 4. `boot.hex` is this
# file assembled:
#
#   as --32 boot.S -o boot.o && ld -m elf_i386 -Ttext=0x7c00 --oformat=binary boot.o -o boot.bin

    .intel_syntax noprefix
    .globl _start
    .set SERIAL, 0x3f8
    .set TIMER, 0x608
# Not in this sector's page: QEMU looks twice at each write to a page with code.
    .set STATE, 0x6000
    .set STACK, 0x7000
    .set burst_left, STATE
    .set pages_left, STATE + 4
    .set passes_left, STATE + 8
    .set last_tick, STATE + 12

    .code16
_start:
    jmp start
    .org 4
first:      .long 0x200
pages:      .long 0x100
kinds:      .long 0
step:       .long 1
words:      .long 1
zeroes:     .long 0xffffffff
burst:      .long 1
interval:   .long 0
passes:     .long 0

start:
    cli
    xor ax, ax
    mov ds, ax
    lgdt [table]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    .byte 0xea                  # far jump to entry, in 32 bits
    .word entry
    .word 8

    .balign 8
segments:
    .quad 0
    .quad 0x00cf9a000000ffff    # code, all of 4 GiB
    .quad 0x00cf92000000ffff    # data, the same
table:
    .word table - segments - 1
    .long segments

    .code32
entry:
    mov eax, 16
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov esp, STACK
    cld
    mov ebx, 0x9e3779b9         # state of the noise
    mov eax, [pages]
    mov [pages_left], eax
    mov eax, [passes]
    mov [passes_left], eax
    mov eax, [burst]
    mov [burst_left], eax
    mov dword ptr [last_tick], 0

# 1. ebp: pages done.
    xor ebp, ebp
fill:
    mov edi, [first]
    add edi, ebp
    mov edx, edi
    shl edi, 12
    mov ecx, 1024
    mov eax, edx
    and eax, [kinds]
    jz fill_noise
    dec eax
    jz fill_word
    dec eax
    jz filled
    mov ecx, 3
fill_noise:
    call noise
    jmp filled
fill_word:
    mov eax, edx
    rep stosd
filled:
    inc ebp
    cmp ebp, [pages]
    jb fill
    mov al, 'F'
    call say

# 2. ebp: pages written, esi: index of the page in the range.
    xor ebp, ebp
    xor esi, esi
rewrite:
    mov dx, SERIAL + 5
    in al, dx
    test al, 1                  # a byte waits
    jnz rest
    mov edi, [first]
    add edi, esi
    shl edi, 12
    inc ebp
    mov eax, [zeroes]
    mov ecx, eax
    and ecx, ebp
    cmp ecx, eax
    je clear
    mov ecx, [words]
    mov eax, 1024
    sub eax, ecx
    mov edx, ebp
    shl edx, 4
    and eax, edx
    lea edi, [edi + eax * 4]
    call noise
    jmp written
clear:
    mov ecx, 1024
    xor eax, eax
    rep stosd
written:
    add esi, [step]
wrap:
    cmp esi, [pages]
    jb inside
    sub esi, [pages]
    jmp wrap
inside:
    dec dword ptr [pages_left]
    jnz pace
    mov eax, [pages]
    mov [pages_left], eax
    mov al, 'P'
    call say
    dec dword ptr [passes_left]     # 0 becomes 2^32 - 1: as good as never
    jz rest
pace:
    dec dword ptr [burst_left]
    jnz rewrite
    mov eax, [burst]
    mov [burst_left], eax
    mov edx, TIMER
wait:
    in eax, dx
    mov ecx, eax
    sub eax, [last_tick]
    and eax, 0xffffff           # the timer has 24 bits
    cmp eax, [interval]
    jb wait
    mov [last_tick], ecx
    jmp rewrite

# 3.
rest:
    mov edi, [first]
    shl edi, 12
    mov ecx, [pages]
touch:
    mov eax, [edi]
    add edi, 4096
    dec ecx
    jnz touch
    mov al, 'H'
    call say
halt:
    hlt
    jmp halt

# Writes ecx words of noise (xorshift32) to edi.
noise:
    mov eax, ebx
    shl eax, 13
    xor ebx, eax
    mov eax, ebx
    shr eax, 17
    xor ebx, eax
    mov eax, ebx
    shl eax, 5
    xor eax, ebx
    mov ebx, eax
    stosd
    dec ecx
    jnz noise
    ret

# Says the letter in al.
say:
    mov edx, SERIAL
    out dx, al
    ret

    .org 510
    .word 0xaa55
