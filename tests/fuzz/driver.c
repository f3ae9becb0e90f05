/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Runs a fuzz target over stored inputs, for builds without a fuzzing engine:
 *
 *   TARGET FILE|FOLDER…
 *
 * Then, for every input, over its prefixes and over copies with one byte changed, from a fixed
 * seed, so that a run says the same each time.
 */

#include <dirent.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define INPUT_BYTES_MAX (1 << 20)
#define PREFIXES_MAX    256
#define CHANGES         2000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t random_state = 88172645463325252u;

static uint64_t random_next(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

/* In an allocation of just that size, so that a sanitizer sees a read past its end. */
static void run_exactly(const uint8_t *bytes, size_t n_bytes)
{
	uint8_t *copy = malloc(n_bytes ? n_bytes : 1);

	if (!copy)
		exit(1);
	memcpy(copy, bytes, n_bytes);
	LLVMFuzzerTestOneInput(copy, n_bytes);
	free(copy);
}

static void run_around(uint8_t *bytes, size_t n_bytes)
{
	run_exactly(bytes, n_bytes);
	for (size_t n = 0; n < n_bytes && n < PREFIXES_MAX; n++)
		run_exactly(bytes, n);
	for (int i = 0; n_bytes && i < CHANGES; i++) {
		size_t at = random_next() % n_bytes;
		uint8_t before = bytes[at];

		bytes[at] = (uint8_t)random_next();
		run_exactly(bytes, n_bytes);
		/* Most changes are undone; some stay and add up. */
		if (random_next() % 8)
			bytes[at] = before;
	}
}

static bool run_file(const char *path)
{
	static uint8_t bytes[INPUT_BYTES_MAX];
	FILE *file = fopen(path, "rb");
	size_t n;

	if (!file) {
		perror(path);
		return false;
	}
	n = fread(bytes, 1, sizeof(bytes), file);
	fclose(file);
	run_around(bytes, n);
	return true;
}

static unsigned long run_folder(const char *path)
{
	DIR *folder = opendir(path);
	unsigned long n = 0;
	struct dirent *entry;
	char name[4096];

	if (!folder)
		return 0;
	while ((entry = readdir(folder))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
		n += run_file(name);
	}
	closedir(folder);
	return n;
}

int main(int argc, char **argv)
{
	unsigned long n = 0;

	for (int i = 1; i < argc; i++) {
		struct stat stat_buffer;

		if (stat(argv[i], &stat_buffer)) {
			perror(argv[i]);
			return 1;
		}
		n += S_ISDIR(stat_buffer.st_mode) ? run_folder(argv[i]) : run_file(argv[i]);
	}
	printf("%lu inputs\n", n);
	return n ? 0 : 1; /* a run over nothing proves nothing */
}
