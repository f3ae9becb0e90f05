/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/method_table.h"

#include <string.h>

#include "grpc/health/v1/health.pb-c.h"
#include "iommubroker/v1/admin.pb-c.h"
#include "iommubroker/v1/devices.pb-c.h"
#include "iommubroker/v1/domains.pb-c.h"
#include "iommubroker/v1/events.pb-c.h"
#include "iommubroker/v1/fastpath.pb-c.h"
#include "iommubroker/v1/guests.pb-c.h"
#include "iommubroker/v1/host.pb-c.h"
#include "iommubroker/v1/memory.pb-c.h"
#include "iommubroker/v1/native.pb-c.h"
#include "rpc/handler.h"
#include "rpc/refresh.h"

#define PATH(text) .path = text, .path_bytes = sizeof(text) - 1
#define N(name)    IOMMUBROKER__V1__METHOD__METHOD_##name
#define R(name)    iommubroker__v1__##name##__descriptor

/* For operators: no session, no request id, no handle of a session's. */
#define ADMIN(method, name, request_, place_, more_flags, prepare_, handle_)                       \
	{                                                                                          \
		PATH("/iommubroker.v1.Admin/" method),                                             \
			.number = N(ADMIN_##name),                                                 \
			.flags = METHOD_ADMIN | METHOD_NO_SESSION | (more_flags), .place = place_, \
			.request = &R(request_), .prepare = prepare_, .handle = handle_,           \
	}

/* A row without handle() is a method that its prepare() always refuses. */
static const struct method methods[] = {
	{
		PATH("/iommubroker.v1.Host/GetInfo"),
		.number = N(GET_INFO),
		.flags = METHOD_CLIENT | METHOD_ADMIN | METHOD_NO_SESSION,
		.place = PLACE_INLINE,
		.request = &R(get_info_request),
		.handle = handle_get_info,
	},
	{
		PATH("/iommubroker.v1.Host/OpenSession"),
		.number = N(OPEN_SESSION),
		.flags = METHOD_CLIENT | METHOD_NO_SESSION,
		.place = PLACE_INLINE,
		.request = &R(open_session_request),
		.prepare = prepare_open_session,
		.handle = handle_open_session,
	},
	{
		PATH("/iommubroker.v1.Host/CloseSession"),
		.number = N(CLOSE_SESSION),
		.flags = METHOD_CLIENT | METHOD_GIVES_BACK,
		.right = GUEST_RIGHT_ANY,
		.place = PLACE_INLINE,
		.request = &R(close_session_request),
		.handle = handle_close_session,
	},
	{
		PATH("/iommubroker.v1.Host/CheckFit"),
		.number = N(CHECK_FIT),
		.flags = METHOD_CLIENT,
		.right = GUEST_RIGHT_OWN,
		.place = PLACE_INLINE,
		.request = &R(check_fit_request),
		.handle = handle_check_fit,
	},
	{
		PATH("/iommubroker.v1.Host/GetUsage"),
		.number = N(GET_USAGE),
		.flags = METHOD_CLIENT,
		.right = GUEST_RIGHT_OWN,
		.place = PLACE_INLINE,
		.request = &R(get_usage_request),
		.handle = handle_get_usage,
	},
	{
		PATH("/iommubroker.v1.Host/CancelOperation"),
		.number = N(CANCEL_OPERATION),
		.flags = METHOD_CLIENT | METHOD_GIVES_BACK,
		.right = GUEST_RIGHT_ANY,
		.place = PLACE_INLINE,
		.request = &R(cancel_operation_request),
		.prepare = prepare_cancel_operation,
		.handle = handle_cancel_operation,
	},
	{
		PATH("/iommubroker.v1.Guests/CreateGuest"),
		.number = N(CREATE_GUEST),
		.flags = METHOD_CLIENT | METHOD_MUTATION,
		.right = GUEST_RIGHT_OWN,
		.place = PLACE_POOL,
		.request = &R(create_guest_request),
		.request_id_offset = offsetof(Iommubroker__V1__CreateGuestRequest, request_id),
		.descriptors_max = 1,
		.prepare = prepare_create_guest,
		.handle = handle_create_guest,
	},
	{
		PATH("/iommubroker.v1.Guests/ListGuests"),
		.number = N(LIST_GUESTS),
		.flags = METHOD_CLIENT,
		.right = GUEST_RIGHT_ANY,
		.place = PLACE_INLINE,
		.request = &R(list_guests_request),
		.handle = handle_list_guests,
	},
	{
		PATH("/iommubroker.v1.Guests/DescribeGuest"),
		.number = N(DESCRIBE_GUEST),
		.flags = METHOD_CLIENT,
		.right = GUEST_RIGHT_ANY,
		.place = PLACE_POOL, /* of a guest with thousands of regions it takes its time */
		.request = &R(describe_guest_request),
		.handle_offset = offsetof(Iommubroker__V1__DescribeGuestRequest, guest),
		.prepare = prepare_describe_guest,
		.handle = handle_describe_guest,
	},
	{
		PATH("/iommubroker.v1.Guests/Delegate"),
		.number = N(DELEGATE),
		.flags = METHOD_CLIENT | METHOD_MUTATION,
		.right = GUEST_RIGHT_OWN,
		.place = PLACE_POOL,
		.request = &R(delegate_request),
		.request_id_offset = offsetof(Iommubroker__V1__DelegateRequest, request_id),
		.descriptors_max = 2,
		.handle_offset = offsetof(Iommubroker__V1__DelegateRequest, guest),
		.prepare = prepare_delegate,
		.handle = handle_delegate,
	},
	{
		PATH("/iommubroker.v1.Guests/RevokeDelegation"),
		.number = N(REVOKE_DELEGATION),
		.flags = METHOD_CLIENT | METHOD_MUTATION | METHOD_GIVES_BACK,
		.right = GUEST_RIGHT_OWN,
		.place = PLACE_INLINE,
		.request = &R(revoke_delegation_request),
		.request_id_offset = offsetof(Iommubroker__V1__RevokeDelegationRequest, request_id),
		.prepare = prepare_revoke_delegation,
		.handle = handle_revoke_delegation,
	},
	{
		PATH("/iommubroker.v1.Guests/PrepareHandover"),
		.number = N(PREPARE_HANDOVER),
		.flags = METHOD_CLIENT | METHOD_MUTATION,
		.right = GUEST_RIGHT_OWN,
		.place = PLACE_LANE,
		.request = &R(prepare_handover_request),
		.request_id_offset = offsetof(Iommubroker__V1__PrepareHandoverRequest, request_id),
		.handle_offset = offsetof(Iommubroker__V1__PrepareHandoverRequest, guest),
		.prepare = prepare_prepare_handover,
		.handle = handle_prepare_handover,
	},
	{
		PATH("/iommubroker.v1.Guests/ResumeGuest"),
		.number = N(RESUME_GUEST),
		.flags = METHOD_CLIENT | METHOD_MUTATION,
		.right = GUEST_RIGHT_OWN,
		.place = PLACE_LANE,
		.request = &R(resume_guest_request),
		.request_id_offset = offsetof(Iommubroker__V1__ResumeGuestRequest, request_id),
		.lane = lane_resume_guest,
		.prepare = prepare_resume_guest,
		.handle = handle_resume_guest,
	},
	{
		PATH("/iommubroker.v1.Guests/ResetGuest"),
		.number = N(RESET_GUEST),
		.flags = METHOD_CLIENT | METHOD_MUTATION,
		.right = GUEST_RIGHT_DOMAIN,
		.place = PLACE_LANE,
		.request = &R(reset_guest_request),
		.request_id_offset = offsetof(Iommubroker__V1__ResetGuestRequest, request_id),
		.handle_offset = offsetof(Iommubroker__V1__ResetGuestRequest, guest),
		.prepare = prepare_reset_guest,
		.handle = handle_reset_guest,
	},
	{
		PATH("/iommubroker.v1.Guests/DestroyGuest"),
		.number = N(DESTROY_GUEST),
		.flags = METHOD_CLIENT | METHOD_MUTATION | METHOD_GIVES_BACK,
		.right = GUEST_RIGHT_OWN,
		.place = PLACE_LANE,
		.request = &R(destroy_guest_request),
		.request_id_offset = offsetof(Iommubroker__V1__DestroyGuestRequest, request_id),
		.handle_offset = offsetof(Iommubroker__V1__DestroyGuestRequest, guest),
		.prepare = prepare_destroy_guest,
		.handle = handle_destroy_guest,
	},
	{
		PATH("/iommubroker.v1.Memory/AddMemoryFile"),
		.number = N(ADD_MEMORY_FILE),
		.flags = METHOD_CLIENT | METHOD_MUTATION,
		.right = GUEST_RIGHT_MAP,
		.place = PLACE_LANE,
		.request = &R(add_memory_file_request),
		.request_id_offset = offsetof(Iommubroker__V1__AddMemoryFileRequest, request_id),
		.handle_offset = offsetof(Iommubroker__V1__AddMemoryFileRequest, guest),
		.descriptors_max = 1,
		.prepare = prepare_add_memory_file,
		.handle = handle_add_memory_file,
	},
	{
		PATH("/iommubroker.v1.Memory/UpdateMemory"),
		.number = N(UPDATE_MEMORY),
		.flags = METHOD_CLIENT | METHOD_MUTATION | METHOD_STREAM,
		.right = GUEST_RIGHT_MAP,
		.place = PLACE_LANE,
		.request = &R(update_memory_request),
		.request_id_offset = offsetof(Iommubroker__V1__UpdateMemoryRequest, request_id),
		.handle_offset = offsetof(Iommubroker__V1__UpdateMemoryRequest, guest),
		.prepare = prepare_update_memory,
		.handle = handle_update_memory,
	},
	{
		PATH("/iommubroker.v1.Memory/RemoveMemoryFile"),
		.number = N(REMOVE_MEMORY_FILE),
		.flags = METHOD_CLIENT | METHOD_MUTATION | METHOD_GIVES_BACK,
		.right = GUEST_RIGHT_MAP,
		.place = PLACE_LANE,
		.request = &R(remove_memory_file_request),
		.request_id_offset = offsetof(Iommubroker__V1__RemoveMemoryFileRequest, request_id),
		.handle_offset = offsetof(Iommubroker__V1__RemoveMemoryFileRequest, guest),
		.prepare = prepare_remove_memory_file,
		.handle = handle_remove_memory_file,
	},
	{
		PATH("/iommubroker.v1.Devices/OpenDevice"),
		.number = N(OPEN_DEVICE),
		.flags = METHOD_CLIENT | METHOD_MUTATION,
		.right = GUEST_RIGHT_DEVICE,
		.place = PLACE_LANE,
		.request = &R(open_device_request),
		.request_id_offset = offsetof(Iommubroker__V1__OpenDeviceRequest, request_id),
		.handle_offset = offsetof(Iommubroker__V1__OpenDeviceRequest, guest),
		.descriptors_max = 1,
		.prepare = prepare_open_device,
		.handle = handle_open_device,
	},
	{
		PATH("/iommubroker.v1.Devices/BindDevice"),
		.number = N(BIND_DEVICE),
		.flags = METHOD_CLIENT | METHOD_MUTATION | METHOD_STREAM,
		.right = GUEST_RIGHT_DEVICE,
		.place = PLACE_LANE,
		.request = &R(bind_device_request),
		.request_id_offset = offsetof(Iommubroker__V1__BindDeviceRequest, request_id),
		.handle_offset = offsetof(Iommubroker__V1__BindDeviceRequest, device),
		.prepare = prepare_bind_device,
		.handle = handle_bind_device,
	},
	{
		PATH("/iommubroker.v1.Devices/GetDeviceInfo"),
		.number = N(GET_DEVICE_INFO),
		.flags = METHOD_CLIENT,
		.right = GUEST_RIGHT_ANY,
		.place = PLACE_INLINE,
		.request = &R(get_device_info_request),
		.handle_offset = offsetof(Iommubroker__V1__GetDeviceInfoRequest, device),
		.prepare = prepare_get_device_info,
		.handle = handle_get_device_info,
	},
	{
		PATH("/iommubroker.v1.Devices/GetDescriptor"),
		.number = N(GET_DESCRIPTOR),
		.flags = METHOD_CLIENT,
		.right = GUEST_RIGHT_DEVICE,
		.place = PLACE_LANE,
		.request = &R(get_descriptor_request),
		.handle_offset = offsetof(Iommubroker__V1__GetDescriptorRequest, device),
		.prepare = prepare_get_descriptor,
		.handle = handle_get_descriptor,
	},
	{
		PATH("/iommubroker.v1.Devices/CloseDevice"),
		.number = N(CLOSE_DEVICE),
		.flags = METHOD_CLIENT | METHOD_MUTATION | METHOD_GIVES_BACK,
		.right = GUEST_RIGHT_DEVICE,
		.place = PLACE_LANE,
		.request = &R(close_device_request),
		.request_id_offset = offsetof(Iommubroker__V1__CloseDeviceRequest, request_id),
		.handle_offset = offsetof(Iommubroker__V1__CloseDeviceRequest, device),
		.prepare = prepare_close_device,
		.handle = handle_close_device,
	},
	{
		PATH("/iommubroker.v1.Domains/CreateNested"),
		.number = N(CREATE_NESTED),
		.flags = METHOD_CLIENT | METHOD_MUTATION,
		.right = GUEST_RIGHT_DOMAIN,
		.place = PLACE_LANE,
		.request = &R(create_nested_request),
		.request_id_offset = offsetof(Iommubroker__V1__CreateNestedRequest, request_id),
		.handle_offset = offsetof(Iommubroker__V1__CreateNestedRequest, device),
		.prepare = prepare_create_nested,
		.handle = handle_create_nested,
	},
	{
		PATH("/iommubroker.v1.Domains/ReplaceNested"),
		.number = N(REPLACE_NESTED),
		.flags = METHOD_CLIENT | METHOD_MUTATION,
		.right = GUEST_RIGHT_DOMAIN,
		.place = PLACE_LANE,
		.request = &R(replace_nested_request),
		.request_id_offset = offsetof(Iommubroker__V1__ReplaceNestedRequest, request_id),
		.handle_offset = offsetof(Iommubroker__V1__ReplaceNestedRequest, nested),
		.prepare = prepare_replace_nested,
		.handle = handle_replace_nested,
	},
	{
		PATH("/iommubroker.v1.Domains/DestroyNested"),
		.number = N(DESTROY_NESTED),
		.flags = METHOD_CLIENT | METHOD_MUTATION | METHOD_GIVES_BACK,
		.right = GUEST_RIGHT_DOMAIN,
		.place = PLACE_LANE,
		.request = &R(destroy_nested_request),
		.request_id_offset = offsetof(Iommubroker__V1__DestroyNestedRequest, request_id),
		.handle_offset = offsetof(Iommubroker__V1__DestroyNestedRequest, nested),
		.prepare = prepare_destroy_nested,
		.handle = handle_destroy_nested,
	},
	{
		PATH("/iommubroker.v1.Domains/Attach"),
		.number = N(ATTACH),
		.flags = METHOD_CLIENT | METHOD_MUTATION,
		.right = GUEST_RIGHT_DOMAIN,
		.place = PLACE_LANE,
		.request = &R(attach_request),
		.request_id_offset = offsetof(Iommubroker__V1__AttachRequest, request_id),
		.handle_offset = offsetof(Iommubroker__V1__AttachRequest, device),
		.prepare = prepare_attach,
		.handle = handle_attach,
	},
	{
		PATH("/iommubroker.v1.Domains/RefreshNested"),
		.number = N(REFRESH_NESTED),
		.flags = METHOD_CLIENT,
		.right = GUEST_RIGHT_REFRESH,
		.place = PLACE_REFRESH,
		.request = &R(refresh_nested_request),
		.handle_offset = offsetof(Iommubroker__V1__RefreshNestedRequest, nested),
		.prepare = prepare_refresh_nested,
		.refreshes = refresh_call_ranges,
		.handle = handle_refresh_nested,
	},
	{
		PATH("/iommubroker.v1.Domains/UpdateNested"),
		.number = N(UPDATE_NESTED),
		.flags = METHOD_CLIENT | METHOD_MUTATION | METHOD_REPEATABLE,
		.right = GUEST_RIGHT_DOMAIN,
		.place = PLACE_LANE,
		.request = &R(update_nested_request),
		.request_id_offset = offsetof(Iommubroker__V1__UpdateNestedRequest, request_id),
		.handle_offset = offsetof(Iommubroker__V1__UpdateNestedRequest, nested),
		.prepare = prepare_update_nested,
		.refreshes = update_nested_entries,
		.handle = handle_update_nested,
	},
	{
		PATH("/iommubroker.v1.Domains/InvalidateNested"),
		.number = N(INVALIDATE_NESTED),
		.flags = METHOD_CLIENT | METHOD_MUTATION | METHOD_REPEATABLE,
		.right = GUEST_RIGHT_REFRESH,
		.place = PLACE_INLINE,
		.request = &R(invalidate_nested_request),
		.request_id_offset = offsetof(Iommubroker__V1__InvalidateNestedRequest, request_id),
		.prepare = prepare_invalidate_nested,
	},
	{
		PATH("/iommubroker.v1.Domains/SetDirtyTracking"),
		.number = N(SET_DIRTY_TRACKING),
		.flags = METHOD_CLIENT | METHOD_MUTATION,
		.right = GUEST_RIGHT_DOMAIN,
		.place = PLACE_INLINE,
		.request = &R(set_dirty_tracking_request),
		.request_id_offset = offsetof(Iommubroker__V1__SetDirtyTrackingRequest, request_id),
		.prepare = prepare_set_dirty_tracking,
	},
	{
		PATH("/iommubroker.v1.Domains/ReadDirty"),
		.number = N(READ_DIRTY),
		.flags = METHOD_CLIENT | METHOD_MUTATION,
		.right = GUEST_RIGHT_MAP,
		.place = PLACE_INLINE,
		.request = &R(read_dirty_request),
		.request_id_offset = offsetof(Iommubroker__V1__ReadDirtyRequest, request_id),
		.prepare = prepare_read_dirty,
	},
	{
		PATH("/iommubroker.v1.Domains/ExplainTranslation"),
		.number = N(EXPLAIN_TRANSLATION),
		.flags = METHOD_CLIENT,
		.right = GUEST_RIGHT_ANY,
		.place = PLACE_POOL,
		.request = &R(explain_translation_request),
		.handle_offset = offsetof(Iommubroker__V1__ExplainTranslationRequest, nested),
		.prepare = prepare_explain_translation,
		.handle = handle_explain_translation,
	},
	{
		PATH("/iommubroker.v1.FastPath/CreateUpdateRing"),
		.number = N(CREATE_UPDATE_RING),
		.flags = METHOD_CLIENT | METHOD_MUTATION,
		.right = GUEST_RIGHT_REFRESH,
		.place = PLACE_LANE,
		.request = &R(create_update_ring_request),
		.request_id_offset = offsetof(Iommubroker__V1__CreateUpdateRingRequest, request_id),
		.handle_offset = offsetof(Iommubroker__V1__CreateUpdateRingRequest, guest),
		.prepare = prepare_create_update_ring,
		.handle = handle_create_update_ring,
	},
	{
		PATH("/iommubroker.v1.FastPath/DestroyUpdateRing"),
		.number = N(DESTROY_UPDATE_RING),
		.flags = METHOD_CLIENT | METHOD_MUTATION | METHOD_GIVES_BACK,
		.right = GUEST_RIGHT_REFRESH,
		.place = PLACE_LANE,
		.request = &R(destroy_update_ring_request),
		.request_id_offset =
			offsetof(Iommubroker__V1__DestroyUpdateRingRequest, request_id),
		.handle_offset = offsetof(Iommubroker__V1__DestroyUpdateRingRequest, ring),
		.prepare = prepare_destroy_update_ring,
		.handle = handle_destroy_update_ring,
	},
	{
		PATH("/iommubroker.v1.Events/WatchEvents"),
		.number = N(WATCH_EVENTS),
		.flags = METHOD_CLIENT | METHOD_STREAM,
		.right = GUEST_RIGHT_EVENTS,
		.place = PLACE_INLINE,
		.request = &R(watch_events_request),
		.handle_offset = offsetof(Iommubroker__V1__WatchEventsRequest, guest),
		.prepare = prepare_watch_events,
		.handle = handle_watch_events,
	},
	ADMIN("GetStatus", GET_STATUS, get_status_request, PLACE_INLINE, 0, NULL,
	      handle_get_status),
	ADMIN("ListAll", LIST_ALL, list_all_request, PLACE_INLINE, 0, NULL, handle_list_all),
	ADMIN("ShowGuest", SHOW_GUEST, show_guest_request, PLACE_POOL, METHOD_STREAM, NULL,
	      handle_show_guest),
	ADMIN("Explain", EXPLAIN, explain_request, PLACE_POOL, 0, prepare_admin_explain,
	      handle_admin_explain),
	ADMIN("Configure", CONFIGURE, configure_request, PLACE_POOL, 0, NULL, handle_configure),
	ADMIN("ShowConfiguration", SHOW_CONFIGURATION, show_configuration_request, PLACE_INLINE,
	      METHOD_STREAM, NULL, handle_show_configuration),
	ADMIN("ShowQuota", SHOW_QUOTA, show_quota_request, PLACE_INLINE, METHOD_STREAM, NULL,
	      handle_show_quota),
	ADMIN("ExplainQuota", EXPLAIN_QUOTA, explain_quota_request, PLACE_POOL, 0,
	      prepare_explain_quota, handle_explain_quota),
	ADMIN("CheckTenantFit", CHECK_TENANT_FIT, check_tenant_fit_request, PLACE_INLINE, 0, NULL,
	      handle_check_tenant_fit),
	ADMIN("Revoke", REVOKE, revoke_request, PLACE_POOL, 0, prepare_revoke, handle_revoke),
	ADMIN("Drain", DRAIN, drain_request, PLACE_INLINE, 0, NULL, handle_drain),
	ADMIN("GetMetrics", GET_METRICS, get_metrics_request, PLACE_POOL, 0, NULL,
	      handle_get_metrics),
	ADMIN("Monitor", MONITOR, monitor_request, PLACE_INLINE, METHOD_STREAM, NULL,
	      handle_monitor),
	{
		.number = N(JOIN_SESSION),
		.flags = METHOD_CLIENT | METHOD_NO_SESSION,
		.place = PLACE_INLINE,
		.request = &R(join_session_request),
		.prepare = prepare_join_session,
		.handle = handle_join_session,
	},
	{
		.number = N(SEND_DESCRIPTOR),
		.flags = METHOD_CLIENT,
		.right = GUEST_RIGHT_ANY,
		.place = PLACE_INLINE,
		.request = &R(send_descriptor_request),
		.descriptors_max = 1,
		.prepare = prepare_send_descriptor,
		.handle = handle_send_descriptor,
	},
	{
		.number = N(TAKE_DESCRIPTOR),
		.flags = METHOD_CLIENT,
		.right = GUEST_RIGHT_ANY,
		.place = PLACE_INLINE,
		.request = &R(take_descriptor_request),
		.handle = handle_take_descriptor,
	},
	{
		PATH("/grpc.health.v1.Health/Check"),
		.number = N(HEALTH_CHECK),
		.flags = METHOD_CLIENT | METHOD_ADMIN | METHOD_NO_SESSION,
		.place = PLACE_INLINE,
		.request = &grpc__health__v1__health_check_request__descriptor,
		.handle = handle_health_check,
	},
	{
		PATH("/grpc.health.v1.Health/Watch"),
		.flags = METHOD_CLIENT | METHOD_ADMIN | METHOD_NO_SESSION | METHOD_STREAM,
		.place = PLACE_INLINE,
		.request = &grpc__health__v1__health_check_request__descriptor,
		.handle = handle_health_watch,
	},
};

#define METHODS (sizeof(methods) / sizeof(methods[0]))

const struct method *method_table(size_t *ret_n)
{
	*ret_n = METHODS;
	return methods;
}

bool method_behind(const struct method *method, enum rpc_door door)
{
	return method->flags & (door == RPC_DOOR_ADMIN ? METHOD_ADMIN : METHOD_CLIENT);
}

/* Few rows, most of another length: looking at them all is as quick as anything. */
const struct method *method_by_path(const char *path, size_t path_bytes, enum rpc_door door)
{
	for (size_t i = 0; i < METHODS; i++)
		if (methods[i].path && methods[i].path_bytes == path_bytes &&
		    !memcmp(methods[i].path, path, path_bytes))
			return method_behind(&methods[i], door) ? &methods[i] : NULL;
	return NULL;
}

const struct method *method_by_number(uint32_t number)
{
	for (size_t i = 0; number && i < METHODS; i++)
		if (methods[i].number == number)
			return &methods[i];
	return NULL;
}

const char *method_path(const struct method *method)
{
	return method->path ? method->path : "native";
}

bool method_streams(const struct method *method)
{
	return method->flags & METHOD_STREAM;
}
