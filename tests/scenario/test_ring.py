# SPDX-License-Identifier: LGPL-2.1-or-later
"""Update rings: what goes through one is what the call does, and what it may is bounded."""

import os
import random

from api import Refused, pb
from cases import VmmCase
from fixture import both_transports
from guest import MIB, PAGE
from ring import LINE, Ring
from vmm import WINDOW_FIRST, WINDOW_LAST, Started

IOVA = WINDOW_FIRST + MIB
PAGES = 64


class RingCase(VmmCase):
    def ring(self, vmm=None, **shape):
        ring = Ring(vmm or self.vmm, **shape)
        self.addCleanup(ring.close)
        return ring


@both_transports
class Refreshes(RingCase):
    def test_a_ring_does_what_the_call_does(self):
        """Two guests whose tables change alike, at random; one refreshes through a ring."""
        by_ring, by_call = Started(self.vmm), Started(self.new_vmm(), fid=2)
        ring = self.ring(lanes=3)
        chance = random.Random(7)
        for n in range(300):
            first = chance.randrange(PAGES)
            count = chance.randrange(1, PAGES - first + 1)
            for page in range(first, first + count):
                shown, gpa = chance.random() < 0.7, chance.randrange(1, 512) * PAGE
                writable = chance.random() < 0.5
                for started in (by_ring, by_call):
                    if shown:
                        started.tables.map(IOVA + page * PAGE, gpa, PAGE, writable)
                    else:
                        started.tables.unmap(IOVA + page * PAGE, PAGE)
            start, length = IOVA + first * PAGE, count * PAGE
            if n % 50 == 49:
                start, length = WINDOW_FIRST, WINDOW_LAST - WINDOW_FIRST + 1
            done = ring.refresh(by_ring.created.index, start, length, lane=n % 3)
            result = by_call.vmm.refresh(by_call.nested, (start, length))[0]
            self.assertEqual(
                (done.verdict, done.condition_code, done.status, done.mapped, done.unmapped),
                (result.verdict, result.condition_code, result.status, result.mapped, result.unmapped),
            )
        for page in range(PAGES):
            one, other = (s.vmm.explain(s.nested, IOVA + page * PAGE) for s in (by_ring, by_call))
            self.assertEqual(one.installed, other.installed)
            self.assertEqual((one.installed_gpa, one.installed_access), (other.installed_gpa, other.installed_access))
            self.assertTrue(one.consistent)

    def test_limits(self):
        rings = [self.ring(lanes=n) for n in (1, 2, 64, 1)]
        with self.refused("RESOURCE_EXHAUSTED"):
            Ring(self.vmm)
        fit = self.vmm.ask("CheckFit", update_rings=1)
        self.assertTrue(fit.fits or {m.resource for m in fit.missing} == {"rings"})
        rings[1].destroy()
        self.assertTrue(rings[1].ended())
        again = self.ring()
        with self.refused("NOT_FOUND"):
            rings[1].destroy()
        with self.refused("RESOURCE_EXHAUSTED"):
            Ring(self.vmm)
        self.assertFalse(again.fault())

    def test_it_ends_with_the_guest(self):
        ring = self.ring(lanes=2)
        self.vmm.mutate("DestroyGuest", guest=self.vmm.guest)
        self.assertTrue(ring.ended())

    def test_nonsense_stops_one_lane(self):
        started = Started(self.vmm)
        ring = self.ring(lanes=2)
        ring.store(ring.lane(0), 4711)
        os.write(ring.submit_fd, b"!")
        self.assertEqual(ring.refresh(started.created.index, IOVA, PAGE, lane=1).verdict, pb.VERDICT_DONE)
        self.assertEqual(ring.fault(0), 1)
        self.assertEqual(ring.refresh(started.created.index + 1, IOVA, PAGE, lane=1).verdict, pb.VERDICT_GONE)
        self.assertEqual(ring.load(ring.lane(1) + LINE), ring.load(ring.lane(1) + 2 * LINE))

    def test_random_bytes_harm_nobody_else(self):
        neighbour = Started(self.new_vmm(), fid=2)
        near = self.ring(neighbour.vmm)
        chance = random.Random(11)
        for _ in range(4):
            ring = self.ring(lanes=4)
            for _ in range(100):
                at = chance.randrange(len(ring.memory) - 64)
                ring.memory[at : at + 64] = chance.randbytes(64)
                os.write(ring.submit_fd, b"!")
                self.assertEqual(near.refresh(neighbour.created.index, IOVA, PAGE).verdict, pb.VERDICT_DONE)
            ring.destroy()
            self.assertTrue(ring.ended())


class Fits(RingCase):
    settings = {"iommubrokerd.conf": "[Limits]\nTableMemoryMax=2M\nRingsPerGuestMax=100\nRingsMax=100\n"}

    def test_check_fit_answers_as_the_call(self):
        """Rings of a shape until no more fit: before each the question is answered as the call is."""
        for lanes, entries in ((1, 1), (3, 64), (64, 8), (8, 256)):
            made = []
            while len(made) < 100:
                fit = self.vmm.ask("CheckFit", update_rings=1, ring_lanes=lanes, ring_entries=entries)
                try:
                    made.append(self.ring(lanes=lanes, entries=entries))
                except Refused as refused:
                    self.assertEqual(refused.code, "RESOURCE_EXHAUSTED")
                    self.assertEqual([m.resource for m in fit.missing], ["table_bytes"])
                    break
                self.assertTrue(fit.fits, (lanes, entries, len(made), fit))
            self.assertIn(len(made), range(1, 100), (lanes, entries, fit))
            all_of_them = self.vmm.ask("CheckFit", update_rings=len(made) + 1, ring_lanes=lanes, ring_entries=entries)
            self.assertFalse(all_of_them.fits)
            for ring in made:
                self.vmm.mutate("DestroyUpdateRing", ring=ring.handle)
            self.assertTrue(
                self.vmm.ask("CheckFit", update_rings=len(made), ring_lanes=lanes, ring_entries=entries).fits
            )
