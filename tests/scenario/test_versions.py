# SPDX-License-Identifier: LGPL-2.1-or-later
"""State over an upgrade and over the way back: what the next version and the previous one leave is taken
over, and what this one cannot read costs that guest alone, by name.

The next version is this daemon with $IOMMUBROKER_STATE_NEXT (see daemon/state/record.h); the previous one
is what tests/data/state says of it."""

import os
import re
import sys

from api import Refused, pb
from fixture import PATIENCE
from guest import MIB, PAGE
from ring import Ring
from state_file import GUEST, MUST_KNOW, RING, WORDS, Record, StateFile, guest_name, parse
from test_restart import RestartCase
from test_restart_sessions import SessionCase
from vmm import WINDOW_FIRST, Started

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FORMER = os.path.join(SOURCE, "tests", "data", "state", "former-%s.records" % sys.byteorder)
NEXT = {"IOMMUBROKER_STATE_NEXT": "1"}
NEXT_TYPES, NEXT_BYTES = 50000, 20
IOVA = WINDOW_FIRST + MIB


class Living:
    """A guest with a label, devices attached in each way, and what is to be there after all."""

    def __init__(self, vmm, fid):
        self.vmm = vmm
        self.started = Started(vmm, fid)
        self.started.show(IOVA, 0x3000)
        self.started.memory.write(0x3000, b"goes on")
        self.managed = vmm.bound(fid + 1)
        self.nested = vmm.managed(self.managed).nested
        vmm.entries(self.nested, (IOVA, PAGE, 0x3000, pb.ACCESS_READ))
        self.managed_dma = self.managed.engine()
        self.page = 1

    def transfer(self):
        """Nobody but the hardware is asked."""
        for dma in (self.started.dma, self.managed_dma):
            if dma.read(IOVA, 7) != b"goes on":
                raise AssertionError("it reads something else")
        self.started.dma.write(IOVA + 16, b"and writes")

    def stands_still(self):
        return not self.started.dma.reaches(IOVA) and not self.managed_dma.reaches(IOVA)

    def change(self):
        """All that it could before it can."""
        self.transfer()
        at = IOVA + self.page * PAGE
        self.page += 1
        self.started.show(at, 0x4000)
        if self.vmm.refreshed(self.started.nested) != (0, 0):
            raise AssertionError("something was lost of the nested domain")
        self.started.memory.write(0x4000, b"changed")
        if self.started.dma.read(at, 7) != b"changed":
            raise AssertionError("a refresh is not seen")
        self.vmm.entries(self.nested, (at, PAGE, 0x4000, pb.ACCESS_READ))
        if self.managed_dma.read(at, 7) != b"changed":
            raise AssertionError("an entry is not seen")
        extra = self.vmm.new_memory(MIB, gpa=64 * MIB)
        self.vmm.unmap(64 * MIB, MIB)
        self.vmm.mutate("RemoveMemoryFile", guest=self.vmm.guest, memory_file=extra.handle)


class VersionCase(SessionCase):
    def setUp(self):
        super().setUp()
        self.one = Living(self.vmm, 1)

    def state(self, number=0):
        names = {stored.name: stored.fd for stored in self.daemon.supervisor.store}
        return StateFile(names["%ds0" % number])

    def taken_over(self, *vmms):
        self.assertEqual(re.findall(".*is not taken over.*", self.daemon.log()), [])
        self.rejoin()
        for living in vmms or [self.one]:
            living.change()

    def types(self):
        return {record.type for record in self.state().records()}

    def assert_of_next(self):
        self.assertTrue(all(t + NEXT_TYPES in self.types() for t in self.types() if t < NEXT_TYPES), self.types())

    def assert_of_this(self):
        self.assertLess(max(self.types()), NEXT_TYPES)


class Next(VersionCase):
    def test_back_and_forth(self):
        """An upgrade, the way back, and again; by a restart and by a death."""
        self.needs_crash_points()
        ring = Ring(self.vmm, lanes=2)
        self.addCleanup(ring.close)
        self.another(name="plain", labels={"of": "nobody"})
        lengths = {r.type: len(r.fixed) for r in self.state().records()}
        for again in (self.daemon.restart, self.daemon.crash):
            again(once=NEXT)
            self.assert_of_next()
            longer = {r.type: len(r.fixed) for r in self.state().records()}
            self.assertEqual({t: longer[t] - NEXT_BYTES for t in lengths}, lengths)
            self.taken_over()
            self.assert_of_next()
            again()
            self.assert_of_this()
            self.taken_over()
            self.assertEqual({r.type: len(r.fixed) for r in self.state().records() if r.type in lengths}, lengths)
            done = ring.refresh(self.one.started.created.index, IOVA, PAGE, lane=1)
            self.assertEqual(done.verdict, pb.VERDICT_DONE)
            self.assertEqual(self.daemon.status().guests, 2)
        self.assertEqual(self.vmm.client.call("GetInfo").message.state_version, 1)

    def test_what_it_stores_besides(self):
        """Descriptors of a kind of its own, and words: those go, or stay, and nobody minds."""
        self.daemon.stop()
        names = self.daemon.supervisor.names()
        other = os.memfd_create("of the next version")
        self.addCleanup(os.close, other)
        self.daemon.supervisor.put("0x0", other)
        self.state().set_word(WORDS - 1, 4711)
        self.daemon.start()
        self.daemon.supervisor.wait_names(names, PATIENCE)
        self.taken_over()


class NextUnderLoad(RestartCase):
    def test_while_everything_changes(self):
        """VMMs at work while versions take turns, at deaths that come at any instant."""
        SessionCase.needs_crash_points(self)
        vmms = [self.start((1, 2)), self.start((3, 4))]
        for n in range(24):
            (self.daemon.crash if n % 4 else self.daemon.restart)(once=NEXT if n % 2 else {})
            for vmm in vmms if n % 3 else []:
                self.check(vmm, "after %d" % n)
        for vmm in vmms:
            self.check(vmm, "at the end")
            vmm.quit()
        self.assertEqual(re.findall(".*is not taken over.*", self.daemon.log()), [])


class Former(VersionCase):
    """What is in the store is cut to what the former version would have written."""

    def test_it_is_taken_over(self):
        with open(FORMER, "rb") as f:
            former = parse(f.read())
        fixed = {record.type: len(record.fixed) for record in former}
        self.assertNotIn(RING, fixed)
        ring = Ring(self.vmm)
        self.addCleanup(ring.close)
        self.daemon.stop()
        records = self.state().records()
        cut = [r._replace(fixed=r.fixed[: fixed[r.type]]) for r in records if r.type in fixed]
        self.assertLess(len(cut), len(records))
        self.assertLess(len(cut[0].fixed), len(records[0].fixed))
        self.state().write(cut)
        self.daemon.start()
        self.assertTrue(ring.ended())
        self.taken_over()
        self.assertEqual(
            [(r.type, len(r.fixed)) for r in self.state().records() if r.type in (GUEST, RING)],
            [(GUEST, len(records[0].fixed))],
        )
        # all that was there before there were rings is as it was
        self.daemon.restart()
        self.taken_over()


class NotRead(VersionCase):
    """What a version must know to go on, and does not: that guest goes in good order, named; the other
    does not notice."""

    def setUp(self):
        super().setUp()
        self.bad = Living(self.another(name="of tomorrow"), 3)

    def harm(self, harm, why):
        self.daemon.stop()
        number = next(n for n in (0, 1) if guest_name(self.state(n).records()) == "of tomorrow")
        harm(self.state(number))
        self.bad.transfer()
        self.daemon.start()
        said = re.findall("guest %d '(.*)' of the process before this one is not taken over but released: (.*)" % number, self.daemon.log())
        self.assertEqual(said, [("of tomorrow", why)], self.daemon.log())
        self.assertTrue(self.bad.stands_still())
        self.assertFalse([n for n in self.daemon.supervisor.names() if n.startswith(str(number))])
        self.assertEqual(self.daemon.status().guests, 1)
        with self.assertRaises(Refused):
            self.join(self.bad.vmm.client.secret)
        self.rejoin(self.vmm.client)
        self.one.change()

    def test_a_record_that_it_must_know(self):
        self.harm(
            lambda file: file.write([*file.records(), Record(NEXT_TYPES, MUST_KNOW, b"how to go on", b"")]),
            "a record of type %d, which this version does not know and must" % NEXT_TYPES,
        )

    def test_a_record_that_it_need_not(self):
        """The same but for the flag: it lives."""
        self.daemon.stop()
        for number in (0, 1):
            file = self.state(number)
            file.write([Record(NEXT_TYPES, 0, b"", b"first"), *file.records(), Record(NEXT_TYPES, 0, b"last", b"")])
        self.daemon.start()
        self.taken_over(self.one, self.bad)

    def test_a_layout_to_come(self):
        self.harm(lambda file: file.set_version(2), "it is of a version that this one does not read")

    def test_a_layout_that_is_none(self):
        self.harm(lambda file: file.set_version(0), "it is of a version that this one does not read")

    def test_a_layout_of_tables_to_come(self):
        """A nested domain of which nobody knows what it shows: its device is blocked, until it is registered
        again; all else of the guest lives."""
        self.daemon.stop()
        self.state().set_shadow_version(2)
        self.one.transfer()
        self.daemon.start()
        self.assertEqual(self.daemon.log().count("cannot be attached as it was: it is blocked"), 1)
        self.assertFalse(self.one.started.dma.reaches(IOVA))
        self.assertEqual(self.one.managed_dma.read(IOVA, 7), b"goes on")
        self.rejoin()
        self.vmm.mutate("DestroyNested", nested=self.one.started.nested)
        again = self.vmm.register(self.one.started.device, self.one.started.tables.iota())
        self.assertEqual(again.verdict, pb.VERDICT_DONE)
        self.one.started.nested = again.nested
        for living in (self.one, self.bad):
            living.change()

    def test_another_byte_order(self):
        self.harm(lambda file: file.swap_bytes(), "it is no guest's state, or of another byte order")
