/* The whole root file system of the stored image: prints its arguments, appends to /data/count, and may sleep. */
static long call(long n, long a, long b, long c) { long r; __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory"); return r; }
__attribute__((naked)) void _start(void) { __asm__("mov %rsp, %rdi\n and $-16, %rsp\n call entry\n"); }
void entry(long *stack) {
    long n = stack[0]; char **v = (char **)(stack + 1);
    for (long i = 1; i < n; i++) { long l = 0; while (((volatile char *)v[i])[l]) l++; call(1, 1, (long)v[i], l); call(1, 1, (long)"\n", 1); }
    long fd = call(2, (long)"/data/count", 02101, 0644); if (fd >= 0) call(1, fd, (long)"x", 1);
    fd = call(2, (long)"/written", 02101, 0644); if (fd >= 0) call(1, fd, (long)"y", 1);
    call(60, n > 1 && v[1][0] == 'f' ? 7 : 0, 0, 0);
}
