/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * An emulated function's DMA on command, for the scenario tests: a process that holds the device's
 * descriptor and those of the guest's memory files, and nothing else.
 *
 *   dma_probe DEVICE_FD MEMORY_FD…
 *
 * Reads lines and answers each with one:
 *   read IOVA LENGTH   ok HEX            | fault IOVA REASON
 *   write IOVA HEX     ok                | fault IOVA REASON
 *   where IOVA         ok INODE OFFSET R W | fault IOVA REASON
 */

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "iommu/emulated/dma.h"

#define TRANSFER_BYTES_MAX 4096

static void fault_print(const struct emulated_dma_fault *fault)
{
	printf("fault %#" PRIx64 " %s\n", fault->iova, emulated_dma_reason_name(fault->reason));
}

static void read_answer(struct emulated_dma *dma, uint64_t iova, const char *argument)
{
	size_t length = strtoul(argument, NULL, 10);
	struct emulated_dma_fault fault;
	uint8_t buffer[TRANSFER_BYTES_MAX];

	if (length > sizeof(buffer))
		length = sizeof(buffer);
	if (emulated_dma_read(dma, iova, buffer, length, &fault)) {
		fault_print(&fault);
		return;
	}
	printf("ok ");
	for (size_t i = 0; i < length; i++)
		printf("%02x", buffer[i]);
	putchar('\n');
}

static void write_answer(struct emulated_dma *dma, uint64_t iova, const char *argument)
{
	size_t length = strlen(argument) / 2;
	struct emulated_dma_fault fault;
	uint8_t buffer[TRANSFER_BYTES_MAX];

	if (length > sizeof(buffer))
		length = sizeof(buffer);
	for (size_t i = 0; i < length; i++)
		sscanf(argument + 2 * i, "%2hhx", &buffer[i]);
	if (emulated_dma_write(dma, iova, buffer, length, &fault))
		fault_print(&fault);
	else
		puts("ok");
}

static void where_answer(struct emulated_dma *dma, uint64_t iova)
{
	struct emulated_dma_target target;
	enum emulated_dma_reason reason = emulated_dma_translate(dma, iova, &target);

	if (reason)
		fault_print(&(struct emulated_dma_fault){iova, reason});
	else
		printf("ok %" PRIu64 " %" PRIu64 " %d %d\n", target.ino, target.offset,
		       target.readable, target.writable);
}

static void serve(struct emulated_dma *dma)
{
	static char line[2 * TRANSFER_BYTES_MAX + 64], argument[2 * TRANSFER_BYTES_MAX + 8];
	char verb[8];
	uint64_t iova;

	while (fgets(line, sizeof(line), stdin)) {
		argument[0] = 0;
		if (sscanf(line, "%7s %" SCNu64 " %8199s", verb, &iova, argument) < 2)
			puts("error");
		else if (!strcmp(verb, "read"))
			read_answer(dma, iova, argument);
		else if (!strcmp(verb, "write"))
			write_answer(dma, iova, argument);
		else
			where_answer(dma, iova);
		fflush(stdout);
	}
}

int main(int argc, char **argv)
{
	struct emulated_dma *dma;
	int status;

	if (argc < 2)
		return 2;
	status = emulated_dma_open(&dma, atoi(argv[1]));
	for (int i = 2; i < argc && !status; i++) {
		status = emulated_dma_add_memory(dma, atoi(argv[i]));
		if (status == -EEXIST) /* the same file added twice is one memory */
			status = 0;
	}
	if (status) {
		fprintf(stderr, "dma_probe: %s\n", strerror(-status));
		return 1;
	}
	serve(dma);
	emulated_dma_close(dma);
	return 0;
}
