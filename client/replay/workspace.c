/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See workspace.h. */

#include "replay/workspace.h"

#include <errno.h>

#include "replay/check.h"

/* A function's share of the top of RAM: its pages, then room for a path of the guest's tables. */
#define SHARE_BYTES  0x20000u
#define TABLES_START 0x10000u

static uint64_t workspace_bytes(const struct function *function)
{
	return (uint64_t)function->workspace.n_pages * ZPCI_PAGE_BYTES;
}

static uint64_t shares_start(const struct machine *machine)
{
	return machine->ram_bytes - machine->n_functions * SHARE_BYTES;
}

int workspaces_place(struct machine *machine)
{
	unsigned int n_pages = machine->checks->workspace_pages;

	if (n_pages == 0)
		return 0;
	if (n_pages > TABLES_START / ZPCI_PAGE_BYTES ||
	    machine->ram_bytes / SHARE_BYTES <= machine->n_functions)
		return -ENOSPC;
	for (size_t i = 0; i < machine->n_functions; i++) {
		struct workspace *workspace = &machine->functions[i].workspace;

		workspace->n_pages = n_pages;
		workspace->gpa = shares_start(machine) + i * SHARE_BYTES;
		workspace->host = machine->memory + workspace->gpa;
	}
	return 0;
}

/* New tables come from the share alone; those that are there can lie anywhere. */
struct zpci_tables workspace_adopt(struct machine *machine, const struct function *function,
				   uint64_t iota)
{
	return (struct zpci_tables){
		.host = machine->memory,
		.n_bytes = function->workspace.gpa + SHARE_BYTES,
		.n_used = function->workspace.gpa + TABLES_START,
		.designation = iota >> 2 & 3,
		.root = iota & ZPCI_IOTA_ORIGIN,
	};
}

int workspace_lay_out(struct function *function, struct zpci_tables *tables, uint64_t pba)
{
	struct workspace *workspace = &function->workspace;
	int r = 0;

	workspace->iova = pba & ~(uint64_t)(ZPCI_PAGE_BYTES - 1);
	for (uint64_t at = 0; at < workspace_bytes(function) && r == 0; at += ZPCI_PAGE_BYTES)
		r = zpci_tables_set(tables, workspace->iova + at, workspace->gpa + at,
				    ZPCI_LEAF_READ_WRITE);
	return r;
}

int workspace_expect(struct machine *machine, struct function *function)
{
	const struct workspace *workspace = &function->workspace;
	int r = 0;

	for (uint64_t at = 0; at < workspace_bytes(function) && r == 0; at += ZPCI_PAGE_BYTES)
		r = machine_expect(machine, function, workspace->iova + at, workspace->gpa + at,
				   ZPCI_LEAF_READ_WRITE);
	return r;
}

bool workspace_has_iova(const struct function *function, uint64_t iova)
{
	return iova - function->workspace.iova < workspace_bytes(function);
}

bool workspace_has_frame(const struct machine *machine, uint64_t gpa)
{
	return machine->checks->workspace_pages > 0 && gpa >= shares_start(machine) &&
	       gpa < machine->ram_bytes;
}
