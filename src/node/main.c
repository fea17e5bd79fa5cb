/* main.c - muster-node: the agent's two commands. */
#include "base/buf.h"
#include "base/file.h"
#include "node/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TOKEN_MAX 1024

static const char usage[] =
    "usage: muster-node join --dir DIR --name NAME --head ADDR:PORT --token-file FILE\n"
    "       muster-node run --dir DIR\n"
    "\n"
    "The agent of one node. `join` makes a key, proves with a token (FILE, or `-` for standard\n"
    "input; `muster cluster` and the head's administrator hand them out) that this machine may be\n"
    "node NAME, and notes it in DIR/node.json. `run` connects to the head and runs what it is told\n"
    "to; attempts go on when it is stopped, and it takes up with them when it is started again.\n";

static int misuse(const char *text, const char *what)
{
    fprintf(stderr, "muster-node: %s%s\nTry 'muster-node --help'.\n", text, what);
    return 2;
}

static int read_token(const char *path, struct buf *token, struct error *err)
{
    int rc = file_read(AT_FDCWD, strcmp(path, "-") ? path : "/dev/stdin", TOKEN_MAX, token, err);
    while (token->len && strchr("\r\n\t ", token->data[token->len - 1]))
        token->data[--token->len] = 0;
    if (rc == 0 && strlen(buf_str(token)) == 0)
        rc = error_set(err, ERR_USAGE, "--token-file %s: it is empty", path);
    return rc;
}

static int join(const char *dir, const char *name, const char *head, const char *token_file)
{
    struct error err = {0};
    struct buf token = BUF_INIT;
    if (!name || !head || !token_file)
        return misuse("join: missing option --", !name ? "name" : !head ? "head" : "token-file");
    int rc = read_token(token_file, &token, &err);
    if (rc == 0)
        rc = join_run(dir, name, head, buf_str(&token), &err);
    if (token.data)
        explicit_bzero(token.data, token.len);
    buf_free(&token);
    if (rc == 0)
        return 0;
    fprintf(stderr, "muster-node: %s\n", err.text);
    return err.code == ERR_USAGE ? 2 : 1;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"dir", required_argument, NULL, 'd'},
                                            {"name", required_argument, NULL, 'n'},
                                            {"head", required_argument, NULL, 'H'},
                                            {"token-file", required_argument, NULL, 't'},
                                            {"help", no_argument, NULL, 'h'},
                                            {"version", no_argument, NULL, 'V'},
                                            {0}};
    const char *dir = NULL, *name = NULL, *head = NULL, *token_file = NULL;
    opterr = 0;
    for (int c; (c = getopt_long(argc, argv, ":", options, NULL)) != -1;) {
        switch (c) {
        case 'd':
            dir = optarg;
            break;
        case 'n':
            name = optarg;
            break;
        case 'H':
            head = optarg;
            break;
        case 't':
            token_file = optarg;
            break;
        case 'h':
            fputs(usage, stdout);
            return 0;
        case 'V':
            puts("muster-node " MUSTER_VERSION);
            return 0;
        case ':':
            return misuse("missing value: ", argv[optind - 1]);
        default:
            return misuse("unknown option: ", argv[optind - 1]);
        }
    }
    if (optind >= argc)
        return misuse("expected a command: join or run", "");
    const char *verb = argv[optind];
    if (argc - optind > 1)
        return misuse("unexpected argument: ", argv[optind + 1]);
    if (strcmp(verb, "join") && strcmp(verb, "run"))
        return misuse("unknown command (expected join or run): ", verb);
    if (!dir)
        return misuse(verb, ": missing option --dir");
    if (!strcmp(verb, "join"))
        return join(dir, name, head, token_file);
    if (name || head || token_file)
        return misuse("run takes --dir alone", "");
    return agent_run(dir);
}
