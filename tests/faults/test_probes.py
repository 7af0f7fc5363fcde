"""Each request of a probe goes wrong once: what it then finds out of the store is still the truth.

A wrong "it cannot compare and swap" would let a machine overwrite other writers' commits for as long as it is believed.
"""

from __future__ import annotations

import itertools

import pytest
from faulty_proxy import CUT_AFTER, CUT_BEFORE, CUT_BODY, INTERNAL, SLOW_DOWN, faulty_proxy
from waiting import HANG

from remote_ckpt.location import Location
from remote_ckpt.stores import Expect, Transfer, open_store, probe_cache


@pytest.mark.parametrize("server", ["seaweedfs", "fake_gcs"], indirect=True)
@pytest.mark.parametrize("fault", [SLOW_DOWN, INTERNAL, CUT_BEFORE, CUT_AFTER, CUT_BODY])
def test_a_probe_that_is_disturbed_finds_out_the_truth(server, prefix, fault):
    """Also when its own write is refused, because it was done and its answer lost."""
    with faulty_proxy(server.endpoint) as proxy:
        options = {**server.storage_options, "endpoint_url": proxy.endpoint}
        store = open_store(Location.parse(server.url(prefix)), options, transfer=Transfer(deadline=HANG))
        store.write("kept", b"", expect=Expect.ANYTHING)  # a connection that was used before breaks differently

        def probe(number):
            """Disturb one request; return what was found, and how many requests there were."""
            probe_cache.forget()
            counter = itertools.count(1)
            proxy.fault = lambda _: fault if next(counter) == number else None
            return store.probe(), next(counter) - 1

        truth, requests = probe(0)
        assert truth.many_writers
        found = {number: probe(number)[0] for number in range(1, requests + 1)}
        assert found == dict.fromkeys(found, truth)
        probe_cache.forget()
        store.close()
