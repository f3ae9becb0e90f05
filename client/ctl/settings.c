/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a reload changed: the settings that held before, compared with those that hold now. */

#include <stdio.h>
#include <string.h>

#include "ctl/configure.h"
#include "ctl/json.h"
#include "ctl/text.h"
#include "ctl/text_flow.h"
#include "iommubroker/v1/admin.pb-c.h"

typedef Iommubroker__V1__ShowConfigurationResponse Setting;

/* Of a key that stands several times, the last. */
static bool take_setting(void *user_data, const ProtobufCMessage *message)
{
	const Setting *setting = (const void *)message;
	char name[2 * TEXT_BYTES_MAX];

	/* A rule's section names its file as well: "quota.d/50-a.conf [Quota]". */
	snprintf(name, sizeof(name), strchr(setting->section, '[') != NULL ? "%s %s" : "[%s] %s",
		 text_safe(setting->section, 0).bytes, text_safe(setting->key, 0).bytes);
	json_object_set_new(user_data, name,
			    json_pack("{s:o, s:o}", "value", json_from_string(setting->value),
				      "from", json_from_string(setting->from)));
	return true;
}

json_t *settings_ask(struct command_context *context)
{
	Iommubroker__V1__ShowConfigurationRequest request =
		IOMMUBROKER__V1__SHOW_CONFIGURATION_REQUEST__INIT;
	json_t *settings = json_object();
	struct rpc_status status;

	rpc_call(context->rpc, "ShowConfiguration", &request.base,
		 &iommubroker__v1__show_configuration_response__descriptor, take_setting, settings,
		 &status);
	if (status.code == 0)
		return settings;
	json_decref(settings);
	return NULL;
}

static const char *member(const json_t *setting, const char *name)
{
	const char *value = json_string_value(json_object_get(setting, name));

	return value != NULL ? value : "";
}

static void print_change(const char *name, const json_t *before, const json_t *now)
{
	const char *from = member(now, "from");
	struct text_flow flow = text_flow_begin(stdout, 0, 4);

	text_flow_put(&flow, name);
	if (now != NULL) {
		text_flow_put(&flow, "is");
		text_flow_put(&flow, text_safe(member(now, "value"), 0).bytes);
	} else {
		text_flow_put(&flow, "is gone");
	}
	text_flow_put(&flow, before != NULL ? "and was" : "and is new");
	if (before != NULL)
		text_flow_put(&flow, text_safe(member(before, "value"), 0).bytes);
	text_flow_put(&flow, from[0] != '\0' ? "#" : "");
	text_flow_put(&flow, text_safe(from, 0).bytes);
	text_flow_end(&flow);
}

static bool differs(const json_t *before, const json_t *now)
{
	return before == NULL || now == NULL ||
	       strcmp(member(before, "value"), member(now, "value")) != 0;
}

void settings_print_changes(const json_t *before, const json_t *now)
{
	json_t *setting;
	const char *name;
	size_t n = 0;

	json_object_foreach((json_t *)now, name, setting)
	{
		const json_t *then = json_object_get(before, name);

		if (!differs(then, setting))
			continue;
		print_change(name, then, setting);
		n++;
	}
	json_object_foreach((json_t *)before, name, setting)
	{
		if (json_object_get(now, name) != NULL)
			continue;
		print_change(name, setting, NULL);
		n++;
	}
	if (n == 0)
		puts("nothing that holds now has changed");
}
