/* help.c - help texts and manual pages, both from the tables of command.h.
 *
 * A page of help is: what it is, usage, examples, text, options. The manual page of a noun holds
 * the same for each of its commands, as roff with the man(7) macros. A test compares the two.
 */
#include "base/buf.h"
#include "cli/command.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define HELP_WIDTH_MAX 100
#define OPTION_COLUMN 30

static const char muster_text[] =
    "Muster runs jobs, MPI jobs above all, on a cluster of machines. The cluster is named by --dir or the "
    "environment variable MUSTER_DIR; without them it is /var/lib/muster/default for root and "
    "~/.local/state/muster for others.\n"
    "\n"
    "Options are written --name VALUE, --name=VALUE or /name:VALUE, in any case. The options of a command "
    "line end at "
    "the command to run. The classic names job, task, node and clusrun are links to muster, in a folder of "
    "their own "
    "that can be put on the PATH.";
static const char exit_text[] = "0: done. 1: it failed, for the reason printed. 2: usage; nothing was tried. "
                                "Commands that wait for a job return "
                                "the job's exit code; interrupted by Ctrl-C they return 130.";

static const struct example muster_examples[] = {
    {"muster cluster start --nodes 4", "Start a head and four nodes on this machine"},
    {"muster job submit --wait --numnodes 4 mpiexec hostname", "Run a command on four nodes and wait for it"},
    {"muster task view 1.1", "See what it printed"},
    {"muster node list", "See the nodes"},
    {NULL, NULL},
};

/* ---- shared ---- */

static bool has_refused(const struct option *o)
{
    for (; o->name; o++)
        if (!o->set)
            return true;
    return false;
}

/* "/license, /holduntil": the options known by name only. */
static void refused_list(struct buf *out, const struct command *c)
{
    for (const struct option_group *g = c->groups; g && g->options; g++) {
        if (!has_refused(g->options))
            continue;
        for (const struct option *o = g->options; o->name; o++) {
            char word[80];
            snprintf(word, sizeof word, "/%s,", o->name);
            if (!o->set && !(out->len && strstr(buf_str(out), word))) /* a job's and a task's: once */
                buf_addf(out, "/%s, ", o->name);
        }
    }
    if (out->len) {
        out->len -= 2;
        out->data[out->len] = 0;
    }
}

static const char *program_of(const struct noun *noun, const struct command *c)
{
    static char text[96];
    if (noun->single)
        snprintf(text, sizeof text, "muster %s", noun->name);
    else
        snprintf(text, sizeof text, "muster %s %s", noun->name, c->name);
    return text;
}

/* "--numcores, --numprocessors MIN[-MAX]" */
static void option_head(struct buf *out, const struct option *o)
{
    buf_addf(out, "--%s", o->name);
    for (const char *a = o->aliases; a && *a; a += strspn(a, " ")) {
        size_t n = strcspn(a, " ");
        buf_addf(out, ", %s%.*s", *a == '?' ? "/" : n == 1 ? "-" : "--", (int)n, a);
        a += n;
    }
    if (o->value)
        buf_addf(out, " %s", o->value);
}

/* ---- help ---- */

static size_t help_width(FILE *out)
{
    struct winsize ws;
    if (isatty(fileno(out)) && !ioctl(fileno(out), TIOCGWINSZ, &ws) && ws.ws_col >= 40)
        return ws.ws_col < HELP_WIDTH_MAX ? ws.ws_col : HELP_WIDTH_MAX;
    return 80;
}

/* Words of `text` in lines of at most `width`, each but the first beginning at `indent`; `column`
 * is where the first begins. A newline in the text ends a line. */
static void wrap(FILE *out, const char *text, size_t indent, size_t column, size_t width)
{
    bool fresh = true; /* nothing on this line so far */
    for (const char *p = text; *p;) {
        if (*p == '\n') {
            fputc('\n', out);
            p++;
            fresh = true;
            column = 0;
            if (*p && *p != '\n')
                column = (size_t)fprintf(out, "%*s", (int)indent, "");
            continue;
        }
        size_t n = strcspn(p, " \n");
        if (!fresh && column + 1 + n > width) {
            fprintf(out, "\n%*s", (int)indent, "");
            column = indent;
            fresh = true;
        }
        column += (size_t)fprintf(out, "%s%.*s", fresh ? "" : " ", (int)n, p);
        fresh = false;
        p += n;
        p += strspn(p, " ");
    }
    fputc('\n', out);
}

static void help_options(FILE *out, const char *title, const struct option *o, size_t width)
{
    fprintf(out, "\n%s:\n", title);
    for (; o->name; o++) {
        struct buf head = BUF_INIT;
        if (!o->text || !o->set)
            continue;
        option_head(&head, o);
        size_t column = (size_t)fprintf(out, "  %s", buf_str(&head));
        if (column + 2 > OPTION_COLUMN) {
            fputc('\n', out);
            column = 0;
        }
        fprintf(out, "%*s", (int)(OPTION_COLUMN - column), "");
        wrap(out, o->text, OPTION_COLUMN, OPTION_COLUMN, width);
        buf_free(&head);
    }
}

static void help_examples(FILE *out, const struct example *e)
{
    if (!e)
        return;
    fprintf(out, "\nExamples:\n");
    for (; e->command; e++)
        fprintf(out, "  %s\n      %s\n", e->command, e->text);
}

static void help_command(FILE *out, const struct noun *noun, const struct command *c)
{
    size_t width = help_width(out);
    const char *program = program_of(noun, c);
    fprintf(out, "%s - %s\n\nUsage:\n", program, c->summary);
    const char *u = c->usage; /* may be empty: then the command stands alone */
    do {
        size_t n = strcspn(u, "\n");
        fprintf(out, "  %s%s%.*s\n", program, n ? " " : "", (int)n, u);
        u += n + strspn(u + n, "\n");
    } while (*u);
    help_examples(out, c->examples);
    if (c->text) {
        fputc('\n', out);
        wrap(out, c->text, 0, 0, width);
    }
    for (const struct option_group *g = c->groups; g && g->options; g++)
        help_options(out, g->title ? g->title : "Options", g->options, width);
    help_options(out, "Common options", common_options(c), width);
    struct buf refused = BUF_INIT;
    refused_list(&refused, c);
    if (refused.len) {
        fprintf(out, "\nKnown from HPC Pack, refused in this version:\n  ");
        wrap(out, buf_str(&refused), 2, 2, width);
    }
    buf_free(&refused);
}

static void help_noun(FILE *out, const struct noun *noun)
{
    fprintf(out, "muster %s - %s\n\nUsage:\n  muster %s COMMAND [options] ...\n\nCommands:\n", noun->name,
            noun->summary, noun->name);
    for (const struct command *c = noun->commands; c->name; c++)
        fprintf(out, "  %-12s %s\n", c->name, c->summary);
    if (noun->text) {
        fputc('\n', out);
        wrap(out, noun->text, 0, 0, help_width(out));
    }
    fprintf(out, "\n'muster %s COMMAND --help' explains one.\n", noun->name);
}

static void help_muster(FILE *out)
{
    fprintf(
        out,
        "muster %s - jobs on a cluster of machines\n\nUsage:\n  muster COMMAND [options] ...\n\nCommands:\n",
        MUSTER_VERSION);
    for (size_t i = 0; nouns[i]; i++)
        fprintf(out, "  %-10s %s\n", nouns[i]->name, nouns[i]->summary);
    fprintf(out, "  %-10s %s\n  %-10s %s\n", "help", "show this, or the help of a command", "version",
            "print the version");
    help_examples(out, muster_examples);
    fputc('\n', out);
    wrap(out, muster_text, 0, 0, help_width(out));
    fprintf(out, "\n'muster help COMMAND' explains one; 'man muster' has it all.\n");
}

void help_print(FILE *out, const struct noun *noun, const struct command *command)
{
    if (!noun)
        help_muster(out);
    else if (command || noun->single)
        help_command(out, noun, command ? command : noun->commands);
    else
        help_noun(out, noun);
}

/* ---- manual pages ---- */

/* Text as roff: backslashes and hyphens escaped, no line that begins with a control character. */
static void man_text(FILE *out, const char *text)
{
    bool start = true;
    for (const char *p = text; *p; p++) {
        if (*p == '\n') {
            size_t n = strspn(p, "\n");
            fputs(n > 1 ? "\n.PP\n" : "\n.br\n", out);
            p += n - 1;
            start = true;
            continue;
        }
        if (start && (*p == '.' || *p == '\''))
            fputs("\\&", out);
        start = false;
        if (*p == '\\')
            fputs("\\e", out);
        else if (*p == '-')
            fputs("\\-", out);
        else if (*p == '\'')
            fputs("\\(aq", out);
        else
            fputc(*p, out);
    }
    fputc('\n', out);
}

static void man_options(FILE *out, const char *title, const struct option *o)
{
    fprintf(out, ".PP\n%s:\n", title);
    for (; o->name; o++) {
        struct buf head = BUF_INIT;
        if (!o->text || !o->set)
            continue;
        option_head(&head, o);
        fputs(".TP\n.B ", out);
        man_text(out, buf_str(&head));
        man_text(out, o->text);
        buf_free(&head);
    }
}

static void man_examples(FILE *out, const struct example *e)
{
    for (; e && e->command; e++) {
        fputs(".TP\n.B ", out);
        man_text(out, e->command);
        man_text(out, e->text);
    }
}

static void man_synopsis(FILE *out, const struct noun *noun, const struct command *c)
{
    const char *u = c->usage;
    do {
        size_t n = strcspn(u, "\n");
        char line[256];
        snprintf(line, sizeof line, "%.*s", (int)n, u);
        fprintf(out, ".B %s\n", program_of(noun, c));
        if (n)
            man_text(out, line);
        fputs(".br\n", out);
        u += n + strspn(u + n, "\n");
    } while (*u);
}

static void man_command(FILE *out, const struct noun *noun, const struct command *c)
{
    struct buf refused = BUF_INIT;
    if (!noun->single) {
        fprintf(out, ".SS %s\n", c->name);
        man_text(out, c->summary);
        fputs(".PP\n", out);
        man_synopsis(out, noun, c);
    }
    if (c->text) {
        fputs(".PP\n", out);
        man_text(out, c->text);
    }
    for (const struct option_group *g = c->groups; g && g->options; g++)
        man_options(out, g->title ? g->title : "Options", g->options);
    man_options(out, "Common options", common_options(c));
    refused_list(&refused, c);
    if (refused.len) {
        fputs(".PP\nKnown from HPC Pack, refused in this version: ", out);
        man_text(out, buf_str(&refused));
    }
    if (c->examples) {
        fputs(".PP\nExamples:\n", out);
        man_examples(out, c->examples);
    }
    buf_free(&refused);
}

static void man_end(FILE *out, const char *see_also)
{
    fputs(".SH EXIT STATUS\n", out);
    man_text(out, exit_text);
    fputs(
        ".SH ENVIRONMENT\n.TP\n.B MUSTER_DIR\nThe cluster\\(aqs folder, where \\-\\-dir does not name one.\n"
        ".TP\n.B NO_COLOR\nNot empty: no colours.\n",
        out);
    fputs(".SH SEE ALSO\n", out);
    man_text(out, see_also);
}

void help_man(FILE *out, const struct noun *noun)
{
    char title[64], upper[64];
    snprintf(title, sizeof title, noun ? "muster-%s" : "muster%s", noun ? noun->name : "");
    size_t i = 0;
    for (; title[i]; i++)
        upper[i] = (char)(title[i] >= 'a' && title[i] <= 'z' ? title[i] - 32 : title[i]);
    upper[i] = 0;
    fprintf(out, ".TH %s 1 \"\" \"Muster %s\" \"Muster manual\"\n.SH NAME\n", upper, MUSTER_VERSION);
    fprintf(out, "%s \\- %s\n.SH SYNOPSIS\n", title, noun ? noun->summary : "jobs on a cluster of machines");
    if (!noun) {
        fputs(".B muster\nCOMMAND [options] ...\n.SH DESCRIPTION\n", out);
        man_text(out, muster_text);
        fputs(".SH COMMANDS\n", out);
        for (size_t n = 0; nouns[n]; n++) {
            fprintf(out, ".TP\n.B muster %s\n", nouns[n]->name);
            man_text(out, nouns[n]->summary);
        }
        fputs(".TP\n.B muster help\nshow the help of muster, or of a command\n"
              ".TP\n.B muster version\nprint the version\n.SH EXAMPLES\n",
              out);
        man_examples(out, muster_examples);
        struct buf also = BUF_INIT;
        for (size_t n = 0; nouns[n]; n++)
            buf_addf(&also, "muster-%s(1), ", nouns[n]->name);
        buf_adds(&also, "mpiexec(1), mpipingpong(1)");
        man_end(out, buf_str(&also));
        buf_free(&also);
        return;
    }
    if (noun->single) {
        man_synopsis(out, noun, noun->commands);
    } else {
        fprintf(out, ".B muster %s\nCOMMAND [options] ...\n", noun->name);
    }
    fputs(".SH DESCRIPTION\n", out);
    man_text(out, noun->text ? noun->text : noun->summary);
    if (!noun->single)
        fputs(".SH COMMANDS\n", out);
    for (const struct command *c = noun->commands; c->name; c++)
        man_command(out, noun, c);
    man_end(out, noun->see_also ? noun->see_also : "muster(1)");
}
