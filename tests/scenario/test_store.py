# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the daemon gives into the service manager's keeping: one descriptor for each open file, all
of them before the call that needs them is answered, counted, refused before there is no room, gone
when what it is of is gone."""

import signal

from api import pb
from cases import VmmCase
from fixture import PATIENCE, both_transports, eventually
from guest import Memory
from supervisor import Supervised


class StoreCase(VmmCase):
    daemon_class = Supervised

    def names(self):
        return sorted(self.daemon.supervisor.names())

    def gone_but(self, *names):
        self.daemon.supervisor.wait_names(names, PATIENCE)

    def memory(self):
        memory = Memory()
        self.addCleanup(memory.close)
        return memory


@both_transports
class Stored(StoreCase):
    def test_a_reply_is_behind_what_it_promises(self):
        """As soon as the client reads a reply, all that it is of lies in the store."""
        self.assertEqual(self.names(), ["0i0", "0s0"])
        status = self.daemon.status()
        self.assertEqual(status.stored_descriptors, 2)
        self.assertGreater(status.stored_descriptors_max, 1000)
        self.assertFalse(status.HasField("takeover"))
        for i in range(1, 5):
            self.vmm.add_memory(self.memory())
            self.assertEqual(self.names(), ["0i0"] + ["0m%d" % j for j in range(i)] + ["0s0"])
        self.vmm.open(1)
        self.assertIn("0d0", self.names())
        self.vmm.open(2)
        self.assertIn("0d1", self.names())
        for i in range(1, 5):
            self.new_vmm()
            self.assertIn("%di0" % i, self.names())
            self.assertIn("%ds0" % i, self.names())

    def test_what_goes_is_stored_no_more(self):
        memory = self.vmm.add_memory(self.memory())
        device = self.vmm.open(1)
        self.assertEqual(self.names(), ["0d0", "0i0", "0m0", "0s0"])
        device.close()
        self.gone_but("0i0", "0m0", "0s0")
        self.vmm.mutate("RemoveMemoryFile", guest=self.vmm.guest, memory_file=memory)
        self.gone_but("0i0", "0s0")
        self.vmm.open(1)
        self.vmm.add_memory(self.memory())
        self.vmm.mutate("DestroyGuest", guest=self.vmm.guest)
        self.gone_but()

    def test_numbers_are_used_again(self):
        first = self.vmm.add_memory(self.memory())
        self.vmm.add_memory(self.memory())
        self.vmm.mutate("RemoveMemoryFile", guest=self.vmm.guest, memory_file=first)
        self.gone_but("0i0", "0m1", "0s0")
        self.vmm.add_memory(self.memory())
        self.assertEqual(self.names(), ["0i0", "0m0", "0m1", "0s0"])

    def test_a_file_that_is_given_twice(self):
        """The manager would keep one of two descriptors of the same open file."""
        memory = self.memory()
        self.vmm.add_file(memory.fd)
        self.vmm.add_file(memory.fd)
        self.new_vmm().add_file(memory.fd)
        self.assertEqual(self.names(), ["0i0", "0m0", "0m1", "0s0", "1i0", "1m0", "1s0"])
        self.assertEqual(self.daemon.supervisor.duplicates, [])

    def test_a_client_that_dies(self):
        client = self.client()
        other = type(self.vmm)(client)
        other.add_memory(self.memory())
        self.assertIn("1m0", self.names())
        client.call("CloseSession")
        self.gone_but("0i0", "0s0")


class Limited(StoreCase):
    """A guest, and room for two more descriptors."""

    class Small(Supervised):
        manage = {"store_max": 4}

    daemon_class = Small
    settings = {"iommubrokerd.conf": "[Service]\nDescriptorStoreMax=4\n"}

    def full(self):
        return self.refused("RESOURCE_EXHAUSTED", reason="DESCRIPTOR_STORE_FULL")

    def test_what_has_no_room_is_refused(self):
        first = self.vmm.add_memory(self.memory())
        self.vmm.open(1)
        for _ in range(3):
            with self.full():
                self.vmm.add_file(self.memory().fd)
            with self.full():
                self.vmm.open(2)
            with self.full():
                self.new_vmm()
        self.assertEqual(self.names(), ["0d0", "0i0", "0m0", "0s0"])
        self.vmm.mutate("RemoveMemoryFile", guest=self.vmm.guest, memory_file=first)
        self.vmm.open(2)
        self.assertEqual(self.names(), ["0d0", "0d1", "0i0", "0s0"])
        with self.full():
            self.vmm.add_file(self.memory().fd)

    def test_half_a_guest_is_none(self):
        """There is room for one descriptor of the two that a guest needs."""
        self.vmm.add_file(self.memory().fd)
        for _ in range(3):
            with self.full():
                self.new_vmm()
        self.gone_but("0i0", "0m0", "0s0")
        self.vmm.open(1)


class Told(StoreCase):
    """The unit keeps fewer than the configuration says, and the manager tells that."""

    class Small(Supervised):
        manage = {"store_max": 3, "tells_store_max": True}

    daemon_class = Small

    def test_the_smaller_number_holds(self):
        self.vmm.add_file(self.memory().fd)
        with self.refused("RESOURCE_EXHAUSTED", reason="DESCRIPTOR_STORE_FULL"):
            self.vmm.add_file(self.memory().fd)


class KeepsNothing(StoreCase):
    settings = {"iommubrokerd.conf": "[Service]\nDescriptorStoreMax=0\n"}

    def test_nothing_is_stored(self):
        self.vmm.add_memory(self.memory())
        self.vmm.open(1)
        self.assertEqual(self.names(), [])
        self.assertEqual(self.daemon.supervisor.barriers, 0)

    def test_a_stop_takes_guests_down(self):
        self.daemon.process.send_signal(signal.SIGTERM)
        eventually(lambda: "guests down" in self.daemon.supervisor.status or self.daemon.supervisor.status, "the word")


class Stops(StoreCase):
    def test_interrupt_takes_guests_down(self):
        self.vmm.add_memory(self.memory())
        self.vmm.open(1)
        self.daemon.crash(signal.SIGINT)
        self.assertEqual(self.daemon.supervisor.exits, [0])
        self.gone_but()

    def guest_lives(self):
        """Though its client's connection ended with the daemon that it was of."""
        status = self.daemon.status()
        return (status.sessions, status.guests, status.devices) == (1, 1, 1)

    def kept(self):
        self.vmm.add_memory(self.memory())
        self.vmm.open(1)
        return self.names()

    def test_termination_leaves_them(self):
        names = self.kept()
        self.daemon.stop()
        self.assertEqual(self.names(), names)
        self.assertEqual(self.daemon.supervisor.exits, [0])
        self.daemon.start()
        self.assertEqual(self.names(), names)
        self.assertTrue(self.guest_lives())
        self.daemon.crash(signal.SIGINT)
        self.gone_but()

    def test_so_does_any_death(self):
        names = self.kept()
        for _ in range(3):
            self.daemon.crash()
            self.assertEqual(self.names(), names)
            self.assertTrue(self.guest_lives())
        self.daemon.crash(signal.SIGINT)
        self.gone_but()

    def test_a_manager_that_forgets_at_a_stop(self):
        """As systemd before 254: nothing is left, and nothing is in the way."""
        self.kept()
        self.daemon.supervisor.preserve = False
        self.daemon.stop()
        self.gone_but()
        self.daemon.start()
        self.assertEqual(self.daemon.status().guests, 0)

    def test_a_store_that_is_switched_off(self):
        """Guests live on in the process that took them over, and end with it."""
        self.kept()
        self.daemon.configure("iommubrokerd.conf", "[Service]\nDescriptorStoreMax=0\n")
        self.daemon.restart()
        self.gone_but()
        self.assertTrue(self.guest_lives())
        self.daemon.restart()
        self.assertEqual(self.daemon.status().guests, 0)

    def test_a_store_that_becomes_small(self):
        """What is there stays; what is new has no room."""
        names = self.kept()
        self.daemon.configure("iommubrokerd.conf", "[Service]\nDescriptorStoreMax=2\n")
        self.daemon.restart()
        self.assertEqual(self.names(), names)
        self.assertTrue(self.guest_lives())
        with self.refused("RESOURCE_EXHAUSTED", reason="DESCRIPTOR_STORE_FULL"):
            self.new_vmm()
        self.daemon.crash(signal.SIGINT)


class Slow(StoreCase):
    """The manager is busy."""

    def test_a_reply_waits_for_the_manager_and_others_do_not(self):
        other = self.client(session=False)
        before = self.daemon.supervisor.barriers
        self.daemon.supervisor.hold_barriers(True)
        client = self.vmm.client
        request = pb.AddMemoryFileRequest(
            request_id=self.vmm.id(), guest=self.vmm.guest, descriptor=client.give(self.memory().fd)
        )
        waiting = client.start("AddMemoryFile", request)
        eventually(lambda: self.daemon.supervisor.barriers > before, "the barrier")
        other.call("GetInfo")
        self.daemon.status()
        self.daemon.supervisor.hold_barriers(False)
        self.assertTrue(waiting.result().message.memory_file)


class Foreign(StoreCase):
    """Something in the store that no version of the daemon put there."""

    def test_it_is_given_up(self):
        memory = self.memory()
        self.daemon.supervisor.put("stored", memory.fd)
        self.daemon.supervisor.put("0zz", self.memory().fd)
        self.daemon.restart()
        eventually(lambda: not {"stored", "0zz"} & set(self.names()) or self.names(), "what is foreign is gone")
        self.assertIn("named 'stored' that is not known", self.daemon.log())
        # the session goes on until this process ends, or all are taken down
        self.daemon.crash(signal.SIGINT)
