// The trampoline for 64-bit ARM; see ../trampoline.py for what it does and what the words of the list mean.
// aarch64-linux-gnu-as aarch64.s -o a.o && aarch64-linux-gnu-objcopy -O binary -j .text a.o a.bin
// x20: the list. x19: the step. x23: its flags. x21: the last result. x22: the first error worth telling.
.globl _start
_start:
    mov x0, #0                  // lseek(0, 0, SEEK_END): how long is the list?
    mov x1, #0
    mov x2, #2
    mov x8, #62
    svc #0
    mov x1, x0
    movz x0, #0x1000, lsl #16   // mmap(BASE, length, READ | WRITE, PRIVATE | FIXED, 0, 0)
    mov x2, #3
    mov x3, #0x12
    mov x4, #0
    mov x5, #0
    mov x8, #222
    svc #0
    movz x20, #0x1000, lsl #16
    ldr x19, [x20, #24]
    mov x21, #0
    mov x22, #0
step:
    ldr x23, [x19]
    tbz w23, #1, run            // only after ENOEXEC?
    cmn x21, #8
    b.ne next
run:
    ldp x8, x0, [x19, #8]
    ldp x1, x2, [x19, #24]
    ldp x3, x4, [x19, #40]
    ldr x5, [x19, #56]
    svc #0
    mov x21, x0
    cmn x0, #4095               // an error?
    b.lo next
    tbnz w23, #0, fail          // must it succeed?
    tbz w23, #2, next           // is its error worth telling, if it is neither ENOENT nor ENOTDIR?
    cmn x0, #2
    b.eq next
    cmn x0, #20
    b.eq next
    mov x22, x0
next:
    tbz w23, #3, on             // does the process go on elsewhere after a 0?
    cbnz x21, on
    ldr x20, [x19, #56]
    ldr x19, [x20, #24]
    b step
on:
    add x19, x19, #64
    b step
fail:
    cmp x22, #0
    csel x21, x22, x21, ne
    stp x23, x21, [x20, #8]
    mov x0, #2                  // write(2, BASE, 32)
    mov x1, x20
    mov x2, #32
    mov x8, #64
    svc #0
    mov x0, #127                // exit_group(127)
    mov x8, #94
    svc #0
