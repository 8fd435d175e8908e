/* Whether the threads of a parallel region can be had, found out before one asks for them: where
 * they can't, OpenMP's runtime ends the process.
 *
 * Included by cpu.pyx alone, so that what is known is known to every kernel.
 */
#ifndef VBFAST_TEAM_H
#define VBFAST_TEAM_H

#include "threads.h"

/* A thread that has ended counts for a moment longer: so many are tried beyond those needed. */
#define TEAM_RESERVE 2
/* Threads that many processors are good for; a machine of few may be asked for some more. */
#define TEAM_SHARE 4
#define TEAM_LEAST 16
/* Seconds for which a refusal holds. */
#define TEAM_PATIENCE 1.0

#if defined(_OPENMP) && !defined(_WIN32)
#include <ctype.h>
#include <pthread.h>
#include <string.h>

/* Bytes of a stack that the runtime asks for, or 0 for the system's own (OpenMP 5.1, 6.4). */
static size_t team_stack(void)
{
    const char *text = getenv("OMP_STACKSIZE");
    char *end;
    if (text == NULL)
        text = getenv("GOMP_STACKSIZE");
    if (text == NULL)
        return 0;
    unsigned long long size = strtoull(text, &end, 10);
    while (isspace((unsigned char)*end))
        end++;
    int shift = 10;
    switch (tolower((unsigned char)*end)) {
    case 'b': shift = 0; break;
    case 'm': shift = 20; break;
    case 'g': shift = 30; break;
    }
    return size > SIZE_MAX >> shift ? SIZE_MAX : (size_t)(size << shift);
}

static void *team_member(void *gate)
{
    pthread_mutex_lock(gate);
    pthread_mutex_unlock(gate);
    return NULL;
}

/* Whether n threads more can be there at the same time. */
static int team_fits(int n, size_t stack)
{
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    pthread_attr_t attributes;
    pthread_t *members = malloc((size_t)n * sizeof *members);
    int made = 0;
    if (members == NULL || pthread_attr_init(&attributes) != 0) {
        free(members);
        return 0;
    }
    if (stack > 0)
        pthread_attr_setstacksize(&attributes, stack);
    pthread_mutex_lock(&gate);
    while (made < n && pthread_create(members + made, &attributes, team_member, &gate) == 0)
        made++;
    pthread_mutex_unlock(&gate);
    for (int i = 0; i < made; i++)
        pthread_join(members[i], NULL);
    pthread_attr_destroy(&attributes);
    free(members);
    return made == n;
}

static size_t team_stack_size;
static int team_most = 1;
static int team_forked;

static void team_after_fork(void) { team_forked = 1; }

static void team_start(void)
{
    team_stack_size = team_stack();
    team_most = TEAM_SHARE * omp_get_num_procs();
    if (team_most < TEAM_LEAST)
        team_most = TEAM_LEAST;
    pthread_atfork(NULL, NULL, team_after_fork);
}

/* Of this thread: how many the runtime keeps for it, those of its last region (it ends what a
 * smaller one has no use for), and what was refused, and when. */
static __thread int team_held = 1;
static __thread int team_refused;
static __thread double team_refused_at;

/* Threads that a region may have, n or 1; -n where it turned out just now that n can't be had. */
static int team_granted(int n)
{
    if (n <= 1 || team_forked || omp_in_parallel())
        return 1;
    if (n > team_held) {
        if (team_refused > 0 && n >= team_refused
            && seconds() - team_refused_at < TEAM_PATIENCE)
            return 1;
        if (!team_fits(n - team_held + TEAM_RESERVE, team_stack_size)) {
            team_refused = n;
            team_refused_at = seconds();
            return -n;
        }
        team_refused = 0;
    }
    team_held = n;
    return n;
}
#elif defined(_OPENMP)
static int team_most = 1;
static const int team_forked = 0;
static void team_start(void)
{
    team_most = TEAM_SHARE * omp_get_num_procs();
    if (team_most < TEAM_LEAST)
        team_most = TEAM_LEAST;
}
static int team_granted(int n) { return n; }
#else
static const int team_most = 1;
static const int team_forked = 0;
static void team_start(void) {}
static int team_granted(int n) { return 1; }
#endif

#endif
