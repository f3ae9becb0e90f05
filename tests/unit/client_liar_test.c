/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* libiommubroker against a daemon that lies. */

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client_bench.h"
#include "iommubroker/v1/devices.pb-c.h"
#include "iommubroker/v1/host.pb-c.h"

struct lie {
	const char *what;
	int result;
	void (*tell)(struct fake_daemon *daemon, const struct fake_request *request);
};

static void lie_short(struct fake_daemon *daemon, const struct fake_request *request)
{
	fake_send(daemon, (const uint8_t *)"0123456789abcde", 15, NULL, 0);
}

static void lie_reserved(struct fake_daemon *daemon, const struct fake_request *request)
{
	uint8_t packet[16];

	fake_header(packet, request->method, request->call);
	packet[5] = 1;
	fake_send(daemon, packet, sizeof(packet), NULL, 0);
}

static void lie_method(struct fake_daemon *daemon, const struct fake_request *request)
{
	uint8_t packet[16];

	fake_header(packet, request->method + 1, request->call);
	fake_send(daemon, packet, sizeof(packet), NULL, 0);
}

static void lie_envelope(struct fake_daemon *daemon, const struct fake_request *request)
{
	uint8_t packet[20] = {[16] = 0x1a, 0xff, 0xff, 0x7f}; /* message of 2 MiB */

	fake_header(packet, request->method, request->call);
	fake_send(daemon, packet, sizeof(packet), NULL, 0);
}

static void lie_varint(struct fake_daemon *daemon, const struct fake_request *request)
{
	uint8_t packet[32];

	memset(packet, 0xff, sizeof(packet));
	fake_header(packet, request->method, request->call);
	fake_send(daemon, packet, sizeof(packet), NULL, 0);
}

static void lie_status(struct fake_daemon *daemon, const struct fake_request *request)
{
	uint8_t packet[20] = {[16] = 0x12, 0x02, 0x08, 0x80}; /* a code without its end */

	fake_header(packet, request->method, request->call);
	fake_send(daemon, packet, sizeof(packet), NULL, 0);
}

static void lie_oversized(struct fake_daemon *daemon, const struct fake_request *request)
{
	/* Right, but for its last byte: an unknown field that fills the 65,536 bytes of a packet.
	 */
	static uint8_t packet[65537] = {[16] = 0x7a, 0xec, 0xff, 0x03};

	fake_header(packet, request->method, request->call);
	fake_send(daemon, packet, sizeof(packet), NULL, 0);
}

static void lie_descriptors(struct fake_daemon *daemon, const struct fake_request *request)
{
	uint8_t packet[16];
	int fds[9];

	fds[0] = bench_memory_fd();
	for (size_t i = 1; i < 9; i++)
		fds[i] = fds[0];
	fake_header(packet, request->method, request->call);
	fake_send(daemon, packet, sizeof(packet), fds, 9);
	close(fds[0]);
}

static void lie_empty(struct fake_daemon *daemon, const struct fake_request *request)
{
	fake_send(daemon, NULL, 0, NULL, 0);
}

static void lie_garbage(struct fake_daemon *daemon, const struct fake_request *request)
{
	fake_answer_bytes(daemon, request, (const uint8_t *)"\xff\xff\xff\xff\xff", 5);
}

static const struct lie lies[] = {
	{"short", -EBADMSG, lie_short},         {"reserved", -EBADMSG, lie_reserved},
	{"method", -EBADMSG, lie_method},       {"envelope", -EBADMSG, lie_envelope},
	{"varint", -EBADMSG, lie_varint},       {"status", -EBADMSG, lie_status},
	{"oversized", -EBADMSG, lie_oversized}, {"descriptors", -EBADMSG, lie_descriptors},
	{"empty", -ECONNRESET, lie_empty},
};

static void serve_lie(struct fake_daemon *daemon, const struct fake_request *request,
		      void *user_data)
{
	((const struct lie *)user_data)->tell(daemon, request);
}

static void test_lies(void **state)
{
	for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		struct pollfd poll_fd = {.events = POLLIN};
		struct iommubroker_usage *usage = NULL;
		struct bench bench;

		bench_begin(&bench, serve_lie, (void *)&lies[i]);
		assert_int_equal(iommubroker_usage(bench.session, &usage, NULL), lies[i].result);
		assert_int_equal(iommubroker_session_state(bench.session), lies[i].result);
		assert_int_equal(iommubroker_usage(bench.session, &usage, NULL), lies[i].result);
		assert_null(usage);
		/* Both the daemon and an event loop are to see that it is over. */
		poll_fd.fd = iommubroker_session_fd(bench.session);
		assert_int_equal(poll(&poll_fd, 1, 0), 1);
		bench_end(&bench);
	}
}

static void test_garbage_message(void **state)
{
	const struct lie lie = {"garbage", -EBADMSG, lie_garbage};
	struct iommubroker_usage *usage = NULL;
	struct bench bench;

	bench_begin(&bench, serve_lie, (void *)&lie);
	assert_int_equal(iommubroker_usage(bench.session, &usage, NULL), -EBADMSG);
	/* The envelope was right, so others need not suffer. */
	assert_int_equal(iommubroker_session_state(bench.session), 0);
	bench_end(&bench);
}

/* Answers to calls that nobody made, with descriptors, then the right one. */
static void serve_strangers(struct fake_daemon *daemon, const struct fake_request *request,
			    void *user_data)
{
	uint8_t packet[16];
	int fd = bench_memory_fd();

	for (uint64_t call = 0; call < 200; call += 13) {
		fake_header(packet, request->method, request->call + 1 + call);
		fake_send(daemon, packet, sizeof(packet), &fd, 1);
	}
	/* The same slot at another time. */
	fake_refuse(daemon,
		    &(struct fake_request){.method = request->method, .call = request->call - 64},
		    5, "not yours", NULL, 0);
	fake_header(packet, request->method, request->call + 64);
	fake_send(daemon, packet, sizeof(packet), &fd, 1);
	/* Nobody asked for a descriptor. */
	fake_answer_fd(daemon, request, NULL, fd);
	close(fd);
}

static void test_strangers(void **state)
{
	struct iommubroker_usage *usage = NULL;
	struct bench bench;

	bench_begin(&bench, serve_strangers, NULL);
	assert_int_equal(iommubroker_usage(bench.session, &usage, NULL), 0);
	iommubroker_usage_free(usage);
	bench_end(&bench);
}

/* Messages of every kind that are almost right: whatever is in them, nothing may crash. */
static void serve_noise(struct fake_daemon *daemon, const struct fake_request *request,
			void *user_data)
{
	unsigned int *seed = user_data;
	uint8_t bytes[96];
	size_t n = rand_r(seed) % sizeof(bytes);

	for (size_t i = 0; i < n; i++)
		bytes[i] = rand_r(seed) % 4 == 0 ? rand_r(seed) : 1 << rand_r(seed) % 6;
	if (request->method == METHOD(CREATE_GUEST) || request->method == METHOD(OPEN_DEVICE))
		n = 0;
	fake_answer_bytes(daemon, request, bytes, n);
}

static void noise_round(struct bench *bench, struct iommubroker_guest *guest)
{
	const struct iommubroker_memory_update update = {.n_map = 0};
	struct iommubroker_guest_info *info = NULL;
	struct iommubroker_host_info *host = NULL;
	struct iommubroker_usage *usage = NULL;
	struct iommubroker_error *error = NULL;
	int r;

	r = iommubroker_guest_describe(guest, &info, &error);
	assert_true(r == 0 ? info != NULL && error == NULL : info == NULL && error != NULL);
	iommubroker_guest_info_free(info);
	iommubroker_error_free(error);
	if (iommubroker_host_info(bench->session, &host, NULL) == 0)
		iommubroker_host_info_free(host);
	if (iommubroker_usage(bench->session, &usage, NULL) == 0)
		iommubroker_usage_free(usage);
	iommubroker_memory_update(guest, &update, NULL, NULL, NULL, NULL);
}

static void test_noise(void **state)
{
	struct iommubroker_guest *guest = NULL;
	unsigned int seed = 1;
	struct bench bench;

	bench_begin(&bench, serve_noise, &seed);
	assert_int_equal(iommubroker_guest_create(bench.session, NULL, &guest, NULL), 0);
	for (int i = 0; i < 2000; i++)
		noise_round(&bench, guest);
	assert_int_equal(iommubroker_session_state(bench.session), 0);
	iommubroker_guest_free(guest);
	bench_end(&bench);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lies),
		cmocka_unit_test(test_garbage_message),
		cmocka_unit_test(test_strangers),
		cmocka_unit_test(test_noise),
	};

	return cmocka_run_group_tests_name("client_liar", tests, NULL, NULL);
}
