# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who somebody would be charged to, told before they connect; and that it is so when they do."""

import os

from api import METHODS, Refused
from cases import VmmCase

UID = os.getuid()
STRANGER = 4123456789  # no user of this host


class Explain(VmmCase):
    settings = {
        "quota.d/10-other.conf": "[Match]\nUser=4000000001 4000000002\n[Quota]\nGuestsMax=1\n",
        "quota.d/20-slice.conf": "[Match]\nSlice=no-such.slice\n[Quota]\nGuestsMax=2\n",
        "quota.d/50-mine.conf": "[Match]\nUser=%d\n[Quota]\nPinnedMemoryMax=64G\n" % UID,
        "quota.d/90-group.conf": "[Match]\nGroup=4000000003\n[Quota]\nGuestsMax=3\n",
    }

    def explain(self, **who):
        admin = self.daemon.admin()
        try:
            return admin.call("ExplainQuota", METHODS["ExplainQuota"].request(**who)).message
        finally:
            admin.close()

    def test_a_process_as_it_is_when_it_connects(self):
        told = self.explain(pid=os.getpid())
        self.assertTrue(told.served, told.reason)
        self.assertEqual((told.tenant, told.rule, told.uid), ("mine", "mine", UID))
        self.assertEqual(told.tenant, self.vmm.describe().tenant)
        self.assertTrue(told.rule_file.endswith("/quota.d/50-mine.conf"), told.rule_file)
        self.assertEqual([c.rule for c in told.considered], ["other", "slice", "mine"])
        self.assertEqual(told.considered[0].why, "User= is 4000000001 4000000002, the client is %d" % UID)
        self.assertTrue(told.considered[1].why.startswith("Slice= is no-such.slice, "), told.considered[1].why)
        self.assertEqual(told.considered[2].why, "matches")

    def test_limits_at_each_level_with_where(self):
        limits = {(x.level, x.resource): x for x in self.explain(pid=os.getpid()).limits}
        mine = limits["tenant", "pinned_bytes"]
        self.assertEqual(mine.max, 64 << 30)
        self.assertTrue(mine.rule.endswith("50-mine.conf:4"), mine.rule)
        self.assertTrue(limits["host", "pinned_bytes"].rule.startswith("setting PinnedMemoryMax="))
        self.assertIn("guest", {level for level, _ in limits})
        self.assertTrue(all(x.max < (1 << 64) - 1 for x in limits.values()))

    def test_a_user_of_whom_the_cgroup_is_not_known(self):
        told = self.explain(user=str(UID))
        self.assertEqual((told.served, told.tenant, told.cgroup), (True, "mine", ""))
        self.assertEqual(told.considered[1].why, "Slice= is no-such.slice, which is not known here")

    def test_who_is_not_served(self):
        told = self.explain(user=str(STRANGER))
        self.assertFalse(told.served)
        self.assertEqual((told.tenant, told.rule, len(told.considered), len(told.limits)), ("", "", 4, 0))
        self.assertIn("may not connect", told.reason)
        self.assertIn("[Clients]", told.reason)
        self.assertEqual(told.considered[3].why, "Group= is 4000000003, which is not known here")

    def test_who_cannot_be_found(self):
        for who, code, reason in (
            ({"user": "no-such-user-here"}, "NOT_FOUND", "NO_SUCH_USER"),
            ({"unit": "no-such-unit-here.service"}, "NOT_FOUND", "NO_SUCH_UNIT"),
            ({"unit": "../x"}, "INVALID_ARGUMENT", "INVALID_FIELD"),
            ({"pid": 0x7FFFFFFF}, "NOT_FOUND", "NO_SUCH_PROCESS"),
            ({"pid": 1 << 40}, "INVALID_ARGUMENT", "INVALID_FIELD"),
            ({"user": "x" * 300}, "INVALID_ARGUMENT", "INVALID_FIELD"),
            ({}, "INVALID_ARGUMENT", "INVALID_FIELD"),
            ({"user": "root", "pid": 1}, "INVALID_ARGUMENT", "INVALID_FIELD"),
        ):
            with self.subTest(who), self.assertRaises(Refused) as caught:
                self.explain(**who)
            self.assertEqual((caught.exception.code, caught.exception.reason), (code, reason))

    def test_of_many_rules_the_one_that_decides_is_told(self):
        for n in range(300):
            path = os.path.join(self.daemon.config, "quota.d/30-r%d.conf" % n)
            with open(path, "w") as file:
                file.write("[Match]\nUser=%d\n" % (4000001000 + n))
        admin = self.daemon.admin()
        admin.call("Configure")
        admin.close()
        told = self.explain(pid=os.getpid())
        self.assertEqual((len(told.considered), told.considered[-1].rule, told.considered_left_out), (128, "mine", 175))
