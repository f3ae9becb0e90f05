/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See resume.h. */

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "iommubroker/v1/native.pb-c.h"
#include "lib/clock.h"
#include "lib/resume.h"
#include "lib/wire.h"

#define SECRET_FIELD 1
#define JOIN_METHOD  IOMMUBROKER__V1__METHOD__METHOD_JOIN_SESSION
#define PAUSE_MIN_NS UINT64_C(1000000)
#define PAUSE_MAX_NS UINT64_C(100000000)
/* Between two steps that lie further apart nobody has driven. */
#define DRIVEN_MAX_NS UINT64_C(1000000000)

#define CODE_INVALID_ARGUMENT 3
#define CODE_NOT_FOUND        5
#define CODE_UNIMPLEMENTED    12
#define CODE_UNAUTHENTICATED  16

void resume_init(struct resume *resume)
{
	*resume = (struct resume){.fd = -1, .limit_ns = RESUME_LIMIT_DEFAULT_NS};
	resume->address.sun_family = AF_UNIX;
}

static void drop_socket(struct resume *resume)
{
	if (resume->fd >= 0)
		close(resume->fd);
	resume->fd = -1;
}

void resume_deinit(struct resume *resume)
{
	drop_socket(resume);
	explicit_bzero(resume->packet, sizeof(resume->packet));
}

int resume_set_path(struct resume *resume, const char *path)
{
	if (strlen(path) >= sizeof(resume->address.sun_path))
		return -ENAMETOOLONG;
	memset(resume->address.sun_path, 0, sizeof(resume->address.sun_path));
	memcpy(resume->address.sun_path, path, strlen(path));
	return 0;
}

void resume_set_secret(struct resume *resume, const uint8_t secret[RESUME_SECRET_BYTES])
{
	uint8_t *at = resume->packet + PACKET_HEADER_BYTES;

	packet_header_put(resume->packet, JOIN_METHOD, 0);
	at = wire_put_tag(at, SECRET_FIELD, WIRE_BYTES);
	at = wire_put_varint(at, RESUME_SECRET_BYTES);
	memcpy(at, secret, RESUME_SECRET_BYTES);
	resume->has_session = true;
}

bool resume_possible(const struct resume *resume)
{
	return resume->has_session && resume->limit_ns > 0 && resume->address.sun_path[0] != '\0';
}

void resume_begin(struct resume *resume)
{
	resume->next_ns = resume->last_ns = clock_now_ns();
	resume->driven_ns = 0;
	resume->pause_ns = PAUSE_MIN_NS;
}

/* A listening socket whose queue is full, or that systemd holds while nobody serves it, does not
 * make this wait: the answer is what is waited for. 0 or a negative errno. */
static int try_connect(struct resume *resume)
{
	int r;

	resume->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (resume->fd < 0)
		return -errno;
	resume->attempts++;
	if (connect(resume->fd, (const struct sockaddr *)&resume->address,
		    sizeof(resume->address)) < 0)
		r = -errno;
	else
		r = packet_send(resume->fd, resume->packet, sizeof(resume->packet), -1);
	if (r < 0)
		drop_socket(resume);
	return r;
}

/* What cannot become better by trying again: no such session, or no such method. */
static bool is_final(int32_t code)
{
	return code == CODE_UNAUTHENTICATED || code == CODE_NOT_FOUND ||
	       code == CODE_INVALID_ARGUMENT || code == CODE_UNIMPLEMENTED;
}

static enum resume_result read_answer(struct resume *resume, uint8_t *rx)
{
	struct packet packet = {.bytes = rx};
	struct answer answer;
	int r;

	r = packet_receive(resume->fd, &packet);
	if (r == -EAGAIN)
		return RESUME_WAIT;
	if (r == 0) {
		r = packet_parse(&packet, &answer);
		packet_close_fds(&packet);
	}
	if (r == 0 && answer.method == JOIN_METHOD && answer.code == 0)
		return RESUME_JOINED;
	drop_socket(resume);
	return r == 0 && is_final(answer.code) ? RESUME_UNKNOWN : RESUME_WAIT;
}

/* How long it has been driven by now. */
static bool is_over(struct resume *resume, uint64_t now)
{
	uint64_t since = now - resume->last_ns;

	resume->driven_ns += since < DRIVEN_MAX_NS ? since : 0;
	resume->last_ns = now;
	return resume->driven_ns >= resume->limit_ns;
}

enum resume_result resume_step(struct resume *resume, uint8_t *rx)
{
	enum resume_result result = RESUME_WAIT;
	uint64_t now = clock_now_ns();

	if (resume->fd >= 0) {
		result = read_answer(resume, rx);
	} else if (now >= resume->next_ns) {
		if (try_connect(resume) == 0)
			result = read_answer(resume, rx);
	} else {
		return RESUME_WAIT;
	}
	if (result != RESUME_WAIT)
		return result;
	if (is_over(resume, now)) {
		drop_socket(resume);
		return RESUME_GIVEN_UP;
	}
	if (resume->pause_ns > resume->limit_ns - resume->driven_ns)
		resume->pause_ns = resume->limit_ns - resume->driven_ns;
	resume->next_ns = now + resume->pause_ns;
	if (resume->pause_ns < PAUSE_MAX_NS)
		resume->pause_ns *= 2;
	return RESUME_WAIT;
}
