/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "left_restore.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "ring/ring.h"
#include "state/state_file.h"
#include "util/fd.h"
#include "util/guest_read.h"
#include "util/log.h"

#define STORE_MAX       200
#define HANG_SECONDS    60
#define CHECKSUM_VALID  (UINT64_C(1) << 63)
#define VICTIM_IN_LOG   "guest 0 '"
#define RELEASED_IN_LOG "is not taken over but released: "

static struct left left;
static struct manager *manager;
static uint64_t neighbour_has[LEDGER_RESOURCES];
static char log_of_victim[512];

/* ── content ───────────────────────────────────────────────────────────────────────────────── */

uint8_t *content_of(int borrow_fd, size_t *ret_n)
{
	struct state_file *file;
	const char *why;
	const void *content;
	uint8_t *bytes;

	assert_int_equal(state_file_adopt(&file, fd_duplicate(borrow_fd), &why), 0);
	content = state_file_content(file, ret_n);
	bytes = malloc(*ret_n);
	assert_non_null(bytes);
	memcpy(bytes, content, *ret_n);
	state_file_free(file);
	return bytes;
}

static off_t description_at(unsigned int copy)
{
	return STATE_DESCRIPTIONS_AT + (off_t)(copy * sizeof(struct state_description));
}

struct state_description description_get(int borrow_fd, unsigned int copy)
{
	struct state_description description;

	assert_int_equal(pread(borrow_fd, &description, sizeof(description), description_at(copy)),
			 sizeof(description));
	return description;
}

void description_put(int borrow_fd, unsigned int copy, struct state_description description)
{
	const uint64_t fields[] = {copy, description.sequence, description.offset,
				   description.bytes, description.content_checksum};

	description.checksum = CHECKSUM_VALID | crc32_z(0, (const uint8_t *)fields, sizeof(fields));
	assert_int_equal(pwrite(borrow_fd, &description, sizeof(description), description_at(copy)),
			 sizeof(description));
}

unsigned int description_newer(int borrow_fd)
{
	return description_get(borrow_fd, 1).sequence > description_get(borrow_fd, 0).sequence;
}

/* Behind all that is there, where nobody has anything. */
void content_put(int borrow_fd, const uint8_t *bytes, size_t n)
{
	unsigned int newer = description_newer(borrow_fd);
	const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	struct stat stat;

	assert_int_equal(fstat(borrow_fd, &stat), 0);
	assert_int_equal(pwrite(borrow_fd, bytes, n, stat.st_size), n);
	assert_int_equal(ftruncate(borrow_fd,
				   (off_t)(((uint64_t)stat.st_size + n + page - 1) / page * page)),
			 0);
	description_put(borrow_fd, !newer,
			(struct state_description){
				.sequence = description_get(borrow_fd, newer).sequence + 1,
				.offset = (uint64_t)stat.st_size,
				.bytes = n,
				.content_checksum = crc32_z(0, bytes, n),
			});
}

/* ── a successor ───────────────────────────────────────────────────────────────────────────── */

struct successor {
	struct fixture f; /* session: the neighbour's */
	struct fd_store *store;
	struct ring_server *rings;
	struct restore_report report;
};

static void on_log(enum log_level level, const char *text, const char (*fields)[LOG_FIELD_BYTES],
		   size_t n_fields)
{
	(void)level;
	(void)fields;
	(void)n_fields;
	if (strstr(text, VICTIM_IN_LOG) && strstr(text, RELEASED_IN_LOG))
		snprintf(log_of_victim, sizeof(log_of_victim), "%s", text);
}

static void store_fill(struct successor *s, const struct trial *trial)
{
	char name[FD_NAME_BYTES];

	manager_clear(trial->manager);
	assert_int_equal(fd_store_new(&s->store, STORE_MAX), 0);
	for (size_t i = 0; i < trial->n_given; i++) {
		fd_name_format(&trial->given[i].name, name);
		manager_put(trial->manager, name, trial->given[i].fd);
		assert_int_equal(
			fd_store_adopted(s->store, &trial->given[i].name, trial->given[i].fd), 0);
	}
}

static void successor_begin(struct successor *s, struct trial *trial)
{
	struct broker_settings settings = settings_default();
	struct iommu_emulated_function functions[LEFT_FUNCTIONS + 1];

	store_fill(s, trial);
	left_functions(functions);
	fixture_init_functions(&s->f, &settings, functions, LEFT_FUNCTIONS + 1);
	broker_set_store(s->f.broker, s->store);
	log_of_victim[0] = 0;
	log_set_sink(on_log);
	assert_int_equal(ring_server_new(&s->rings, s->f.broker, 1), 0);
	alarm(HANG_SECONDS);
	assert_int_equal(broker_restore(s->f.broker, trial->given, trial->n_given, &s->report), 0);
	trial->rings = ring_server_adopt(s->rings);
	alarm(0);
}

static void successor_end(struct successor *s, const struct trial *trial)
{
	session_unref(s->f.session);
	ring_server_free(s->rings);
	broker_free(s->f.broker);
	close(s->f.peer.pidfd);
	assert_int_equal(fd_store_barrier(s->store), 0);
	assert_int_equal(fd_store_count(s->store), 0);
	assert_int_equal(manager_stored(trial->manager), 0);
	fd_store_free(s->store);
	log_set_sink(NULL);
}

/* ── what always holds ─────────────────────────────────────────────────────────────────────── */

static size_t guests_of(struct successor *s, struct guest_summary *ret, size_t n)
{
	size_t n_guests;

	assert_done(&s->f, guest_list(s->f.broker, NULL, ret, n, &n_guests, &s->f.refusal));
	assert_true(n_guests <= n);
	return n_guests;
}

static void functions_check(struct trial *trial, uint32_t guest, uint64_t *ret_pages)
{
	const char *wrong = left_shown(trial->left, trial->mine, trial->n, guest, ret_pages);

	if (wrong)
		fail_msg("a function of guest %u shows %s", guest, wrong);
}

static void neighbour_check(struct successor *s, struct trial *trial)
{
	const struct left_told *told = trial->left->told;
	struct guest_description *guest;
	uint64_t pages;

	assert_done(&s->f,
		    session_find(&s->f.session, s->f.broker, &trial->left->peer,
				 told->neighbour_secret, BROKER_SECRET_BYTES, &s->f.refusal));
	assert_done(&s->f, guest_describe(s->f.broker, s->f.session, told->neighbour, &guest,
					  &s->f.refusal));
	assert_string_equal(guest->summary.name, "neighbour");
	assert_int_equal(guest->n_regions, 1);
	assert_int_equal(guest->n_devices, 1);
	assert_int_equal(guest->devices[0].attachment, ATTACHMENT_NESTED);
	assert_int_equal(guest->summary.live_leaves, 1);
	guest_description_free(guest);
	functions_check(trial, LEFT_NEIGHBOUR, &pages);
	assert_int_equal(pages, 1);
}

static bool is_rings(const struct fd_name *name)
{
	return name->kind == FD_RING || name->kind == FD_DOORBELL;
}

/* Of the victim, or of its rings only. */
static bool something_is_stored(const struct trial *trial, bool rings_only)
{
	char name[16];

	for (size_t i = 0; i < manager_stored(trial->manager); i++) {
		struct fd_name parsed;

		manager_get(trial->manager, i, name);
		assert_true(fd_name_parse(name, &parsed));
		if (parsed.guest == LEFT_VICTIM && (!rings_only || is_rings(&parsed)))
			return true;
	}
	return false;
}

/* What is given up once it is tried to be served is forgotten when the guest is next written down.
 */
static void ended_rings_check(struct successor *s, struct trial *trial)
{
	for (int i = 0; something_is_stored(trial, true); i++) {
		if (i == HANG_SECONDS * 1000)
			fail_msg("%s: of a ring that has ended something is stored", trial->what);
		usleep(1000);
		assert_int_equal(fd_store_barrier(s->store), 0);
	}
}

/* One whose process is gone is taken over, and ends at once: so it may take a while. */
static void pins_check(struct successor *s)
{
	struct guest_summary guests[8];
	uint64_t bytes = 0, pinned = 1;

	for (int i = 0; pinned != bytes && i < HANG_SECONDS * 1000; i++) {
		usleep(i ? 1000 : 0);
		bytes = 0;
		for (size_t n = guests_of(s, guests, 8); n--;)
			bytes += guests[n].region_bytes;
		pinned = host_usage(&s->f, LEDGER_PINNED_BYTES).current;
	}
	assert_int_equal(pinned, bytes);
}

static void victim_check(struct successor *s, struct trial *trial)
{
	trial->taken_over = s->report.guests == 2;
	assert_int_equal(s->report.guests + s->report.released, trial->unpromised ? 1 : 2);
	pins_check(s);
	functions_check(trial, LEFT_VICTIM, &trial->pages);
	snprintf(trial->log, sizeof(trial->log), "%s", log_of_victim);
	trial->table_bytes = host_usage(&s->f, LEDGER_TABLE_BYTES).current;
	assert_int_equal(host_usage(&s->f, LEDGER_RINGS).current, trial->rings);
	if (trial->taken_over && !trial->rings)
		ended_rings_check(s, trial);
	if (trial->taken_over)
		return;
	if (!trial->log[0] && !trial->unpromised)
		fail_msg("nobody was told");
	assert_int_equal(fd_store_barrier(s->store), 0);
	if (something_is_stored(trial, false))
		fail_msg("%s: something is stored still", trial->what);
	if (!trial->strangers)
		assert_int_equal(trial->pages, 0);
}

static void on_revoked(void *context, const struct revoked *revoked, size_t n)
{
	(void)context;
	(void)revoked;
	(void)n;
}

/* One that waits for somebody to resume it goes by an operator's hand. */
static void guests_revoke(struct successor *s)
{
	struct guest_summary guests[8];
	size_t n = guests_of(s, guests, 8);

	for (size_t i = 0; i < n; i++) {
		const struct revoke_request request = {
			.what = REVOKE_GUEST,
			.guest = guests[i].guest,
		};

		if (strcmp(guests[i].name, "neighbour"))
			assert_done(&s->f, broker_revoke(s->f.broker, &request, on_revoked, NULL,
							 &s->f.refusal));
	}
}

/* Everybody ends but the neighbour. */
static void victim_end(struct successor *s)
{
	struct session *session;
	struct guest_summary guests[8];
	uint64_t after = 0;

	while ((session = broker_next_session(s->f.broker, after))) {
		after = session_id(session);
		if (session != s->f.session)
			session_close(session, NULL, NULL);
		session_unref(session);
	}
	guests_revoke(s);
	for (int i = 0; guests_of(s, guests, 8) > 1 && i < HANG_SECONDS * 1000; i++)
		usleep(1000);
	assert_int_equal(guests_of(s, guests, 8), 1);
}

static void ledger_check(struct successor *s, const struct trial *trial)
{
	for (int i = 0; i < LEDGER_RESOURCES; i++) {
		uint64_t current = host_usage(&s->f, i).current;

		/* those of sessions that end are given back when all of them is gone */
		for (int wait = 0; current != neighbour_has[i] && wait < 10000; wait++) {
			usleep(1000);
			current = host_usage(&s->f, i).current;
		}
		if (current != neighbour_has[i])
			fail_msg("%s: %" PRIu64 " %s charged, not %" PRIu64, trial->what, current,
				 ledger_resource_name(i), neighbour_has[i]);
	}
}

void trial_run(struct trial *trial)
{
	struct successor s = {0};

	successor_begin(&s, trial);
	neighbour_check(&s, trial);
	victim_check(&s, trial);
	victim_end(&s);
	ledger_check(&s, trial);
	neighbour_check(&s, trial);
	session_unref(s.f.session); /* found twice */
	successor_end(&s, trial);
	left_copy_close(trial->mine, trial->n);
}

/* ── trials ────────────────────────────────────────────────────────────────────────────────── */

void trial_begin(struct trial *trial)
{
	memset(trial, 0, sizeof(*trial));
	trial->left = &left;
	trial->manager = manager;
	trial->n = trial->n_given = left.n;
	left_copy(&left, trial->mine);
	for (size_t i = 0; i < left.n; i++) {
		trial->given[i] = trial->mine[i];
		trial->given[i].fd = fd_duplicate(trial->mine[i].fd);
	}
}

struct stored_fd *trial_fd(struct trial *trial, enum fd_kind kind, uint32_t index)
{
	struct stored_fd *found = left_find(trial->given, trial->n_given, LEFT_VICTIM, kind, index);

	assert_non_null(found);
	return found;
}

void left_replace(struct stored_fd *given, int consume_fd)
{
	assert_true(consume_fd >= 0);
	fd_close(given->fd);
	given->fd = consume_fd;
}

void trial_drop(struct trial *trial)
{
	left_copy_close(trial->mine, trial->n);
	left_copy_close(trial->given, trial->n_given);
}

void trial_lose(struct trial *trial, enum fd_kind kind, uint32_t index)
{
	struct stored_fd *lost = trial_fd(trial, kind, index);

	fd_close(lost->fd);
	*lost = trial->given[--trial->n_given];
}

/* What the neighbour is charged when there was never anybody else. */
static void neighbour_measure(void)
{
	struct successor s = {0};
	struct trial trial;
	size_t n = 0;

	trial_begin(&trial);
	for (size_t i = 0; i < trial.n_given; i++) {
		if (trial.given[i].name.guest == LEFT_VICTIM)
			fd_close(trial.given[i].fd);
		else
			trial.given[n++] = trial.given[i];
	}
	trial.n_given = n;
	successor_begin(&s, &trial);
	neighbour_check(&s, &trial);
	for (int i = 0; i < LEDGER_RESOURCES; i++)
		neighbour_has[i] = host_usage(&s.f, i).current;
	assert_true(neighbour_has[LEDGER_PINNED_BYTES] == MEMORY_BYTES);
	successor_end(&s, &trial);
	left_copy_close(trial.mine, trial.n);
}

int trials_setup(void **state)
{
	(void)state;
	/* As the daemon's: the clients' ends of doorbells are closed. */
	signal(SIGPIPE, SIG_IGN);
	left_make(&left);
	assert_int_equal(guest_read_init(), 0);
	manager = manager_start(1);
	neighbour_measure();
	return 0;
}

int trials_teardown(void **state)
{
	(void)state;
	manager_stop(manager);
	left_free(&left);
	return 0;
}
