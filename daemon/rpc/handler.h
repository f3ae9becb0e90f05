/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_HANDLER_H
#define IB_RPC_HANDLER_H

/*
 * The methods. prepare_…() checks the form of a request and makes the broker's struct of it,
 * handle_…() asks the broker and packs the answer; see struct method for what they answer.
 */

#include <stdint.h>

struct call;

/* handler_host.c */
int handle_get_info(struct call *call);
int prepare_open_session(struct call *call);
int handle_open_session(struct call *call);
int handle_close_session(struct call *call);
int handle_check_fit(struct call *call);
int handle_get_usage(struct call *call);
int prepare_cancel_operation(struct call *call);
int handle_cancel_operation(struct call *call);

/* handler_guest.c */
int prepare_create_guest(struct call *call);
int handle_create_guest(struct call *call);
int handle_list_guests(struct call *call);
int prepare_describe_guest(struct call *call);
int handle_describe_guest(struct call *call);
int prepare_reset_guest(struct call *call);
int handle_reset_guest(struct call *call);
int prepare_destroy_guest(struct call *call);
int handle_destroy_guest(struct call *call);

/* handler_memory.c */
int prepare_add_memory_file(struct call *call);
int handle_add_memory_file(struct call *call);
int prepare_update_memory(struct call *call);
int handle_update_memory(struct call *call);
int prepare_remove_memory_file(struct call *call);
int handle_remove_memory_file(struct call *call);

/* handler_device.c */
int prepare_open_device(struct call *call);
int handle_open_device(struct call *call);
int prepare_bind_device(struct call *call);
int handle_bind_device(struct call *call);
int prepare_get_device_info(struct call *call);
int handle_get_device_info(struct call *call);
int prepare_get_descriptor(struct call *call);
int handle_get_descriptor(struct call *call);
int prepare_close_device(struct call *call);
int handle_close_device(struct call *call);

/* handler_domain.c */
int prepare_create_nested(struct call *call);
int handle_create_nested(struct call *call);
int prepare_replace_nested(struct call *call);
int handle_replace_nested(struct call *call);
int prepare_destroy_nested(struct call *call);
int handle_destroy_nested(struct call *call);
int prepare_attach(struct call *call);
int handle_attach(struct call *call);
int prepare_update_nested(struct call *call);
int handle_update_nested(struct call *call);
uint64_t update_nested_entries(const struct call *call);
int prepare_explain_translation(struct call *call);
int handle_explain_translation(struct call *call);

/* handler_delegate.c */
int prepare_delegate(struct call *call);
int handle_delegate(struct call *call);
int prepare_revoke_delegation(struct call *call);
int handle_revoke_delegation(struct call *call);

/* handler_later.c: methods of the API that this version does not have */
int prepare_prepare_handover(struct call *call);
int handle_prepare_handover(struct call *call);
int prepare_resume_guest(struct call *call);
struct pool_lane *lane_resume_guest(struct call *call);
int handle_resume_guest(struct call *call);
int prepare_invalidate_nested(struct call *call);
int prepare_set_dirty_tracking(struct call *call);
int prepare_read_dirty(struct call *call);

/* handler_ring.c */
/* Of CreateUpdateRing and what asks about it: the fields' names for a refusal. 0 or REFUSED. */
int check_ring_shape(struct call *call, const char *lanes_field, uint32_t lanes,
		     const char *entries_field, uint32_t entries);
int prepare_create_update_ring(struct call *call);
int handle_create_update_ring(struct call *call);
int prepare_destroy_update_ring(struct call *call);
int handle_destroy_update_ring(struct call *call);

/* handler_event.c */
int prepare_watch_events(struct call *call);
int handle_watch_events(struct call *call);

/* handler_native.c */
int prepare_join_session(struct call *call);
int handle_join_session(struct call *call);
int prepare_send_descriptor(struct call *call);
int handle_send_descriptor(struct call *call);
int handle_take_descriptor(struct call *call);

/* admin.c */
int handle_get_status(struct call *call);
int handle_list_all(struct call *call);
int handle_show_guest(struct call *call);
int prepare_admin_explain(struct call *call);
int handle_admin_explain(struct call *call);
int handle_configure(struct call *call);

/* admin_config.c */
int handle_show_configuration(struct call *call);

/* admin_quota.c */
int handle_show_quota(struct call *call);
int prepare_explain_quota(struct call *call);
int handle_explain_quota(struct call *call);
int handle_check_tenant_fit(struct call *call);

/* admin_revoke.c */
int prepare_revoke(struct call *call);
int handle_revoke(struct call *call);
int handle_drain(struct call *call);

/* admin_metrics.c */
int handle_get_metrics(struct call *call);

/* admin_monitor.c */
int handle_monitor(struct call *call);

/* health.c */
int handle_health_check(struct call *call);
int handle_health_watch(struct call *call);

#endif
