/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The default file and the manual page, made from the tables. */

#include <string.h>

#include "config.h"
#include "config_table.h"

#define AT_START "Read at start only."

static void wrapped_print(FILE *out, const char *text)
{
	size_t column = 0;

	while (*text) {
		size_t length = strcspn(text, " ");

		if (!column || column + 1 + length > 96) {
			fprintf(out, "%s#", column ? "\n" : "");
			column = 1;
		}
		fprintf(out, " %.*s", (int)length, text);
		column += 1 + length;
		text += length;
		text += *text == ' ';
	}
	fputc('\n', out);
}

static void section_print(FILE *out, const struct setting *table, size_t n, bool examples)
{
	const char *section = "";

	for (size_t i = 0; i < n; i++) {
		if (strcmp(section, table[i].section)) {
			section = table[i].section;
			fprintf(out, "\n%s[%s]\n", examples ? "#" : "", section);
		}
		wrapped_print(out, table[i].doc);
		if (table[i].at_start)
			fputs("# " AT_START "\n", out);
		fprintf(out, "#%s=%s\n", table[i].name, table[i].default_text);
	}
}

void config_print_default(FILE *out)
{
	fputs("# iommubrokerd.conf: every key, commented out at its default. See "
	      "iommubrokerd.conf(5).\n",
	      out);
	section_print(out, config_settings, n_config_settings, false);
	fputs("\n# Functions of the emulated backend (--backend=emulated), one section each; "
	      "without "
	      "any it\n# has the function ids 1 to 8.\n",
	      out);
	section_print(out, emulated_settings, n_emulated_settings, true);
}

static void manual_entry(FILE *out, const char *name, const char *default_text, const char *doc,
			 bool at_start)
{
	fprintf(out, ".TP\n.BR %s =\n%s\n%s", name, doc, at_start ? AT_START "\n" : "");
	if (*default_text)
		fprintf(out, "Default: %s.\n", default_text);
}

static void manual_table(FILE *out, const struct setting *table, size_t n)
{
	const char *section = "";

	for (size_t i = 0; i < n; i++) {
		if (strcmp(section, table[i].section)) {
			section = table[i].section;
			fprintf(out, ".SS [%s]\n", section);
		}
		manual_entry(out, table[i].name, table[i].default_text, table[i].doc,
			     table[i].at_start);
	}
}

static void manual_settings(FILE *out)
{
	fputs(".TH IOMMUBROKERD.CONF 5 \"\" \"iommubroker\" \"File formats\"\n"
	      ".SH NAME\niommubrokerd.conf, quota.d, device.d \\- configuration of iommubrokerd\n"
	      ".SH SYNOPSIS\n.nf\n"
	      "/etc/iommubroker/iommubrokerd.conf\n"
	      "/etc/iommubroker/iommubrokerd.conf.d/*.conf\n"
	      "/etc/iommubroker/quota.d/*.conf\n"
	      "/etc/iommubroker/quota.d/NAME.conf.d/*.conf\n"
	      "/etc/iommubroker/device.d/*.conf\n.fi\n"
	      ".SH DESCRIPTION\n"
	      "The main file is the first that exists in /etc/iommubroker, /run/iommubroker and\n"
	      "/usr/lib/iommubroker. Drop-ins of all three folders follow in the order of their\n"
	      "names; a name in an earlier folder hides the same name in a later one. So it is "
	      "with\n"
	      "the files of quota.d and device.d. A file that is empty, or a link to /dev/null, "
	      "hides\n"
	      "those below and says nothing itself. Only names that end in .conf and do not begin "
	      "with\n"
	      "a dot are read. With\n"
	      ".BR \\-\\-config\\-dir\nonly that folder is read, or, given several times, those "
	      "folders, the first taking\nprecedence.\n"
	      ".PP\nA line is at most 198 bytes long, a comment begins with # or ; and a file has "
	      "at most\n"
	      "1 MiB. What is no regular file, cannot be read, or is no text is a mistake.\n"
	      ".PP\nWith a mistake in any file the daemon does not start, and a reload keeps "
	      "everything "
	      "as it\n"
	      "was; all mistakes (64 at most, and how many more) are told with file, line and key, "
	      "by\n"
	      ".B iommubrokerd \\-\\-check\\-config\n"
	      "without a daemon, and by\n.B iommubrokerctl config check\n"
	      "of a daemon that runs.\n"
	      ".B iommubrokerctl config show\n"
	      "tells each value that holds, the file and line it comes from or that it is the "
	      "default, "
	      "and what\nwas read since and waits for the next start. What is used above a lower "
	      "limit "
	      "stays.\n"
	      ".PP\nSizes are in bytes, or with the suffix K, M, G, T, P or E (powers of 1024), "
	      "or a\npercentage of the host's memory, or\n.BR infinity .\n"
	      ".SH SETTINGS\n",
	      out);
	manual_table(out, config_settings, n_config_settings);
	fputs(".PP\nSections [EmulatedFunction] describe the functions of the emulated backend, "
	      "one\n"
	      "section each; without any it has the zPCI function ids 1 to 8 at 0000:00:01.0 to\n"
	      "0000:00:08.0, with the ids 1234:11e8.\n",
	      out);
	manual_table(out, emulated_settings, n_emulated_settings);
}

static void manual_quota_rules(FILE *out)
{
	fputs(".SH QUOTA RULES\n"
	      "Each file in quota.d is one rule: its [Match] says for whom, its [Quota] how much. "
	      "All\n"
	      "that [Match] gives must fit. The first file that does wins, in the order of their "
	      "names;\n"
	      "a tenant is called as the file, without the number in front and without .conf. A "
	      "client\n"
	      "that no rule is for is refused, unless it is root or the daemon's own user. A rule\n"
	      "alone lets nobody in: [Clients] of\n.BR iommubrokerd.conf ,\n"
	      "by Users= or Groups=, has to admit the client, too. "
	      "Without\n"
	      "any rule each user is a tenant, with the limits of\n"
	      ".BR iommubrokerd.conf .\n"
	      "The limits of [Limits] hold in addition: the lowest one counts.\n"
	      ".PP\nThe packaged rule, 90\\-clients.conf, is for members of the group\n"
	      ".BR iommubroker\\-clients :\neach user is a tenant, and nobody else is served. A "
	      "name with a \\- before it\n"
	      "need not exist on the host.\n"
	      ".PP\nFiles in quota.d/NAME.conf.d add to the rule NAME.conf, in the order of their "
	      "names: patterns\nof [Match] in addition to those there are, limits in place of "
	      "them. A "
	      "folder that adds to no\nfile is a mistake. Two rules may not have one name.\n"
	      ".PP\n.B iommubrokerctl quota explain\n"
	      "tells for a user, a unit or a process which rule it is, why none before it, and "
	      "whether\n[Clients] admits it.\n"
	      ".SS [Match]\n",
	      out);
	for (size_t i = 0; i < n_match_rule_keys; i++)
		manual_entry(out, match_rule_keys[i].name, match_rule_keys[i].default_text,
			     match_rule_keys[i].doc, false);
	fputs(".SS [Quota]\n", out);
	for (size_t i = 0; i < n_quota_rule_keys; i++)
		manual_entry(out, quota_rule_keys[i].key.name, quota_rule_keys[i].key.default_text,
			     quota_rule_keys[i].key.doc, false);
}

static void manual_device_rules(FILE *out)
{
	fputs(".SH DEVICE RULES\n"
	      "Files in device.d hold sections [Device]. The first rule that matches the caller "
	      "and\n"
	      "the function decides, whether it allows or denies; without a match the function is\n"
	      "refused. Who a rule is for and which functions it covers must all fit; of each list "
	      "one\nvalue. With the emulated backend and no rule at all everyone who may connect "
	      "may open\nevery function.\n"
	      ".PP\nA rule counts when a function is opened. What becomes of one that is open when "
	      "a reload\nhas taken its rule away, says\n.B OnRuleLost=\nin [Devices]; "
	      "relaxed translation that a reload grants counts from the next time it is\nopened.\n"
	      ".B iommubrokerctl show\ntells the rule of each device, or that none gives it.\n"
	      ".PP\nA descriptor that is passed in is judged by what the host says of the device "
	      "behind it.\n",
	      out);
	for (size_t i = 0; i < n_device_rule_keys; i++)
		manual_entry(out, device_rule_keys[i].name, device_rule_keys[i].default_text,
			     device_rule_keys[i].doc, false);
}

void config_print_manual(FILE *out)
{
	manual_settings(out);
	manual_quota_rules(out);
	manual_device_rules(out);
	fputs(".SH EXAMPLE\nA file of quota.d, and one of device.d:\n.PP\n.nf\n[Match]\n"
	      "Slice=machine.slice\n[Quota]\nPinnedMemoryMax=64G\nPinnedMemoryPerGuestMax=16G\n"
	      "\n[Device]\nTenant=prod vms/*\nFunctionId=0x12 0x20\\-0x2f\n"
	      "RelaxedTranslation=no\n.fi\n"
	      ".SH SEE ALSO\n.BR iommubrokerd (8),\n.BR iommubrokerctl (1)\n",
	      out);
}
