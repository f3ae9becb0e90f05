/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Which files make the configuration, in which order; and the checks over all of them. */

#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config_file.h"
#include "config_table.h"

#define DROP_INS_MAX 256
#define FOLDERS_MAX  3

/* Folders in order of precedence, highest first. */
static const char *const system_folders[] = {IB_SYSCONFDIR "/iommubroker", "/run/iommubroker",
					     IB_VENDORDIR "/iommubroker"};

struct drop_in {
	char name[NAME_MAX + 1];
	char path[PATH_MAX];
};

static int defaults_apply(struct config *config)
{
	struct config_file file = {.config = config, .path = "default"};

	for (size_t i = 0; i < n_config_settings; i++) {
		const struct setting *setting = &config_settings[i];
		int status = config_main_key(&file, setting->section, setting->name,
					     setting->default_text);

		if (status)
			return status;
	}
	return 0;
}

/* The file of the highest precedence only. */
static int main_file_read(struct config *config, const char *const *folders, size_t n_folders)
{
	char path[PATH_MAX];

	for (size_t i = 0; i < n_folders; i++) {
		int status;

		snprintf(path, sizeof(path), "%s/iommubrokerd.conf", folders[i]);
		status = config_file_read(config, path, config_main_key);
		if (status == -ENOENT)
			continue;
		if (status && !config->error[0])
			snprintf(config->error, sizeof(config->error), "%.400s: %s", path,
				 strerror(-status));
		return status;
	}
	return 0;
}

static bool drop_in_hidden(const struct drop_in *drop_ins, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(drop_ins[i].name, name))
			return true;
	return false;
}

/* Adds the folder's *.conf that no folder of higher precedence has. */
static int drop_ins_collect(struct config *config, const char *folder, struct drop_in *drop_ins,
			    size_t *n)
{
	DIR *stream = opendir(folder);
	struct dirent *entry;
	int status = 0;

	if (!stream)
		return errno == ENOENT ? 0 : -errno;
	while ((entry = readdir(stream))) {
		size_t length = strlen(entry->d_name);

		if (entry->d_name[0] == '.' || length < 6 ||
		    strcmp(entry->d_name + length - 5, ".conf") ||
		    drop_in_hidden(drop_ins, *n, entry->d_name))
			continue;
		if (*n == DROP_INS_MAX) {
			snprintf(config->error, sizeof(config->error), "%.400s: more than %d files",
				 folder, DROP_INS_MAX);
			status = -EINVAL;
			break;
		}
		snprintf(drop_ins[*n].name, sizeof(drop_ins[*n].name), "%s", entry->d_name);
		snprintf(drop_ins[*n].path, sizeof(drop_ins[*n].path), "%.3800s/%s", folder,
			 entry->d_name);
		(*n)++;
	}
	closedir(stream);
	return status;
}

static int drop_in_compare(const void *a, const void *b)
{
	return strcmp(((const struct drop_in *)a)->name, ((const struct drop_in *)b)->name);
}

static int drop_ins_read(struct config *config, const char *const *folders, size_t n_folders,
			 const char *subfolder, config_key_fn key)
{
	struct drop_in *drop_ins = calloc(DROP_INS_MAX, sizeof(*drop_ins));
	char folder[PATH_MAX];
	size_t n = 0;
	int status = drop_ins ? 0 : -ENOMEM;

	for (size_t i = 0; i < n_folders && !status; i++) {
		snprintf(folder, sizeof(folder), "%s/%s", folders[i], subfolder);
		status = drop_ins_collect(config, folder, drop_ins, &n);
		if (status && !config->error[0])
			snprintf(config->error, sizeof(config->error), "%.400s: %s", folder,
				 strerror(-status));
	}
	if (!status)
		qsort(drop_ins, n, sizeof(*drop_ins), drop_in_compare);
	for (size_t i = 0; i < n && !status; i++) {
		status = config_file_read(config, drop_ins[i].path, key);
		if (status && !config->error[0])
			snprintf(config->error, sizeof(config->error), "%.400s: %s",
				 drop_ins[i].path, strerror(-status));
	}
	free(drop_ins);
	return status;
}

static int functions_check(struct config *config)
{
	for (size_t i = 0; i < config->n_emulated; i++) {
		const struct iommu_emulated_function *function = &config->emulated[i];

		if (!function->pci_address[0] || function->dma_first > function->dma_last) {
			snprintf(config->error, sizeof(config->error),
				 "[EmulatedFunction] number %zu: %s", i + 1,
				 function->pci_address[0] ? "DmaFirst= is above DmaLast="
							  : "PciAddress= is missing");
			return -EINVAL;
		}
		for (size_t j = 0; j < i; j++) {
			if (config->emulated[j].fid == function->fid ||
			    !strcmp(config->emulated[j].pci_address, function->pci_address)) {
				snprintf(config->error, sizeof(config->error),
					 "[EmulatedFunction] numbers %zu and %zu have the same "
					 "FunctionId= or PciAddress=",
					 j + 1, i + 1);
				return -EINVAL;
			}
		}
	}
	return 0;
}

static uint32_t count32(const struct limit_setting *limit)
{
	return limit->max < UINT32_MAX ? (uint32_t)limit->max : UINT32_MAX;
}

/* What rpc/ counts by itself. */
static void connections_apply(struct config *config)
{
	const struct limit_set *limits = config->broker.limits;

	config->rpc.connections_max = count32(&limits[LIMIT_HOST].max[LEDGER_CONNECTIONS]);
	config->rpc.connections_per_user_max =
		count32(&limits[LIMIT_TENANT].max[LEDGER_CONNECTIONS]);
}

int config_load(struct config **ret, const char *config_dir)
{
	const char *const *folders = config_dir ? &config_dir : system_folders;
	size_t n_folders = config_dir ? 1 : FOLDERS_MAX;
	struct config *config = calloc(1, sizeof(*config));
	int status;

	if (!config)
		return -ENOMEM;
	*ret = config;
	status = defaults_apply(config);
	if (!status && config_dir && access(config_dir, R_OK | X_OK)) {
		status = -EINVAL;
		snprintf(config->error, sizeof(config->error), "--config-dir %.400s: %s",
			 config_dir, strerror(errno));
	}
	if (!status)
		status = main_file_read(config, folders, n_folders);
	if (!status)
		status = drop_ins_read(config, folders, n_folders, "iommubrokerd.conf.d",
				       config_main_key);
	if (!status)
		status = drop_ins_read(config, folders, n_folders, "quota.d", config_quota_key);
	if (!status)
		status = drop_ins_read(config, folders, n_folders, "device.d", config_device_key);
	if (!status)
		status = functions_check(config);
	connections_apply(config);
	return status;
}

void config_print_pending(FILE *out, const struct config *running, const struct config *read)
{
	for (size_t i = 0; i < n_config_settings; i++) {
		const struct setting *setting = &config_settings[i];
		size_t bytes = setting->type == SETTING_BYTES ? sizeof(uint64_t) : sizeof(uint32_t);

		if (setting->at_start && memcmp((const char *)running + setting->offset,
						(const char *)read + setting->offset, bytes))
			fprintf(out, "[%s] %s= takes effect at the next start\n", setting->section,
				setting->name);
	}
	if (running->n_emulated != read->n_emulated ||
	    memcmp(running->emulated, read->emulated,
		   running->n_emulated * sizeof(running->emulated[0])))
		fputs("[EmulatedFunction] sections take effect at the next start\n", out);
}

struct config *config_free(struct config *config)
{
	if (!config)
		return NULL;
	while (config->texts) {
		struct config_text *text = config->texts;

		config->texts = text->next;
		free(text);
	}
	free(config->device_rules);
	free(config->tenant_rules);
	free(config);
	return NULL;
}
