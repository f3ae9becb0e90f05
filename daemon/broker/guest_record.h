/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_BROKER_GUEST_RECORD_H
#define IB_BROKER_GUEST_RECORD_H

/*
 * A guest as it is written for the next process: the records (state/record.h) in its state file.
 *
 * save.c writes them, restore.c reads them and trusts none. Structs grow at their ends; enums are
 * never renumbered. Strings are terminated within their arrays. Handles name other records.
 *
 * Order: GUEST first, then its labels, sessions before what names them, files before regions,
 * devices before nested domains.
 *
 * What is under way. What is made is written down when it is there, before its client is answered:
 * what the kernel has and no record names is destroyed by the successor, and the client asks again.
 * What is taken away, and what is done to memory, is written down before it is begun, as an
 * object's stage tells: what is going is taken away for good; a region that was being mapped is
 * unmapped and one that was being unmapped is mapped again, for the client was not answered.
 */

#include <stdint.h>

enum guest_record_type {
	RECORD_GUEST = 1,
	RECORD_LABEL = 2,
	RECORD_SESSION = 3,
	RECORD_FILE = 4,
	RECORD_REGION = 5,
	RECORD_DEVICE = 6,
	RECORD_NESTED = 7,
	RECORD_LEFTOVER = 8,
	RECORD_ANSWER = 9, /* tail: the answer's message */
	RECORD_RING = 10,
};

enum record_stage {
	RECORD_LIVE = 0,
	RECORD_MAKING = 1,  /* of a region: it may be mapped, in part or as a whole */
	RECORD_GOING = 2,   /* of a region: it may be mapped still; of all else: it goes */
	RECORD_BINDING = 3, /* of a device: it may be bound; of the first, regions may be pinned */
};

#define RECORD_NAME_BYTES   64
#define RECORD_SECRET_BYTES 16
#define RECORD_PAGE_TABLES  32
#define RECORD_DEVICES      64
#define RECORD_RULE_BYTES   24
#define RECORD_DIGEST_BYTES 32

struct record_guest {
	uint64_t handle;
	uint8_t secret[RECORD_SECRET_BYTES];
	uint8_t uuid[16];
	char name[RECORD_NAME_BYTES], tenant_name[RECORD_NAME_BYTES];
	uint64_t creator, home;                  /* ids of sessions */
	uint64_t pinned_bytes_max, mappings_max; /* asked for at CreateGuest */
	int32_t pid;                             /* who holds it */
	uint32_t uid;
	uint32_t event_slots;
	uint32_t parent_ioas;
	uint32_t n_page_tables;
	uint32_t page_tables[RECORD_PAGE_TABLES];
	uint32_t highest_id; /* of all that the kernel ever answered in this context */
	uint32_t tenant_uid;
	char rule_name[RECORD_RULE_BYTES]; /* "": the tenant has no rule */
	uint8_t has_uuid, on_behalf, parent_made;
	uint8_t pinned;          /* all live regions are */
	uint8_t stage;           /* LIVE or GOING */
	uint8_t handover_blocks; /* its devices, while nobody holds it */
	uint8_t reserved[6];
	uint64_t handover_ns; /* until when it stays without a holder, CLOCK_BOOTTIME; 0: it does
				 not */
	int32_t owner_pid;    /* with has_owner, else who holds it */
	uint32_t owner_uid;
	uint8_t has_owner, reserved2[3];
	uint32_t number; /* in the store, counted from 1; 0: not told */
};

struct record_label {
	char key[RECORD_NAME_BYTES], value[RECORD_NAME_BYTES];
};

/* Of every session that created the guest, holds it, or has a part of it delegated. The same
 * session can be in the files of several guests. */
struct record_session {
	uint64_t id;
	uint8_t secret[RECORD_SECRET_BYTES];
	char name[RECORD_NAME_BYTES];
	char tenant_name[RECORD_NAME_BYTES];
	uint64_t start_ticks; /* of the process: field 22 of /proc/PID/stat; 0: nobody's yet */
	int32_t pid;          /* 0: nobody's yet */
	uint32_t uid;
	uint32_t rights;
	uint8_t has_delegation, closed;
	uint8_t reserved[2];
	char rule_name[RECORD_RULE_BYTES]; /* its tenant's */
	uint32_t tenant_uid, reserved3;
	/* with has_delegation */
	uint64_t delegation, delegator; /* handle; id of a session */
	uint64_t pinned_bytes_max, mappings_max;
	uint32_t n_devices;
	uint32_t listener; /* index of its stored socket, plus 1; 0: none */
	uint64_t devices[RECORD_DEVICES];
};

struct record_file {
	uint64_t handle;
	uint64_t length_bytes, page_bytes;
	uint32_t index; /* of its stored descriptor */
	uint8_t writable, huge, stage, reserved;
	uint64_t inode; /* of the file; 0: not told */
};

struct record_region {
	uint64_t file; /* handle */
	uint64_t offset, gpa, length, granule, area_bytes;
	uint8_t writable, stage, reserved[6];
};

struct record_relaxed {
	uint32_t ioas, page_table;
	uint64_t base, first, last;
	uint8_t made, filled, reserved[6];
};

struct record_device {
	uint64_t handle;
	uint64_t attached; /* nested domain's handle, with attachment NESTED */
	uint32_t index;    /* of its stored descriptor */
	uint32_t kernel_id;
	uint32_t fid;
	uint32_t page_table; /* what it is attached to, with has_page_table */
	char pci_address[16];
	uint8_t has_fid, passed, relaxed_granted;
	uint8_t bound;
	uint8_t attachment, has_page_table, stage, reserved;
	struct record_relaxed relaxed;
};

struct record_nested {
	uint64_t handle, device; /* device's handle */
	uint64_t iota, first, last;
	uint64_t mappings_reserved, table_bytes_reserved;
	uint64_t leaves_max;
	uint64_t extent_offset, extent_bytes; /* of the shadow's storage, in the state file */
	uint32_t tables_max;
	uint32_t index;
	uint32_t ioas, page_table; /* with S390 and MANAGED */
	uint8_t format, broken, stage, reserved[5];
	struct record_relaxed relaxed; /* with RELAXED */
};

struct record_leftover {
	uint32_t ioas, page_table;
	uint8_t has_page_table, reserved[7];
};

struct record_answer {
	uint64_t session; /* id */
	uint64_t request_id;
	uint32_t method; /* number, of the native transport */
	int32_t code;    /* of gRPC's; not 0: the tail is a packed google.rpc.Status */
	uint8_t digest[RECORD_DIGEST_BYTES];
};

/* Not a must to know: who does not gives the ring up, and its client is told by the doorbells. */
struct record_ring {
	uint64_t handle, session; /* the session's id */
	uint32_t index;           /* of its stored descriptors, see ring.h */
	uint32_t lanes, entries, reserved;
	uint64_t bytes; /* that it is charged; who takes it over counts what there is */
};

/* Words of the state file. */
enum guest_word {
	GUEST_WORD_EVENTS, /* sequence of the last event */
	GUEST_WORD_TRIES,  /* times that it was begun to be taken over, and not ended */
	/* Of delegations that listen, a bit for each index modulo 64: somebody was let in, and may
	 * have been told the secret before a record says who. */
	GUEST_WORD_CLAIMED,
};

#endif
