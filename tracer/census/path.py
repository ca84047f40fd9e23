"""The functions of the kernel that a connect runs through, by the place they belong to."""

_CONNECT = (
    "__sys_connect", "__sys_connect_file", "__x64_sys_connect", "__ia32_sys_connect",
    "__arm64_sys_connect", "move_addr_to_kernel", "security_socket_connect",
    "bpf_lsm_socket_connect", "apparmor_socket_connect", "selinux_socket_connect",
    "smack_socket_connect", "tomoyo_socket_connect", "hook_socket_connect",
    "inet_stream_connect", "__inet_stream_connect", "tcp_v4_pre_connect", "tcp_v6_pre_connect",
    "tcp_v4_connect", "tcp_v6_connect", "inet_hash_connect", "inet6_hash_connect",
    "__inet_hash_connect", "tcp_connect",
)  # fmt: skip
_EGRESS = (
    "tcp_transmit_skb", "__tcp_transmit_skb", "ip_queue_xmit", "__ip_queue_xmit", "ip_local_out",
    "__ip_local_out", "ip_output", "ip6_xmit", "ip6_output", "nf_hook_slow", "dev_queue_xmit",
    "__dev_queue_xmit",
)  # fmt: skip
_INGRESS = ("tcp_v4_rcv", "tcp_v6_rcv", "tcp_rcv_state_process", "tcp_finish_connect")

PLACES = {
    **dict.fromkeys(_CONNECT, "connect"),
    **dict.fromkeys(_EGRESS, "egress"),
    **dict.fromkeys(_INGRESS, "ingress"),
}
"""function -> place, without what a compiler appends (.isra.0)."""


def place_of(function: str) -> str:
    """Return the place that a kernel function belongs to, "" when it is not on the way."""
    return PLACES.get(function.split(".")[0].split("+")[0], "")
