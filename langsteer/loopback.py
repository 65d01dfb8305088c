"""Is an address this machine's own, out of everybody else's reach?"""

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``; names but ``localhost`` are not looked up."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
