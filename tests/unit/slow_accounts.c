/* slow_accounts.c - loaded in front of the C library: a user database that does not answer.
 *
 * getpwuid_r() of SLOW_UID waits as long as there is the file that SLOW_FILE names. */
#include <pwd.h>
#include <stdlib.h>
#include <unistd.h>

#define SLOW_UID 65533

int getpwuid_r(uid_t uid, struct passwd *entry, char *text, size_t size, struct passwd **found)
{
    const char *file = getenv("SLOW_FILE");
    struct passwd *pw;
    while (uid == SLOW_UID && file && access(file, F_OK) == 0)
        usleep(10000);
    pw = uid == 0 ? getpwuid(uid) : NULL;
    (void)text;
    (void)size;
    if (pw)
        *entry = *pw;
    *found = pw ? entry : NULL;
    return 0;
}
