"""Which IP addresses are of the public internet, and stand for no other."""

import ipaddress

# Of IANA's registries of special-purpose addresses. `ipaddress.is_global` is not asked: what it
# says of mapped, translated and tunnelled addresses differs between patches of Python.
_NOT_PUBLIC = [
    ipaddress.ip_network(block)
    for block in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",
        "100.64.0.0/10",  # carriers' NAT; metadata of some clouds
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's host, from within a machine of it
        "169.254.0.0/16",  # link-local; metadata of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",  # multicast, reserved, broadcast
        "2001::/23",  # Teredo, ORCHID and other protocols
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "3fff::/20",
    )
]
# All unicast of IPv6 that is given out; mapped (::ffff:0:0/96), compatible (::/96), translated
# (64:ff9b::/96, 64:ff9b:1::/48), unique local and link-local addresses lie outside.
_UNICAST = ipaddress.ip_network("2000::/3")


def is_public(address: str) -> bool:
    """Whether a numeric address is one that anybody on the internet could connect to.

    >>> is_public("93.184.215.14"), is_public("2606:4700::1111")
    (True, True)
    >>> is_public("169.254.169.254"), is_public("::ffff:93.184.215.14"), is_public("64:ff9b::1")
    (False, False, False)
    """
    known = ipaddress.ip_address(address)
    if known.version == 6 and known not in _UNICAST:
        return False
    return not any(known in block for block in _NOT_PUBLIC)
