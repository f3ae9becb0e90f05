/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Which files make the configuration, in which order; and the checks over all of them. */

#include "config.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config_file.h"
#include "config_table.h"

/* Folders in order of precedence, highest first. */
static const char *const system_folders[] = {IB_SYSCONFDIR "/iommubroker", "/run/iommubroker",
					     IB_VENDORDIR "/iommubroker"};

struct folders {
	const char *const *paths;
	size_t n;
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

/* The file of the highest precedence only, even if it is empty. */
static int main_file_read(struct config *config, const struct folders *folders)
{
	for (size_t i = 0; i < folders->n; i++) {
		char path[PATH_MAX];
		const char *const paths[] = {path};
		struct stat stat;

		snprintf(path, sizeof(path), "%.4000s/iommubrokerd.conf", folders->paths[i]);
		if (lstat(path, &stat) && errno == ENOENT)
			continue;
		return config_file_read(config, CONFIG_MAIN, paths, 1);
	}
	return 0;
}

/* ── folders of files ──────────────────────────────────────────────────────────────────────── */

static char *path_of(const struct folders *folders, const char *subfolder,
		     const struct config_name *name)
{
	char *path = NULL;

	if (asprintf(&path, "%s/%s/%s", folders->paths[name->folder], subfolder, name->name) < 0)
		return NULL;
	return path;
}

/* The file itself, then quota.d/NAME.d/ *.conf of all folders. */
static int rule_read(struct config *config, const struct folders *folders, enum config_kind kind,
		     const char *subfolder, const struct config_name *name)
{
	char added[NAME_MAX + 32];
	struct config_list drop_ins = {0};
	char **paths = NULL;
	size_t n = 0;
	int status = 0;

	snprintf(added, sizeof(added), "%s/%.255s.d", subfolder, name->name);
	if (kind == CONFIG_QUOTA)
		status = config_folder_list(config, folders->paths, folders->n, added, &drop_ins);
	if (!status)
		paths = calloc(1 + drop_ins.n, sizeof(*paths));
	if (!paths || !(paths[n++] = path_of(folders, subfolder, name)))
		status = -ENOMEM;
	for (size_t i = 0; i < drop_ins.n && !status; i++)
		if (!drop_ins.names[i].adds &&
		    !(paths[n++] = path_of(folders, added, &drop_ins.names[i])))
			status = -ENOMEM;
	if (!status)
		status = config_file_read(config, kind, (const char *const *)paths, n);
	while (paths && n)
		free(paths[--n]);
	free(paths);
	config_list_free(&drop_ins);
	return status;
}

/* A folder that adds to a file that does not exist was meant for another. */
static void orphan_check(struct config *config, const struct folders *folders,
			 const struct config_list *list, const struct config_name *folder)
{
	char name[NAME_MAX + 1];

	snprintf(name, sizeof(name), "%.*s", (int)(strlen(folder->name) - strlen(".d")),
		 folder->name);
	if (!config_list_find(list, name))
		config_mistake(config, "%.250s/quota.d/%.100s.d: there is no %.100s to add to",
			       folders->paths[folder->folder], name, name);
}

static int folder_read(struct config *config, const struct folders *folders, enum config_kind kind,
		       const char *subfolder)
{
	struct config_list list;
	int status = config_folder_list(config, folders->paths, folders->n, subfolder, &list);

	for (size_t i = 0; i < list.n && !status; i++) {
		if (!list.names[i].adds)
			status = rule_read(config, folders, kind, subfolder, &list.names[i]);
		else if (kind == CONFIG_QUOTA)
			orphan_check(config, folders, &list, &list.names[i]);
	}
	config_list_free(&list);
	return status;
}

/* ── all of it ─────────────────────────────────────────────────────────────────────────────── */

static void function_check(struct config *config, size_t at)
{
	const struct iommu_emulated_function *function = &config->emulated[at];

	if (!function->pci_address[0] || function->dma_first > function->dma_last) {
		config_mistake(config, "[EmulatedFunction] number %zu: %s", at + 1,
			       function->pci_address[0] ? "DmaFirst= is above DmaLast="
							: "PciAddress= is missing");
		return;
	}
	for (size_t i = 0; i < at; i++)
		if (config->emulated[i].fid == function->fid ||
		    !strcmp(config->emulated[i].pci_address, function->pci_address))
			config_mistake(config,
				       "[EmulatedFunction] numbers %zu and %zu have the same "
				       "FunctionId= or PciAddress=",
				       i + 1, at + 1);
}

static int everything_read(struct config *config, const struct folders *folders)
{
	int status = main_file_read(config, folders);

	if (!status)
		status = folder_read(config, folders, CONFIG_MAIN, "iommubrokerd.conf.d");
	/* What follows from another mistake is none of its own. */
	for (size_t i = 0; i < config->n_emulated && !config->n_mistakes; i++)
		function_check(config, i);
	if (!status)
		status = folder_read(config, folders, CONFIG_QUOTA, "quota.d");
	if (!status)
		status = folder_read(config, folders, CONFIG_DEVICE, "device.d");
	return status;
}

int config_load(struct config **ret, const char *const *paths, size_t n_paths)
{
	const struct folders folders = {
		.paths = n_paths ? paths : system_folders,
		.n = n_paths ? n_paths : sizeof(system_folders) / sizeof(system_folders[0]),
	};
	struct config *config = calloc(1, sizeof(*config));
	int status;

	if (!config)
		return -ENOMEM;
	atomic_init(&config->refs, 1);
	*ret = config;
	status = defaults_apply(config);
	for (size_t i = 0; i < n_paths && !status; i++)
		if (access(paths[i], R_OK | X_OK))
			config_mistake(config, "--config-dir %.400s: %s", paths[i],
				       strerror(errno));
	if (!status && !config->n_mistakes)
		status = everything_read(config, &folders);
	return !status && config->n_mistakes ? -EINVAL : status;
}

struct config *config_ref(struct config *config)
{
	atomic_fetch_add_explicit(&config->refs, 1, memory_order_relaxed);
	return config;
}

struct config *config_free(struct config *config)
{
	if (!config || atomic_fetch_sub_explicit(&config->refs, 1, memory_order_acq_rel) != 1)
		return NULL;
	while (config->texts) {
		struct config_text *text = config->texts;

		config->texts = text->next;
		free(text);
	}
	free(config->entries);
	free(config->device_rules);
	free(config->tenant_rules);
	free(config);
	return NULL;
}
