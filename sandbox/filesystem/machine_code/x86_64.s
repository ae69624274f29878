# The trampoline for x86-64; see ../trampoline.py for what it does and what the words of the list mean.
# as x86_64.s -o x.o && objcopy -O binary -j .text x.o x.bin
# rbp: the list. rbx: the step. r12: its flags. r13: the last result. r14: the first error worth telling.
.intel_syntax noprefix
.globl _start
_start:
    mov eax, 8                  # lseek(0, 0, SEEK_END): how long is the list?
    xor edi, edi
    xor esi, esi
    mov edx, 2
    syscall
    mov rsi, rax
    mov eax, 9                  # mmap(BASE, length, READ | WRITE, PRIVATE | FIXED, 0, 0)
    mov edi, 0x10000000
    mov edx, 3
    mov r10d, 0x12
    xor r8d, r8d
    xor r9d, r9d
    syscall
    mov ebp, 0x10000000
    mov rbx, [rbp+24]
    xor r13d, r13d
    xor r14d, r14d
step:
    mov r12, [rbx]
    test r12b, 2                # only after ENOEXEC?
    jz run
    cmp r13, -8
    jne next
run:
    mov rax, [rbx+8]
    mov rdi, [rbx+16]
    mov rsi, [rbx+24]
    mov rdx, [rbx+32]
    mov r10, [rbx+40]
    mov r8, [rbx+48]
    mov r9, [rbx+56]
    syscall
    mov r13, rax
    cmp rax, -4095              # an error?
    jb next
    test r12b, 1                # must it succeed?
    jnz fail
    test r12b, 4                # is its error worth telling, if it is neither ENOENT nor ENOTDIR?
    jz next
    cmp rax, -2
    je next
    cmp rax, -20
    je next
    mov r14, rax
next:
    test r12b, 8                # does the process go on elsewhere after a 0?
    jz on
    test r13, r13
    jnz on
    mov rbp, [rbx+56]
    mov rbx, [rbp+24]
    jmp step
on:
    add rbx, 64
    jmp step
fail:
    test r14, r14
    cmovnz r13, r14
    mov [rbp+8], r12
    mov [rbp+16], r13
    mov eax, 1                  # write(2, BASE, 32)
    mov edi, 2
    mov esi, ebp
    mov edx, 32
    syscall
    mov eax, 231                # exit_group(127)
    mov edi, 127
    syscall
