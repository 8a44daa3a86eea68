/* Runs a program under the system call filter of a systemd unit, as systemd does: sandbox MDWE FAMILIES PROGRAM...
 * `allowed.h` beside it has the numbers of the calls that are allowed; every other one fails with EPERM. FAMILIES are the
 * kinds of sockets, with commas between them; MDWE is 1 where memory must not be writable and executable. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SET_MDWE 65

static const long allowed[] = {
#include "allowed.h"
};

static struct sock_filter filter[4096];
static unsigned short length;

static void add(unsigned short code, unsigned char yes, unsigned char no, unsigned int value) {
    filter[length++] = (struct sock_filter){code, yes, no, value};
}

int main(int argc, char **argv) {
    if (argc < 4) return 64;
    add(BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, nr));
    for (size_t one = 0; one < sizeof allowed / sizeof *allowed; one++) {
        if (allowed[one] == __NR_socket) continue;
        add(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, (unsigned int)allowed[one]);
        add(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW);
    }
    add(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, __NR_socket);
    add(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | EPERM);
    add(BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, args));
    for (char *family = strtok(argv[2], ","); family; family = strtok(NULL, ",")) {
        add(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, (unsigned int)atoi(family));
        add(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW);
    }
    add(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | EAFNOSUPPORT);
    struct sock_fprog program = {length, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) return perror("no new privileges"), 70;
    /* Linux before 6.3 knows no such flag: there systemd filters calls, and this test does without. */
    if (atoi(argv[1]) && prctl(SET_MDWE, 1, 0, 0, 0) && errno != EINVAL) return perror("MDWE"), 70;
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) return perror("filter"), 70;
    execvp(argv[3], argv + 3);
    perror(argv[3]);
    return 127;
}
