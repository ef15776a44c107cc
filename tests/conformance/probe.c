/* Answers from inside a container: prints one JSON object of all that a process can see of itself and its surroundings.
 *
 * Statically linked, so that it runs in an empty root file system. It asks the kernel by system calls wherever there is
 * one, and /proc only where there is none: a container without /proc is a case too.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <stddef.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

extern char **environ;
static const char *comma = "";

static void string(const char *s, size_t length) {
    putchar('"');
    for (size_t i = 0; i < length; i++) {
        unsigned char c = s[i];
        if (c == '"' || c == '\\') printf("\\%c", c);
        else if (c < 0x20 || c > 0x7e) printf("\\u%04x", c);
        else putchar(c);
    }
    putchar('"');
}

static void key(const char *name) {
    printf("%s\"%s\": ", comma, name);
    comma = ",\n";
}

static void number(const char *name, long long value) { key(name); printf("%lld", value); }

static void text(const char *name, const char *value) {
    key(name);
    if (value) string(value, strlen(value)); else printf("null");
}

static void file(const char *name, const char *path) {
    static char buffer[1 << 18];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t length = 0;
    ssize_t n;
    key(name);
    if (fd < 0) { printf("null"); return; }
    while (length < sizeof buffer && (n = read(fd, buffer + length, sizeof buffer - length)) > 0) length += n;
    close(fd);
    string(buffer, length);
}

static void list(const char *name, char **words) {
    key(name);
    printf("[");
    for (int i = 0; words[i]; i++) { if (i) printf(", "); string(words[i], strlen(words[i])); }
    printf("]");
}

static void identities(void) {
    uid_t r, e, s;
    gid_t groups[4096];
    int count = getgroups(4096, groups);
    getresuid(&r, &e, &s);
    key("uids"); printf("[%u, %u, %u]", r, e, s);
    getresgid(&r, &e, &s);
    key("gids"); printf("[%u, %u, %u]", r, e, s);
    key("groups"); printf("[");
    for (int i = 0; i < count; i++) printf("%s%u", i ? ", " : "", groups[i]);
    printf("]");
    number("pid", getpid()); number("ppid", getppid()); number("sid", getsid(0)); number("pgid", getpgid(0));
    mode_t mask = umask(0); umask(mask);
    number("umask", mask);
}

static void capabilities(void) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    unsigned long long bounding = 0, ambient = 0;
    memset(data, 0, sizeof data);
    syscall(SYS_capget, &header, data);
    for (int i = 0; i < 64; i++) {
        if (prctl(PR_CAPBSET_READ, i, 0, 0, 0) == 1) bounding |= 1ULL << i;
        if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, i, 0, 0) == 1) ambient |= 1ULL << i;
    }
    number("cap_effective", data[0].effective | (long long)data[1].effective << 32);
    number("cap_permitted", data[0].permitted | (long long)data[1].permitted << 32);
    number("cap_inheritable", data[0].inheritable | (long long)data[1].inheritable << 32);
    number("cap_bounding", bounding);
    number("cap_ambient", ambient);
    number("no_new_privs", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    number("securebits", prctl(PR_GET_SECUREBITS, 0, 0, 0, 0));
    number("dumpable", prctl(PR_GET_DUMPABLE, 0, 0, 0, 0));
}

static void limits(void) {
    static const char *names[] = {"CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE",
        "MEMLOCK", "AS", "LOCKS", "SIGPENDING", "MSGQUEUE", "NICE", "RTPRIO", "RTTIME"};
    key("rlimits"); printf("{");
    for (int i = 0; i < 16; i++) {
        struct rlimit l = {0, 0};
        getrlimit(i, &l);
        printf("%s\"RLIMIT_%s\": [%lld, %lld]", i ? ", " : "", names[i], (long long)l.rlim_cur, (long long)l.rlim_max);
    }
    printf("}");
}

static void scheduling(void) {
    cpu_set_t set;
    struct { unsigned size, policy; unsigned long long flags; int nice; unsigned priority;
             unsigned long long runtime, deadline, period; } attr;
    memset(&attr, 0, sizeof attr);
    syscall(SYS_sched_getattr, 0, &attr, (unsigned)sizeof attr, 0);
    number("sched_policy", attr.policy); number("sched_flags", attr.flags);
    number("sched_priority", attr.priority);
    number("nice", getpriority(PRIO_PROCESS, 0));
    number("ioprio", syscall(SYS_ioprio_get, 1, 0));
    number("personality", personality(0xffffffff));
    CPU_ZERO(&set);
    sched_getaffinity(0, sizeof set, &set);
    key("cpus"); printf("[");
    const char *separator = "";
    for (int i = 0; i < CPU_SETSIZE; i++) if (CPU_ISSET(i, &set)) { printf("%s%d", separator, i); separator = ", "; }
    printf("]");
    int mode = -1;
    unsigned long nodes[16] = {0};
    syscall(SYS_get_mempolicy, &mode, nodes, sizeof nodes * 8, 0, 0);
    number("mempolicy", mode); number("mempolicy_nodes", nodes[0]);
    struct timespec boot = {0, 0}, monotonic = {0, 0};
    clock_gettime(CLOCK_BOOTTIME, &boot); clock_gettime(CLOCK_MONOTONIC, &monotonic);
    number("boottime", boot.tv_sec); number("monotonic", monotonic.tv_sec);
}

static void namespaces(void) {
    static const char *kinds[] = {"user", "mnt", "net", "ipc", "uts", "pid", "cgroup", "time"};
    const char *separator = "";
    key("namespaces"); printf("{");
    for (int i = 0; i < 8; i++) {
        char path[64], target[128];
        snprintf(path, sizeof path, "/proc/self/ns/%s", kinds[i]);
        ssize_t n = readlink(path, target, sizeof target);
        if (n < 0) continue;
        printf("%s\"%s\": ", separator, kinds[i]); string(target, n); separator = ", ";
    }
    printf("}");
}

static void descriptors(void) {
    const char *separator = "";
    key("fds"); printf("[");
    for (int fd = 0; fd < 1024; fd++)
        if (fcntl(fd, F_GETFD) >= 0) { printf("%s%d", separator, fd); separator = ", "; }
    printf("]");
    struct winsize size = {0, 0, 0, 0};
    number("isatty", isatty(0) && isatty(1));
    ioctl(0, TIOCGWINSZ, &size);
    key("winsize"); printf("[%u, %u]", size.ws_row, size.ws_col);
    int tty = open("/dev/tty", O_RDWR | O_NOCTTY);
    number("controlling_terminal", tty >= 0);
    if (tty >= 0) close(tty);
}

/* type, permissions, owner, device number and the flags of the mount of each path in the arguments */
static void paths(char **words) {
    key("paths"); printf("{");
    for (int i = 0; words[i]; i++) {
        struct stat s;
        struct statvfs v;
        char target[4096];
        if (i) printf(",\n ");
        string(words[i], strlen(words[i]));
        if (lstat(words[i], &s)) { printf(": null"); continue; }
        const char *kind = S_ISDIR(s.st_mode) ? "directory" : S_ISREG(s.st_mode) ? "file" : S_ISLNK(s.st_mode) ? "link"
            : S_ISCHR(s.st_mode) ? "char" : S_ISBLK(s.st_mode) ? "block" : S_ISFIFO(s.st_mode) ? "fifo" : "socket";
        printf(": {\"kind\": \"%s\", \"mode\": %u, \"uid\": %u, \"gid\": %u, \"major\": %u, \"minor\": %u, \"size\": %lld",
            kind, s.st_mode & 07777, s.st_uid, s.st_gid, major(s.st_rdev), minor(s.st_rdev), (long long)s.st_size);
        ssize_t n = S_ISLNK(s.st_mode) ? readlink(words[i], target, sizeof target) : -1;
        if (n >= 0) { printf(", \"target\": "); string(target, n); }
        if (!statvfs(words[i], &v)) printf(", \"flags\": %lu", v.f_flag);
        int fd = S_ISLNK(s.st_mode) ? -1 : open(words[i], O_RDONLY | O_NONBLOCK | O_NOCTTY);
        printf(", \"readable\": %s", fd >= 0 ? "true" : "false");
        if (fd >= 0 && S_ISDIR(s.st_mode)) {
            int count = 0;
            DIR *directory = fdopendir(fd);
            for (struct dirent *e; directory && (e = readdir(directory));)
                if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..")) count++;
            printf(", \"entries\": %d", count);
            if (directory) closedir(directory);
        } else if (fd >= 0) {
            char byte[16];
            ssize_t got = S_ISREG(s.st_mode) || S_ISCHR(s.st_mode) ? read(fd, byte, sizeof byte) : -1;
            printf(", \"read\": %zd", got);
            close(fd);
        }
        /* may something be written there? a directory: a file made and removed again */
        char name[4200];
        int error = 0;
        if (S_ISDIR(s.st_mode)) {
            snprintf(name, sizeof name, "%s/.probe-%d", words[i], getpid());
            fd = open(name, O_WRONLY | O_CREAT | O_EXCL, 0600);
            error = fd < 0 ? errno : 0;
            if (fd >= 0) { close(fd); unlink(name); }
        } else if (S_ISREG(s.st_mode) || S_ISCHR(s.st_mode)) {
            fd = open(words[i], O_WRONLY | O_NONBLOCK | O_NOCTTY);
            error = fd < 0 ? errno : 0;
            if (fd >= 0) close(fd);
        }
        printf(", \"write_errno\": %d}", error);
    }
    printf("}");
}

static int report(char **words) {
    struct utsname names;
    char cwd[4096];
    uname(&names);
    printf("{");
    identities(); capabilities(); limits(); scheduling(); namespaces(); descriptors();
    text("cwd", getcwd(cwd, sizeof cwd));
    text("hostname", names.nodename); text("domainname", names.domainname); text("machine", names.machine);
    list("env", environ);
    file("mountinfo", "/proc/self/mountinfo"); file("status", "/proc/self/status");
    file("oom_score_adj", "/proc/self/oom_score_adj"); file("cmdline", "/proc/self/cmdline");
    file("uid_map", "/proc/self/uid_map"); file("gid_map", "/proc/self/gid_map");
    file("timens_offsets", "/proc/self/timens_offsets"); file("setgroups", "/proc/self/setgroups");
    file("cgroup", "/proc/self/cgroup"); file("comm", "/proc/self/comm");
    paths(words);
    printf("}\n");
    return fflush(stdout) ? 1 : 0;
}

/* `calls NUMBER[:ARG...] ...`: make system calls and print the errno of each; what a filter does shows */
static int calls(char **words) {
    printf("[");
    for (int i = 0; words[i]; i++) {
        long argument[7] = {0};
        char *word = words[i];
        for (int n = 0; n < 7 && *word; n++) {
            argument[n] = (long)strtoull(word, &word, 0);
            if (*word == ':') word++;
        }
        errno = 0;
        long result = syscall(argument[0], argument[1], argument[2], argument[3], argument[4], argument[5], argument[6]);
        printf("%s%d", i ? ", " : "", result == -1 ? errno : 0);
        fflush(stdout);
    }
    printf("]\n");
    return 0;
}

/* `notify TEXT`: send TEXT to NOTIFY_SOCKET, as sd_notify does */
static int notify(const char *message) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = getenv("NOTIFY_SOCKET");
    if (!path) return 3;
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    socklen_t length = offsetof(struct sockaddr_un, sun_path) + strlen(address.sun_path);
    return sendto(fd, message, strlen(message), 0, (struct sockaddr *)&address, length) < 0 ? 4 : 0;
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "calls")) return calls(argv + 2);
    if (argc > 2 && !strcmp(argv[1], "notify")) return notify(argv[2]);
    if (argc > 1 && !strcmp(argv[1], "arguments")) { printf("{"); list("argv", argv); printf("}\n"); return 0; }
    return report(argv + 1);
}
