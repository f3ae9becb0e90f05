/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "left_guests.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include "iommu/emulated/layout.h"

struct showing {
	const uint8_t *file;
	ino_t memory, rom; /* rom 0: there is none */
	uint64_t memory_bytes;
	uint64_t pages;
	const char *wrong;
};

static void leaf_check(struct showing *showing, uint64_t word)
{
	const struct emulated_memory_record *record =
		(const void *)(showing->file + EMULATED_DEVICE_RECORDS_PAGE * EMULATED_PAGE_BYTES);
	uint64_t offset, ino;

	record += emulated_word_memory(word);
	ino = atomic_load(&record->ino);
	offset = (atomic_load(&record->first_page) + emulated_word_page(word)) * PAGE;
	showing->pages++;
	if (ino == showing->memory && offset < showing->memory_bytes)
		return;
	if (!showing->rom || ino != showing->rom || offset >= LEFT_ROM_BYTES)
		showing->wrong = "a page that no call gave it";
	else if (word & EMULATED_WORD_WRITE)
		showing->wrong = "a read-only page for writing";
}

static void table_check(struct showing *showing, uint64_t page, unsigned int level)
{
	const _Atomic uint64_t *table;

	if (page < EMULATED_DEVICE_TABLES_PAGE || page >= EMULATED_FILE_PAGES) {
		showing->wrong = "a table that is none";
		return;
	}
	table = (const void *)(showing->file + page * EMULATED_PAGE_BYTES);
	for (unsigned int i = 0; i < EMULATED_TABLE_WORDS; i++) {
		uint64_t word = atomic_load(&table[i]);

		if (word && level)
			table_check(showing, word, level - 1);
		else if (word & EMULATED_WORD_VALID)
			leaf_check(showing, word);
	}
}

static void function_check(struct showing *showing, int fd)
{
	const struct emulated_device_header *header;
	uint64_t root;

	showing->file =
		mmap(NULL, EMULATED_FILE_BYTES, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd, 0);
	assert_true(showing->file != MAP_FAILED);
	header = (const void *)showing->file;
	root = atomic_load(&header->root);
	if (atomic_load(&header->enabled) && root)
		table_check(showing, root, EMULATED_LEVELS - 1);
	munmap((void *)showing->file, EMULATED_FILE_BYTES);
}

static ino_t inode_of(int fd)
{
	struct stat stat;

	assert_int_equal(fstat(fd, &stat), 0);
	return stat.st_ino;
}

const char *left_shown(const struct left *left, struct stored_fd *fds, size_t n, uint32_t guest,
		       uint64_t *ret_pages)
{
	const bool victim = guest == LEFT_VICTIM;
	struct showing showing = {
		.memory = inode_of(victim ? left->memory_fd : left->neighbour_fd),
		.rom = victim ? inode_of(left->rom_fd) : 0,
		.memory_bytes = victim ? LEFT_MAPPED_BYTES : MEMORY_BYTES,
	};

	for (size_t i = 0; i < n; i++)
		if (fds[i].name.guest == guest && fds[i].name.kind == FD_DEVICE && fds[i].fd >= 0)
			function_check(&showing, fds[i].fd);
	*ret_pages = showing.pages;
	return showing.wrong;
}
