/* Counts the calls by which a process changes what outlives it, and breaks one of them.
 *
 * Loaded by LD_PRELOAD into a process and every process that it starts, whatever environment they are given. The state
 * is one shared mapping of the file that IOFAULT_STATE names; tests/faults/shim.py has the same layout. A step is a
 * call on a file below the prefix or on an internet socket, counted while the state is armed. At the chosen step the
 * process group is killed before the call, or the call fails as on a full or a broken disk. While it imitates power cuts
 * it counts nothing: a file that is forced to the disk is copied to the folder beside the prefix named `<prefix>.disk`,
 * which so holds what a power cut would leave; a file that is deleted is deleted there too.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#define STEPS 16384
#define EXPORT __attribute__((visibility("default")))

enum mode { COUNT = 0, KILL = 1, FULL = 2, BROKEN = 3, POWER = 4 };

struct record {
    uint32_t pid;
    char text[124]; /* the call, whether a full disk fails it, and the path */
};

struct state {
    atomic_uint armed;
    atomic_uint step;
    uint32_t mode;
    uint32_t target;
    atomic_uint failed; /* calls that were made to fail */
    char prefix[1004];
    struct record log[STEPS];
};

static struct state *state;
static char preload[PATH_MAX + 16], where[PATH_MAX + 16];

#define REAL(name) ((__typeof__(&name))real_of(#name))
static void *real_of(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    if (!found)
        abort();
    return found;
}

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("IOFAULT_STATE"), *library = getenv("LD_PRELOAD");
    if (!path || !library)
        return;
    snprintf(where, sizeof where, "IOFAULT_STATE=%s", path);
    snprintf(preload, sizeof preload, "LD_PRELOAD=%s", library);
    int fd = REAL(open)(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    void *mapped = mmap(NULL, sizeof(struct state), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped != MAP_FAILED)
        state = mapped;
}

static int is_armed(void)
{
    return state && atomic_load(&state->armed);
}

static const char *below(const char *path)
{
    size_t length = strlen(state->prefix);
    if (!length || strncmp(path, state->prefix, length) || path[length] != '/')
        return NULL;
    return path + length + 1;
}

/* Return the error to fail with, 0 to go on. */
static int step(const char *call, const char *what, int needs_room)
{
    unsigned number = atomic_fetch_add(&state->step, 1) + 1;
    if (number <= STEPS) {
        struct record *record = &state->log[number - 1];
        record->pid = (uint32_t)getpid();
        snprintf(record->text, sizeof record->text, "%s %d %s", call, needs_room, what);
    }
    if (state->mode == KILL && number >= state->target) {
        kill(0, SIGKILL);
        for (;;)
            pause();
    }
    if (state->mode == FULL && number >= state->target && needs_room) {
        atomic_fetch_add(&state->failed, 1);
        return ENOSPC;
    }
    if (state->mode == BROKEN && number == state->target && strcmp(what, "socket")) {
        atomic_fetch_add(&state->failed, 1);
        return EIO;
    }
    return 0;
}

static int on_path(const char *call, int directory, const char *path, int needs_room)
{
    char full[2 * PATH_MAX], folder[PATH_MAX], link[64];
    if (!is_armed() || !path)
        return 0;
    if (path[0] == '/') {
        snprintf(full, sizeof full, "%s", path);
    } else {
        if (directory == AT_FDCWD) {
            if (!getcwd(folder, sizeof folder))
                return 0;
        } else {
            snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
            ssize_t length = readlink(link, folder, sizeof folder - 1);
            if (length < 0)
                return 0;
            folder[length] = 0;
        }
        snprintf(full, sizeof full, "%s/%s", folder, path);
    }
    const char *inside = below(full);
    return inside ? step(call, inside, needs_room) : 0;
}

static int on_file(const char *call, int fd, int needs_room)
{
    struct stat facts;
    char link[64], path[PATH_MAX];
    if (!is_armed())
        return 0;
    int before = errno, failure = 0;
    if (fstat(fd, &facts) == 0) {
        if (S_ISSOCK(facts.st_mode)) {
            struct sockaddr_storage address;
            socklen_t size = sizeof address;
            if (getsockname(fd, (struct sockaddr *)&address, &size) == 0 &&
                (address.ss_family == AF_INET || address.ss_family == AF_INET6))
                failure = step(call, "socket", 0);
        } else if (S_ISREG(facts.st_mode) || S_ISDIR(facts.st_mode)) {
            snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
            ssize_t length = readlink(link, path, sizeof path - 1);
            if (length > 0) {
                path[length] = 0;
                const char *inside = below(path);
                failure = inside ? step(call, inside, needs_room) : 0;
            }
        }
    }
    errno = before;
    return failure;
}

#define GUARD(failure)          \
    do {                        \
        int wrong = (failure);  \
        if (wrong) {            \
            errno = wrong;      \
            return -1;          \
        }                       \
    } while (0)

/* Writing. */
EXPORT ssize_t write(int fd, const void *from, size_t size)
{
    GUARD(on_file("write", fd, 1));
    return REAL(write)(fd, from, size);
}
EXPORT ssize_t pwrite(int fd, const void *from, size_t size, off_t at)
{
    GUARD(on_file("pwrite", fd, 1));
    return REAL(pwrite)(fd, from, size, at);
}
EXPORT ssize_t pwrite64(int fd, const void *from, size_t size, off64_t at)
{
    GUARD(on_file("pwrite", fd, 1));
    return REAL(pwrite64)(fd, from, size, at);
}
EXPORT ssize_t writev(int fd, const struct iovec *parts, int count)
{
    GUARD(on_file("writev", fd, 1));
    return REAL(writev)(fd, parts, count);
}
EXPORT ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at)
{
    GUARD(on_file("pwritev", fd, 1));
    return REAL(pwritev)(fd, parts, count, at);
}
ssize_t sendfile(int to, int from, off_t *at, size_t size);
EXPORT ssize_t sendfile(int to, int from, off_t *at, size_t size)
{
    GUARD(on_file("sendfile", to, 1));
    return REAL(sendfile)(to, from, at, size);
}
ssize_t sendfile64(int to, int from, off64_t *at, size_t size);
EXPORT ssize_t sendfile64(int to, int from, off64_t *at, size_t size)
{
    GUARD(on_file("sendfile", to, 1));
    return REAL(sendfile64)(to, from, at, size);
}
EXPORT ssize_t copy_file_range(int from, off64_t *at, int to, off64_t *there, size_t size, unsigned flags)
{
    GUARD(on_file("copy_file_range", to, 1));
    return REAL(copy_file_range)(from, at, to, there, size, flags);
}
EXPORT ssize_t send(int fd, const void *from, size_t size, int flags)
{
    GUARD(on_file("send", fd, 0));
    return REAL(send)(fd, from, size, flags);
}
EXPORT ssize_t sendto(int fd, const void *from, size_t size, int flags, const struct sockaddr *to, socklen_t length)
{
    GUARD(on_file("sendto", fd, 0));
    return REAL(sendto)(fd, from, size, flags, to, length);
}
EXPORT ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    GUARD(on_file("sendmsg", fd, 0));
    return REAL(sendmsg)(fd, message, flags);
}
EXPORT int connect(int fd, const struct sockaddr *to, socklen_t length)
{
    GUARD(on_file("connect", fd, 0));
    return REAL(connect)(fd, to, length);
}

/* What a power cut leaves of a file in the prefix's folder itself: what it was when it was last forced to the disk. */
static int on_disk(const char *path, char *there, size_t size)
{
    const char *inside = state && state->mode == POWER && is_armed() ? below(path) : NULL;
    if (!inside || strchr(inside, '/'))
        return 0;
    return snprintf(there, size, "%s.disk/%s", state->prefix, inside) < (int)size;
}
static void forced(int fd)
{
    char link[64], path[PATH_MAX], there[2 * PATH_MAX], block[65536];
    struct stat facts;
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length > 0 && fstat(fd, &facts) == 0 && S_ISREG(facts.st_mode)) {
        path[length] = 0;
        /* Through the caller's descriptor: another one, closed, would take its locks away. */
        int to = on_disk(path, there, sizeof there) ? REAL(open)(there, O_WRONLY | O_CREAT | O_TRUNC, 0600) : -1;
        for (off_t at = 0; to >= 0 && (length = pread(fd, block, sizeof block, at)) > 0; at += length)
            if (REAL(write)(to, block, (size_t)length) != length)
                abort();
        if (to >= 0)
            close(to);
    }
    errno = before;
}
static void gone(const char *path)
{
    char there[2 * PATH_MAX];
    int before = errno;
    if (on_disk(path, there, sizeof there))
        REAL(unlink)(there);
    errno = before;
}

/* Syncing and sizing. */
EXPORT int fsync(int fd)
{
    GUARD(on_file("fsync", fd, 0));
    int result = REAL(fsync)(fd);
    forced(fd);
    return result;
}
EXPORT int fdatasync(int fd)
{
    GUARD(on_file("fdatasync", fd, 0));
    int result = REAL(fdatasync)(fd);
    forced(fd);
    return result;
}
EXPORT int ftruncate(int fd, off_t size)
{
    struct stat facts;
    GUARD(on_file("ftruncate", fd, fstat(fd, &facts) == 0 && size > facts.st_size));
    return REAL(ftruncate)(fd, size);
}
EXPORT int ftruncate64(int fd, off64_t size)
{
    struct stat facts;
    GUARD(on_file("ftruncate", fd, fstat(fd, &facts) == 0 && size > facts.st_size));
    return REAL(ftruncate64)(fd, size);
}
EXPORT int fallocate(int fd, int how, off_t at, off_t size)
{
    GUARD(on_file("fallocate", fd, 1));
    return REAL(fallocate)(fd, how, at, size);
}
EXPORT int posix_fallocate(int fd, off_t at, off_t size)
{
    int failure = on_file("fallocate", fd, 1);
    return failure ? failure : REAL(posix_fallocate)(fd, at, size);
}

/* Names. */
EXPORT int rename(const char *from, const char *to)
{
    GUARD(on_path("rename", AT_FDCWD, to, 1));
    return REAL(rename)(from, to);
}
EXPORT int renameat(int from_folder, const char *from, int folder, const char *to)
{
    GUARD(on_path("rename", folder, to, 1));
    return REAL(renameat)(from_folder, from, folder, to);
}
EXPORT int renameat2(int from_folder, const char *from, int folder, const char *to, unsigned flags)
{
    GUARD(on_path("rename", folder, to, 1));
    return REAL(renameat2)(from_folder, from, folder, to, flags);
}
EXPORT int unlink(const char *path)
{
    GUARD(on_path("unlink", AT_FDCWD, path, 0));
    int result = REAL(unlink)(path);
    if (!result)
        gone(path);
    return result;
}
EXPORT int unlinkat(int folder, const char *path, int flags)
{
    GUARD(on_path("unlink", folder, path, 0));
    return REAL(unlinkat)(folder, path, flags);
}
EXPORT int rmdir(const char *path)
{
    GUARD(on_path("rmdir", AT_FDCWD, path, 0));
    return REAL(rmdir)(path);
}
EXPORT int link(const char *from, const char *to)
{
    GUARD(on_path("link", AT_FDCWD, to, 1));
    return REAL(link)(from, to);
}
EXPORT int linkat(int from_folder, const char *from, int folder, const char *to, int flags)
{
    GUARD(on_path("link", folder, to, 1));
    return REAL(linkat)(from_folder, from, folder, to, flags);
}
EXPORT int mkdir(const char *path, mode_t rights)
{
    struct stat facts;
    if (stat(path, &facts))
        GUARD(on_path("mkdir", AT_FDCWD, path, 1));
    return REAL(mkdir)(path, rights);
}
EXPORT int mkdirat(int folder, const char *path, mode_t rights)
{
    GUARD(on_path("mkdir", folder, path, 1));
    return REAL(mkdirat)(folder, path, rights);
}

/* Opening is a step where it makes or empties a file; only a new file needs room. */
static int on_open(int folder, const char *path, int flags)
{
    struct stat facts;
    if (!is_armed() || !(flags & (O_CREAT | O_TRUNC)) || (flags & O_TMPFILE) == O_TMPFILE)
        return 0;
    int before = errno, is_new = fstatat(folder, path, &facts, 0) != 0;
    errno = before;
    if (!is_new && !(flags & O_TRUNC))
        return 0;
    return on_path(is_new ? "create" : "empty", folder, path, is_new);
}
#define RIGHTS                                           \
    mode_t rights = 0;                                   \
    if (flags & (O_CREAT | O_TMPFILE)) {                 \
        va_list given;                                   \
        va_start(given, flags);                          \
        rights = (mode_t)va_arg(given, int);             \
        va_end(given);                                   \
    }
EXPORT int open(const char *path, int flags, ...)
{
    RIGHTS
    GUARD(on_open(AT_FDCWD, path, flags));
    return REAL(open)(path, flags, rights);
}
EXPORT int open64(const char *path, int flags, ...)
{
    RIGHTS
    GUARD(on_open(AT_FDCWD, path, flags));
    return REAL(open64)(path, flags, rights);
}
EXPORT int openat(int folder, const char *path, int flags, ...)
{
    RIGHTS
    GUARD(on_open(folder, path, flags));
    return REAL(openat)(folder, path, flags, rights);
}
EXPORT int openat64(int folder, const char *path, int flags, ...)
{
    RIGHTS
    GUARD(on_open(folder, path, flags));
    return REAL(openat64)(folder, path, flags, rights);
}

/* A full disk says so when it is asked. */
static int is_full(const char *path)
{
    return is_armed() && state->mode == FULL && atomic_load(&state->step) >= state->target &&
           (below(path) || !strcmp(path, state->prefix));
}
EXPORT int statvfs(const char *path, struct statvfs *facts)
{
    int result = REAL(statvfs)(path, facts);
    if (!result && is_full(path))
        facts->f_bfree = facts->f_bavail = 0;
    return result;
}
EXPORT int statvfs64(const char *path, struct statvfs64 *facts)
{
    int result = REAL(statvfs64)(path, facts);
    if (!result && is_full(path))
        facts->f_bfree = facts->f_bavail = 0;
    return result;
}

/* A process that is given a clean environment takes the shim along all the same. */
static char **with_shim(char *const given[])
{
    static char *made[1024];
    size_t count = 0;
    for (; given && *given && count < 1000; given++)
        if (strncmp(*given, "LD_PRELOAD=", 11) && strncmp(*given, "IOFAULT_STATE=", 14))
            made[count++] = *given;
    if (state) {
        made[count++] = preload;
        made[count++] = where;
    }
    made[count] = NULL;
    return made;
}
EXPORT int execve(const char *path, char *const arguments[], char *const environment[])
{
    return REAL(execve)(path, arguments, with_shim(environment));
}
EXPORT int execvpe(const char *file, char *const arguments[], char *const environment[])
{
    return REAL(execvpe)(file, arguments, with_shim(environment));
}
EXPORT int execvp(const char *file, char *const arguments[])
{
    return REAL(execvpe)(file, arguments, with_shim(environ));
}
