/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_UTIL_LOG_MESSAGE_H
#define IB_UTIL_LOG_MESSAGE_H

/*
 * Every kind of message that has an identity of its own: operators' tools find it by MESSAGE_ID,
 * `journalctl -x` explains it, and Monitor names it. The ids are 128-bit random numbers and fixed
 * for ever; a kind that is not used any more keeps its row.
 *
 * From this one table come the journal's catalog (iommubroker.catalog), docs/OBSERVABILITY.md and
 * the numbers that are logged: name, MESSAGE_ID, kind as Monitor tells it, subject, explanation.
 * @FIELD@ stands for a field of the entry.
 */

/* clang-format off */
#define LOG_MESSAGES(X) \
	X(STARTED, "4255dc5bff10457691a7da53e281b977", "started", \
	  "iommubrokerd serves", \
	  "The daemon has read its configuration, has its backend and accepts clients at its sockets.") \
	X(STOPPING, "9287c448cb924465827d7c89f419a55e", "stopping", \
	  "iommubrokerd stops", \
	  "The daemon was asked to stop. Where the service manager keeps what guests have, they go on without\n" \
	  "it, and the next daemon serves them; before systemd 254 that is so for a restart and not for a stop.\n" \
	  "Otherwise every guest is taken down, its devices first: stop it only when `iommubrokerctl list`\n" \
	  "shows none.") \
	X(BROKEN, "a057f8c98d454c51945c135e99970635", "broken", \
	  "iommubrokerd met an error of its own", \
	  "Something failed that no client can cause and no client can be told. The daemon ends, and the\n" \
	  "service manager starts it again. The text says what it was; please report it.") \
	X(BACKEND, "fdabf65276fa45ab84bdc748384b8d0c", "backend", \
	  "The backend cannot be used", \
	  "/dev/iommu cannot be opened or lacks what is needed. `iommubrokerctl doctor` names the reason and\n" \
	  "what to do about it.") \
	X(RELOADED, "b66dfea00c6a49059abf180d907afae1", "reloaded", \
	  "The configuration was read again", \
	  "What is written in the configuration holds from now on. What cannot change while the daemon runs is\n" \
	  "named in the text that follows. Lower limits take nothing away.") \
	X(RELOAD_REFUSED, "13b97347e2464839b83f765441815913", "reload_refused", \
	  "The configuration was not taken", \
	  "A file has a mistake; all settings stay as they were. The text names file, line and key.\n" \
	  "`iommubrokerctl config check` tells it again without changing anything.") \
	X(SESSION_OPENED, "5b181175c455431186038308d5a9dd47", "session_opened", \
	  "A client opened session @IOMMUBROKER_SESSION@", \
	  "Process @IOMMUBROKER_PEER_PID@ of user @IOMMUBROKER_PEER_UID@ is served from now on, and what it uses\n" \
	  "is charged to tenant @IOMMUBROKER_TENANT@.") \
	X(SESSION_CLOSED, "a32a1ec321db427486734e6bfd36624f", "session_closed", \
	  "Session @IOMMUBROKER_SESSION@ has ended", \
	  "The session of process @IOMMUBROKER_PEER_PID@, user @IOMMUBROKER_PEER_UID@, ended; its guests are taken\n" \
	  "down, and what they used is given back to tenant @IOMMUBROKER_TENANT@.") \
	X(GUEST_CREATED, "750290e187f448b8be6e888ecdcdf301", "guest_created", \
	  "A guest was created", \
	  "A client of tenant @IOMMUBROKER_TENANT@ created a guest.") \
	X(DEVICE_OPENED, "3a5a0464424f4d33b21e46bbbe4fea00", "device_opened", \
	  "Device @IOMMUBROKER_DEVICE@ was opened", \
	  "Process @IOMMUBROKER_PEER_PID@ of tenant @IOMMUBROKER_TENANT@ opened it; a device rule lets it.") \
	X(DEVICE_CLOSED, "3df858f328584c4281e26526cacfe805", "device_closed", \
	  "Device @IOMMUBROKER_DEVICE@ was closed", \
	  "Process @IOMMUBROKER_PEER_PID@ of tenant @IOMMUBROKER_TENANT@ gave it back.") \
	X(REFUSAL, "5f4aced2855a456d8053b06fbf56cac6", "refusal", \
	  "A client was refused: @IOMMUBROKER_REASON@", \
	  "A call of process @IOMMUBROKER_PEER_PID@, user @IOMMUBROKER_PEER_UID@, was refused for a reason that is\n" \
	  "the operator's to know: a limit, a permission, or something that the host ran out of. The client was\n" \
	  "told the same, and stays connected.\n" \
	  "\n" \
	  "Where a limit was met: resource @IOMMUBROKER_RESOURCE@ of tenant @IOMMUBROKER_TENANT@, limit\n" \
	  "@IOMMUBROKER_LIMIT@, used @IOMMUBROKER_USED@, requested @IOMMUBROKER_REQUESTED@, by\n" \
	  "@IOMMUBROKER_RULE@. `iommubrokerctl quota --tenant @IOMMUBROKER_TENANT@` shows all of them, and\n" \
	  "`iommubrokerctl quota explain @IOMMUBROKER_PEER_PID@` why that process is charged there.") \
	X(CONNECTION_DROPPED, "26eae77a327a4801905a099621e836f7", "connection_dropped", \
	  "A connection was dropped", \
	  "Process @IOMMUBROKER_PEER_PID@, user @IOMMUBROKER_PEER_UID@, may not connect, has too many connections, or\n" \
	  "spoke nonsense: @IOMMUBROKER_REASON@.") \
	X(QUOTA_HIGH, "0845703311bd4f88a250b1eb1b98643a", "quota_warning", \
	  "Usage rose above its high mark", \
	  "@IOMMUBROKER_RESOURCE@ of the account of @IOMMUBROKER_TENANT@ (@IOMMUBROKER_LEVEL@) rose to\n" \
	  "@IOMMUBROKER_USED@, above the mark of @IOMMUBROKER_HIGH@ that @IOMMUBROKER_RULE@ sets. Nothing is\n" \
	  "refused before the limit of @IOMMUBROKER_LIMIT@; it is told again when it rose again after it fell.") \
	X(REVOKED, "870a1c8a4e034147b6da6786ce106a1d", "revoked", \
	  "An operator took something away", \
	  "`iommubrokerctl revoke`, or a device rule that no longer holds: devices were stopped first, and the\n" \
	  "VMM was told.") \
	X(DRAINING, "03438f64e65a40dba629e3f541c06876", "draining", \
	  "No new guests are accepted", \
	  "`iommubrokerctl drain`: what there is goes on, nothing new is accepted. When no guest is left the\n" \
	  "daemon can be stopped without loss. `iommubrokerctl drain --cancel` accepts again.") \
	X(DRAIN_ENDED, "c6338d844e1146efbdebca7850078ece", "drain_ended", \
	  "New guests are accepted again", \
	  "`iommubrokerctl drain --cancel`.") \
	X(MEMLOCK, "4ed1a42bbc3c4fc3aec598156693b1c4", "memlock", \
	  "The locked-memory limit could not be set", \
	  "The daemon sets its own locked-memory limit to PinnedMemoryMax=, as the kernel's backstop behind its\n" \
	  "ledger. It could not: the unit's LimitMEMLOCK= must not be lower.") \
	X(RESTORED, "bb4bd8fc335244d39c6439591580d2d9", "restored", \
	  "Guests were taken over", \
	  "A daemon before this one left guests with the service manager. Their memory stayed pinned and their\n" \
	  "devices went on; they are served from now on.") \
	X(NOT_RESTORED, "641007a0c6414c9e95f8d3c87769cc8a", "not_restored", \
	  "A guest was released", \
	  "What a daemon before this one left of a guest cannot be taken over, for the reason that the text\n" \
	  "names. Its devices were stopped and blocked and its memory unpinned; its VMM has to begin anew.") \
	X(PINS_DIFFER, "0fa8bba200048004362b490c9c59aa47", "pins_differ", \
	  "The kernel's count of pinned memory is not the ledger's", \
	  "After guests were taken over the kernel counted @IOMMUBROKER_KERNEL_BYTES@ bytes as pinned by the\n" \
	  "daemon, and its ledger has @IOMMUBROKER_LEDGER_BYTES@. More: memory stays pinned that no guest pays for,\n" \
	  "and is given back at the latest when its guest ends. Less: pages are counted with a daemon before\n" \
	  "this one, or with nobody. Guests are served as ever; please report it.")
/* clang-format on */

enum log_message {
	LOG_MESSAGE_NONE,
#define X(name, id, kind, subject, text) LOG_MESSAGE_##name,
	LOG_MESSAGES(X)
#undef X
		LOG_MESSAGE_KINDS
};

struct log_message_row {
	const char *id;   /* 32 hex digits */
	const char *kind; /* lower case, "session_opened" */
	const char *subject, *text;
};
/* message: not NONE. */
const struct log_message_row *log_message_row(enum log_message message);

#endif
