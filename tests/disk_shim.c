/* Preloaded into a process under test. Writes each write and sync of a file, and each line on standard output, in
 * order, to the file named by SHIM_LOG; fails writes (no space) or syncs (I/O error) of the write-ahead log while
 * the file named by SHIM_FULL or SHIM_NO_SYNC exists. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static void note(const char *call, int fd) {
    static int log_fd = -1;
    static ssize_t (*real_write)(int, const void *, size_t);
    char link[64], path[512], line[640];
    if (!getenv("SHIM_LOG")) return;
    if (!real_write) real_write = dlsym(RTLD_NEXT, "write");
    if (log_fd < 0) log_fd = open(getenv("SHIM_LOG"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    path[size < 0 ? 0 : size] = 0;
    int length = snprintf(line, sizeof line, "%s %s\n", call, fd == 1 ? "stdout" : path);
    real_write(log_fd, line, length);
}

static int fails(const char *variable, int fd) {
    char link[64], path[512];
    const char *flag = getenv(variable);
    if (!flag || access(flag, F_OK)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 4) return 0;
    path[size] = 0;
    return !strcmp(path + size - 4, "-wal");
}

#define WRITE(name, offset_type)                                                        \
    ssize_t name(int fd, const void *data, size_t size, offset_type offset) {           \
        static ssize_t (*real)(int, const void *, size_t, offset_type);                 \
        if (!real) real = dlsym(RTLD_NEXT, #name);                                      \
        if (fails("SHIM_FULL", fd)) { errno = ENOSPC; return -1; }                      \
        note("write", fd);                                                              \
        return real(fd, data, size, offset);                                            \
    }
WRITE(pwrite, off_t)
WRITE(pwrite64, off64_t)

ssize_t write(int fd, const void *data, size_t size) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = dlsym(RTLD_NEXT, "write");
    note("write", fd);
    return real(fd, data, size);
}

#define SYNC(name)                                                                      \
    int name(int fd) {                                                                  \
        static int (*real)(int);                                                        \
        if (!real) real = dlsym(RTLD_NEXT, #name);                                      \
        if (fails("SHIM_NO_SYNC", fd)) { errno = EIO; return -1; }                      \
        int result = real(fd);                                                          \
        note("sync", fd);                                                               \
        return result;                                                                  \
    }
SYNC(fsync)
SYNC(fdatasync)
