/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The order of top's rows, and what grew between two samples. */

#include <stdlib.h>
#include <string.h>

#include "ctl/top.h"

const char *const top_sort_names[TOP_SORTS] = {
	[TOP_PINNED] = "pinned",   [TOP_MAPPINGS] = "mappings", [TOP_REFRESHES] = "refreshes",
	[TOP_REFUSED] = "refused", [TOP_NAME] = "name",
};

bool top_sort_find(const char *name, enum top_sort *ret)
{
	for (size_t i = 0; i < TOP_SORTS; i++)
		if (strcmp(top_sort_names[i], name) == 0) {
			*ret = (enum top_sort)i;
			return true;
		}
	return false;
}

double top_rate(uint64_t now, uint64_t before, uint64_t time_ns)
{
	if (time_ns == 0)
		return -1;
	/* Whoever left took what it had counted along. */
	return now > before ? (double)(now - before) * 1e9 / (double)time_ns : 0;
}

/* Guests by their handles, tenants by their names. */
static int compare_identity(const struct top_row *a, const struct top_row *b)
{
	if (a->is_guest != b->is_guest)
		return a->is_guest ? 1 : -1;
	if (!a->is_guest)
		return strcmp(a->name, b->name);
	return a->guest < b->guest ? -1 : a->guest > b->guest;
}

static int compare_by_name(const void *a, const void *b, void *user_data)
{
	const struct top_row *rows = user_data;

	return compare_identity(&rows[*(const size_t *)a], &rows[*(const size_t *)b]);
}

void top_sample_index(struct top_sample *sample)
{
	size_t *indexes = calloc(sample->n_rows + 1, sizeof(*indexes));

	if (indexes == NULL)
		abort();
	for (size_t i = 0; i < sample->n_rows; i++)
		indexes[i] = i;
	qsort_r(indexes, sample->n_rows, sizeof(*indexes), compare_by_name, sample->rows);
	free(sample->by_name);
	sample->by_name = indexes;
}

const struct top_row *top_row_before(const struct top_sample *before, const struct top_row *row)
{
	size_t first = 0, after = before != NULL && before->by_name != NULL ? before->n_rows : 0;

	while (first < after) {
		size_t middle = first + (after - first) / 2;
		const struct top_row *one = &before->rows[before->by_name[middle]];
		int order = compare_identity(one, row);

		if (order == 0)
			return one;
		if (order < 0)
			first = middle + 1;
		else
			after = middle;
	}
	return NULL;
}

/* Greater is further up. */
static uint64_t weigh(const struct top_sample *before, const struct top_row *row,
		      enum top_sort sort)
{
	const struct top_row *then;

	switch (sort) {
	case TOP_PINNED:
		return row->pinned_bytes;
	case TOP_MAPPINGS:
		return row->mappings;
	case TOP_REFRESHES:
		then = top_row_before(before, row);
		return then != NULL && row->refreshes >= then->refreshes
			       ? row->refreshes - then->refreshes
			       : row->refreshes;
	case TOP_REFUSED:
		return row->refused;
	default:
		return 0;
	}
}

static int compare(const struct top_row *a, const struct top_row *b)
{
	if (a->weight != b->weight)
		return a->weight > b->weight ? -1 : 1;
	if (strcmp(a->name, b->name) != 0)
		return strcmp(a->name, b->name);
	return a->guest < b->guest ? -1 : a->guest > b->guest;
}

/* Of indexes, as the tenants' rows are looked up while all are sorted. */
static int compare_index(const void *a, const void *b, void *user_data)
{
	const struct top_row *rows = user_data;
	const struct top_row *row_a = &rows[*(const size_t *)a];
	const struct top_row *row_b = &rows[*(const size_t *)b];

	if (row_a->tenant_index != row_b->tenant_index)
		return compare(&rows[row_a->tenant_index], &rows[row_b->tenant_index]);
	if (row_a->is_guest != row_b->is_guest)
		return row_a->is_guest ? 1 : -1;
	return compare(row_a, row_b);
}

void top_sample_sort(struct top_sample *sample, const struct top_sample *before, enum top_sort sort)
{
	size_t *indexes = calloc(sample->n_rows + 1, sizeof(*indexes));
	struct top_row *rows = calloc(sample->n_rows + 1, sizeof(*rows));

	if (indexes == NULL || rows == NULL)
		abort();
	for (size_t i = 0; i < sample->n_rows; i++) {
		indexes[i] = i;
		sample->rows[i].weight = weigh(before, &sample->rows[i], sort);
	}
	qsort_r(indexes, sample->n_rows, sizeof(*indexes), compare_index, sample->rows);
	for (size_t i = 0; i < sample->n_rows; i++)
		rows[i] = sample->rows[indexes[i]];
	free(sample->rows);
	free(indexes);
	sample->rows = rows;
	sample->n_sorted = 0;
	top_sample_index(sample);
}
