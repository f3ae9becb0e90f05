/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* iommubrokerctl doctor: runs the checks, and prints what they found. */

#include "ctl/doctor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/command.h"
#include "ctl/doctor_file.h"
#include "ctl/json.h"
#include "ctl/text.h"

#define X(name, what) {doctor_check_##name, #name, what},
static const struct {
	void (*run)(struct doctor *doctor);
	const char *name, *what;
} checks[DOCTOR_CHECKS_N] = {DOCTOR_CHECKS(X)};
#undef X

const char *doctor_check_name(enum doctor_check check)
{
	static char name[32];

	snprintf(name, sizeof(name), "%s", checks[check].name);
	for (char *c = name; *c != '\0'; c++)
		if (*c == '_')
			*c = '-';
	return name;
}

const char *doctor_check_what(enum doctor_check check)
{
	return checks[check].what;
}

const char *doctor_severity_name(enum severity severity)
{
	static const char *const names[] = {"ok", "note", "warning", "serious"};

	return names[severity];
}

void doctor_tell(struct doctor *doctor, enum doctor_check check, enum severity severity,
		 const char *remedy, const char *what, ...)
{
	struct finding *finding;
	va_list arguments;

	if (doctor->n_findings >= DOCTOR_FINDINGS_MAX)
		return;
	finding = &doctor->findings[doctor->n_findings++];
	finding->check = check;
	finding->severity = severity;
	snprintf(finding->remedy, sizeof(finding->remedy), "%s", remedy != NULL ? remedy : "");
	va_start(arguments, what);
	vsnprintf(finding->what, sizeof(finding->what), what, arguments);
	va_end(arguments);
}

static void print_finding(const struct finding *finding)
{
	char line[2 * DOCTOR_TEXT_BYTES];

	printf("%-8s %s\n", doctor_severity_name(finding->severity),
	       doctor_check_name(finding->check));
	snprintf(line, sizeof(line), "%s", finding->what);
	text_print_indented(line, 9);
	if (finding->remedy[0] == '\0')
		return;
	snprintf(line, sizeof(line), "Remedy: %s", finding->remedy);
	text_print_indented(line, 9);
}

/* What is well takes a line for all. */
static void print_text(const struct doctor *doctor)
{
	size_t n[SEVERITY_SERIOUS + 1] = {0};

	for (int severity = SEVERITY_SERIOUS; severity >= SEVERITY_OK; severity--)
		for (size_t i = 0; i < doctor->n_findings; i++) {
			const struct finding *finding = &doctor->findings[i];

			if ((int)finding->severity != severity)
				continue;
			n[severity]++;
			if (severity != SEVERITY_OK)
				print_finding(finding);
			else
				printf("%-8s %-14s %s\n", doctor_severity_name(finding->severity),
				       doctor_check_name(finding->check),
				       text_safe(finding->what, 56).bytes);
		}
	printf("\n%zu serious, %zu warnings, %zu notes, %zu ok\n", n[SEVERITY_SERIOUS],
	       n[SEVERITY_WARNING], n[SEVERITY_NOTE], n[SEVERITY_OK]);
}

static void print_json(const struct doctor *doctor)
{
	json_t *all = json_array(), *json;

	for (size_t i = 0; i < doctor->n_findings; i++) {
		const struct finding *finding = &doctor->findings[i];

		json_array_append_new(all, json_pack("{s:s, s:s, s:s, s:s}", "id",
						     doctor_check_name(finding->check), "severity",
						     doctor_severity_name(finding->severity),
						     "what", text_safe(finding->what, 0).bytes,
						     "remedy", finding->remedy));
	}
	json = json_pack("{s:o}", "findings", all);
	json_print(json);
	json_decref(json);
}

static bool any_serious(const struct doctor *doctor)
{
	for (size_t i = 0; i < doctor->n_findings; i++)
		if (doctor->findings[i].severity == SEVERITY_SERIOUS)
			return true;
	return false;
}

/* The folders that the daemon was told, without the "/" in front. */
static void set_folders(struct doctor *doctor, const struct options *options, char *buffer,
			size_t buffer_bytes)
{
	const char *runtime = options->runtime_dir, *admin = options->admin_dir;

	if (admin == NULL && runtime != NULL) {
		snprintf(buffer, buffer_bytes, "%s/admin", runtime);
		admin = buffer;
	}
	doctor->runtime_dir = runtime != NULL ? runtime : "run/iommubroker";
	doctor->admin_dir = admin != NULL ? admin : "run/iommubroker-admin";
	doctor->runtime_dir += doctor->runtime_dir[0] == '/';
	doctor->admin_dir += doctor->admin_dir[0] == '/';
}

int command_doctor(struct command_context *context, int argc, char **argv)
{
	char admin_dir[DOCTOR_PATH_BYTES];
	struct doctor *doctor = calloc(1, sizeof(*doctor));
	bool serious;

	if (doctor == NULL)
		abort();
	doctor->root = context->options->root != NULL ? context->options->root : "";
	set_folders(doctor, context->options, admin_dir, sizeof(admin_dir));
	doctor->rpc = context->rpc;
	doctor->socket_path = context->socket_path;
	for (size_t i = 0; i < DOCTOR_CHECKS_N; i++)
		checks[i].run(doctor);
	if (context->options->json)
		print_json(doctor);
	else
		print_text(doctor);
	serious = any_serious(doctor);
	free(doctor);
	return serious ? EXIT_SERIOUS : EXIT_DONE;
}
