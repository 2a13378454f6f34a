// waits for the signal in a thread, blocked everywhere else (`sigwait`), in C
// Group: Who hears the notice
// Promise: its save
// Expect: model=2

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

int main(void) {
    sigset_t notice;
    int number;
    char path[4096];
    sigemptyset(&notice);
    sigaddset(&notice, SIGUSR1);
    sigprocmask(SIG_BLOCK, &notice, NULL);
    mkdir(getenv("SAVES"), 0755);
    fclose(fopen(getenv("READY"), "w"));
    sigwait(&notice, &number);
    snprintf(path, sizeof path, "%s/model", getenv("SAVES"));
    FILE *file = fopen(path, "w");
    fputs("2", file);
    fclose(file);
    pause();
}
