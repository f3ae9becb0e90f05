/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Run at build time: writes docs/OBSERVABILITY.md, or the journal's catalog, from the tables that
 * the daemon itself is made of.
 */

#include <stdio.h>
#include <string.h>

#include "rpc/metrics_table.h"
#include "util/log_message.h"
#include "util/trace.h"

#define MANUAL "man:iommubrokerd(8)"

static void metrics_print(FILE *out)
{
	static const struct {
		const char *name, *type, *labels, *help;
	} rows[] = {
#define X(id, name, type, unit, labels, help) {name, type, labels, help},
		METRICS_TABLE(X)
#undef X
	};

	fputs("\n## Metrics\n\n"
	      "OpenMetrics text, from `iommubrokerctl metrics` or the socket of\n"
	      "`iommubrokerd-metrics.socket` (`GET http://127.0.0.1:9797/metrics`). The socket is "
	      "not\n"
	      "enabled by default: anybody on the host can read it. It is passed to the service "
	      "when\n"
	      "both start: `systemctl enable iommubrokerd-metrics.socket`, and start it before "
	      "the\n"
	      "service, say at the next boot. Every name begins with `iommubroker_`; samples of a\n"
	      "counter end in `_total`. No label is a guest, a uuid or a process.\n\n"
	      "| name | type | labels | what |\n| --- | --- | --- | --- |\n",
	      out);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		fprintf(out, "| `%s` | %s | %s | %s |\n", rows[i].name, rows[i].type,
			rows[i].labels, rows[i].help);
}

static void messages_print(FILE *out)
{
	fputs("\n## Messages\n\n"
	      "Entries of the journal with a `MESSAGE_ID`; `journalctl -x` explains them. Monitor\n"
	      "(`iommubrokerctl monitor`) tells the same by their kind, and events of guests by\n"
	      "theirs. What clients can cause is logged so often only; the next entry says how "
	      "many\n"
	      "were left out. Fields: `IOMMUBROKER_` and `SESSION`, `TENANT`, `GUEST`, `METHOD`,\n"
	      "`REASON`, `RESOURCE`, `LIMIT`, `USED`, `REQUESTED`, `RULE`, `DEVICE`, `PEER_PID`,\n"
	      "`PEER_UID`.\n\n"
	      "| kind | MESSAGE_ID | subject |\n| --- | --- | --- |\n",
	      out);
	for (int i = LOG_MESSAGE_NONE + 1; i < LOG_MESSAGE_KINDS; i++)
		fprintf(out, "| %s | `%s` | %s |\n", log_message_row(i)->kind,
			log_message_row(i)->id, log_message_row(i)->subject);
}

static void traces_print(FILE *out)
{
	static const struct {
		const char *name, *arguments, *when;
	} rows[] = {
#define X(name, n, arguments, when) {#name, arguments, when},
		TRACE_POINTS(X)
#undef X
	};

	fputs("\n## Tracepoints\n\n"
	      "Static tracepoints (USDT) of provider `iommubroker`, where the daemon was built "
	      "with\n"
	      "`sys/sdt.h`; `bpftrace -l 'usdt:/usr/libexec/iommubroker/iommubrokerd:*'` or\n"
	      "`readelf -n` shows them. One that nobody watches is a nop. Which calls take longer\n"
	      "than 10 ms:\n\n"
	      "```\n"
	      "bpftrace -e 'usdt:/usr/libexec/iommubroker/iommubrokerd:request__done\n"
	      "  /arg5 > 10000000/ { printf(\"%s session %d: %d us\\n\", str(arg1), arg2, arg5 / "
	      "1000); }'\n"
	      "```\n\n"
	      "| name | arguments | when |\n| --- | --- | --- |\n",
	      out);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		fprintf(out, "| `%s` | %s | %s |\n", rows[i].name, rows[i].arguments, rows[i].when);
}

static void docs_print(FILE *out)
{
	fputs("# Observability\n\n"
	      "What an operator can see of a running `iommubrokerd`, beside `iommubrokerctl`. This "
	      "page\n"
	      "is made from the tables in the code (`daemon/observability_doc.c`).\n",
	      out);
	metrics_print(out);
	messages_print(out);
	traces_print(out);
}

static void catalog_print(FILE *out)
{
	fputs("# SPDX-License-Identifier: LGPL-2.1-or-later\n"
	      "# Explanations of iommubrokerd's journal entries, for journalctl -x.\n",
	      out);
	for (int i = LOG_MESSAGE_NONE + 1; i < LOG_MESSAGE_KINDS; i++) {
		const struct log_message_row *row = log_message_row(i);

		fprintf(out,
			"\n-- %s\nSubject: %s\nDefined-By: iommubrokerd\nDocumentation: " MANUAL
			"\n\n%s\n",
			row->id, row->subject, row->text);
	}
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "docs"))
		docs_print(stdout);
	else if (argc == 2 && !strcmp(argv[1], "catalog"))
		catalog_print(stdout);
	else
		return 2;
	return fflush(stdout) ? 1 : 0;
}
