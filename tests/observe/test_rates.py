"""Rates between two snapshots of one gateway, or of its successor."""

from __future__ import annotations

from top.snapshots import peer, snapshot

from wgmp.observe.rates import peer_rates, stage_rates


def test_rates_are_per_second_of_the_gateways_own_clock() -> None:
    before, after = snapshot(10.0, [], packets=100), snapshot(12.0, [], packets=500)
    rates = {rate.stage: rate for rate in stage_rates(before, after)}
    assert (rates["udp_reader"].records, rates["udp_reader"].packets) == (20.0, 200.0)
    assert rates["udp_writer"].bytes == 200_000.0
    assert rates["udp_writer"].packets_per_record == 10.0


def test_what_a_reader_brings_is_what_it_puts_into_records_whichever_queue_it_reads() -> None:
    before, after = snapshot(10.0, [], packets=100), snapshot(12.0, [], packets=500)
    for each in (before, after):
        for stage in each.stages:
            if stage.name == "udp_reader":
                stage.name, stage.records_in = "tun_reader1", 0
    rates = {rate.stage: rate for rate in stage_rates(before, after)}
    assert (rates["tun_reader1"].records, rates["tun_reader1"].packets) == (20.0, 200.0)


def test_nothing_is_negative_after_a_restart() -> None:
    before = snapshot(10.0, [peer(1, rx_bytes=9000)], packets=500)
    after = snapshot(11.0, [peer(1, rx_bytes=10), peer(2, rx_bytes=7)], packets=20)
    assert all(rate.packets == rate.packets_per_record == 0 for rate in stage_rates(before, after))
    assert set(peer_rates(before, after).values()) == {(0.0, 0.0)}
