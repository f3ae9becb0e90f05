/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/check.h"

#include <ctype.h>
#include <string.h>

int check_text(struct call *call, const char *path, const char *text, char *ret, size_t max_bytes)
{
	size_t n = strlen(text);

	if (n >= max_bytes)
		return refuse_field(&call->refusal, path, "%s: %zu bytes, at most %zu are allowed",
				    path, n, max_bytes - 1);
	memcpy(ret, text, n + 1);
	return 0;
}

int check_bytes(struct call *call, const char *path, const ProtobufCBinaryData *bytes, size_t n,
		bool may_be_empty)
{
	if (bytes->len == n || (!bytes->len && may_be_empty))
		return 0;
	return refuse_field(&call->refusal, path, "%s: %zu bytes, %zu%s are wanted", path,
			    bytes->len, n, may_be_empty ? " or none" : "");
}

int check_count(struct call *call, const char *path, size_t n, size_t min, size_t max)
{
	if (n >= min && n <= max)
		return 0;
	return refuse_field(&call->refusal, path, "%s: %zu given, %zu to %zu are allowed", path, n,
			    min, max);
}

int check_handle(struct call *call, const char *path, uint64_t handle)
{
	if (handle)
		return 0;
	return refuse_field(&call->refusal, path, "%s: must be set; no handle is 0", path);
}

int check_owned(struct call *call, const char *path, const char *what, uint64_t handle)
{
	struct pool_lane *lane;
	int status = check_handle(call, path, handle);

	if (status)
		return status;
	lane = broker_lane(call_broker(call), call_session(call), handle);
	if (!lane)
		return refuse_not_found(&call->refusal, what);
	pool_lane_unref(lane);
	return 0;
}

int check_pci_address(struct call *call, const char *path, const char *text, char ret[16])
{
	static const char form[] = "xxxx:xx:sx.o"; /* s: a slot is at most 1f */
	size_t i;

	for (i = 0; form[i]; i++) {
		unsigned char c = (unsigned char)text[i];
		bool good = form[i] == 'x'   ? isxdigit(c)
			    : form[i] == 's' ? c == '0' || c == '1'
			    : form[i] == 'o' ? c >= '0' && c <= '7'
					     : c == (unsigned char)form[i];

		if (!good)
			break;
		ret[i] = (char)tolower(c);
	}
	if (form[i] || text[i])
		return refuse_field(&call->refusal, path, "%s: not a PCI address like 0000:00:04.0",
				    path);
	ret[i] = '\0';
	return 0;
}
