"""A node tells the addresses at which others find its machine."""

import ipaddress
import re
from pathlib import Path

from membridge.node.addresses import own_addresses, parse_v6


def test_the_addresses_are_those_of_the_interfaces_without_those_that_only_this_machine_reaches() -> None:
    # The kernel's routing table names each local address, the loopback's too.
    local = set(re.findall(r"\|-- ([\d.]+)\n\s+/32 host LOCAL", Path("/proc/net/fib_trie").read_text()))
    outside = {address for address in local if not ipaddress.ip_address(address).is_loopback}
    found = own_addresses()
    assert {address for address in found if ":" not in address} == outside
    assert not any(ipaddress.ip_address(address).is_loopback for address in found)


def test_ipv6_addresses_are_read_as_the_kernel_lists_them() -> None:
    listed = "fd000000000000000000000000000002 04 40 00 82     eth0\n00000000000000000000000000000001 01 80 10 80 lo\n"
    assert parse_v6(listed) == ["fd00::2", "::1"]
