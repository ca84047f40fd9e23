/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0) */
/*
 * The wire probe: a socket filter on a packet socket. It sees what leaves behind
 * netfilter's output hooks and what arrives before its input hooks. It hands no
 * packet on and sends no event: it only notes the marks of SYNs and their answers,
 * which END and RETRANSMIT carry along. Nothing here may trust a length or an offset.
 */
#pragma once
#include "common.h"

#ifdef WIRE

#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd
#define ETH_P_8021Q 0x8100
#define ETH_P_8021AD 0x88a8
#define PACKET_HOST 0
#define PACKET_OUTGOING 4
#define NEXT_TCP 6
#define NEXT_ICMP 1
#define NEXT_ICMPV6 58
#define TCP_FLAG_SYN 0x02
#define TCP_FLAG_RST 0x04
#define TCP_FLAG_ACK 0x10
/* A packet that crosses several devices is seen on each; SYNs are sent again much later. */
#define SAME_PACKET_NS 100000000ULL

struct tcp_head {
	u16 source;
	u16 dest;
	u32 seq;
	u32 ack;
	u8 length;
	u8 flags;
};

struct ipv4_head {
	u8 version_length;
	u8 tos;
	u16 length;
	u16 id;
	u16 fragment;
	u8 ttl;
	u8 protocol;
	u16 checksum;
	u8 saddr[4];
	u8 daddr[4];
};

/* How nearly every packet begins: no options of IP. */
struct plain_head {
	struct ipv4_head ip;
	struct tcp_head tcp;
};

struct ipv6_head {
	u32 version;
	u16 length;
	u8 next;
	u8 hops;
	u8 saddr[ADDR_LEN];
	u8 daddr[ADDR_LEN];
};

/* Where the header behind IP begins, and which one that is; 0: none that counts. */
struct packet {
	u32 offset;
	u32 protocol;
	u8 saddr[ADDR_LEN];
	u8 daddr[ADDR_LEN];
};

static __always_inline void map_v4(u8 *to, const u8 *from)
{
	to[10] = to[11] = 0xff;
	__builtin_memcpy(to + 12, from, 4);
}

static __always_inline bool read_v4(struct __sk_buff *skb, struct packet *p)
{
	struct ipv4_head ip;

	if (bpf_skb_load_bytes(skb, p->offset, &ip, sizeof(ip)))
		return false;
	if (ip.version_length >> 4 != 4 || (ip.fragment & __builtin_bswap16(0x1fff)))
		return false;
	p->offset += (ip.version_length & 15) * 4;
	p->protocol = ip.protocol;
	map_v4(p->saddr, ip.saddr);
	map_v4(p->daddr, ip.daddr);
	return true;
}

/* Hop-by-hop, routing, fragment, destination options, authentication. */
static __always_inline bool is_extension(u32 next)
{
	return next == 0 || next == 43 || next == 44 || next == 60 || next == 51;
}

static __always_inline bool read_v6(struct __sk_buff *skb, struct packet *p)
{
	struct ipv6_head ip;
	u8 head[4];

	if (bpf_skb_load_bytes(skb, p->offset, &ip, sizeof(ip)))
		return false;
	if ((*(u8 *)&ip.version) >> 4 != 6)
		return false;
	__builtin_memcpy(p->saddr, ip.saddr, ADDR_LEN);
	__builtin_memcpy(p->daddr, ip.daddr, ADDR_LEN);
	p->offset += sizeof(ip);
	p->protocol = ip.next;
#pragma unroll
	for (int i = 0; i < 4; i++) {
		if (!is_extension(p->protocol))
			break;
		if (bpf_skb_load_bytes(skb, p->offset, head, sizeof(head)))
			return false;
		/* a later fragment holds no port */
		if (p->protocol == 44 && (head[2] || (head[3] & 0xf8)))
			return false;
		p->offset += p->protocol == 44   ? 8
			     : p->protocol == 51 ? (head[1] + 2) * 4
						 : (head[1] + 1) * 8;
		p->protocol = head[0];
	}
	return true;
}

/* The packet socket hands over packets from their network header on. */
static __always_inline bool read_packet(struct __sk_buff *skb, struct packet *p)
{
	u32 protocol = __builtin_bswap16(skb->protocol);
	u16 tag[2];

#pragma unroll
	for (int i = 0; i < 2; i++) {
		if (protocol != ETH_P_8021Q && protocol != ETH_P_8021AD)
			break;
		if (bpf_skb_load_bytes(skb, p->offset, tag, sizeof(tag)))
			return false;
		p->offset += sizeof(tag);
		protocol = __builtin_bswap16(tag[1]);
	}
	if (protocol == ETH_P_IP)
		return read_v4(skb, p);
	return protocol == ETH_P_IPV6 && read_v6(skb, p);
}

static __always_inline void sent_syn(struct flow_key *key, u32 seq, bool forwarded)
{
	u64 task = bpf_get_current_task(), now = bpf_ktime_get_ns();
	struct flow new = {.first_ns = now, .last_ns = now, .seq = seq, .count = 1};
	struct flow *f = flows.lookup(key);
	struct attempt *a;
	struct sender *s;

	if (f && f->seq == seq) {
		/* the same one on its way through another namespace that is watched, a router's */
		if (forwarded)
			return;
		if (now - f->last_ns > SAME_PACKET_NS && f->count < 0xffff)
			f->count++;
		f->last_ns = now;
		return;
	}
	/* The first SYN goes out in the caller's own context, unless somebody holds it up. */
	s = senders.lookup(&task);
	if (s) {
		new.sock = s->sock;
		new.start_ns = s->start_ns;
		a = attempts.lookup(&new.sock);
		if (a && a->start_ns == new.start_ns)
			a->wire = *key;
		senders.delete(&task);
	}
	flows.update(key, &new);
}

static __always_inline void got_answer(struct flow_key *key, u32 told, u8 answer, u8 type, u8 code)
{
	struct flow *f = flows.lookup(key);

	if (!f || f->seq != told)
		return;
	if (f->answer == answer && f->answers < 0xff)
		f->answers++;
	/* an ICMP error may be overruled by the peer's own word */
	if (f->answer_ns && (f->answer != ANSWER_ICMP || answer == ANSWER_ICMP))
		return;
	f->answer_ns = bpf_ktime_get_ns();
	f->answer = answer;
	f->answers = 1;
	f->icmp_type = type;
	f->icmp_code = code;
}

static __always_inline void fill_key(struct flow_key *key, const u8 *laddr, const u8 *raddr,
				     u16 lport, u16 rport)
{
	__builtin_memset(key, 0, sizeof(*key));
	__builtin_memcpy(key->laddr, laddr, ADDR_LEN);
	__builtin_memcpy(key->raddr, raddr, ADDR_LEN);
	key->lport = lport;
	key->rport = rport;
}

/* A SYN that leaves, or what answers one: nothing else is looked at. */
static __always_inline bool tells(u8 flags, bool leaves)
{
	if (leaves)
		return (flags & (TCP_FLAG_SYN | TCP_FLAG_ACK)) == TCP_FLAG_SYN;
	return (flags & (TCP_FLAG_SYN | TCP_FLAG_RST)) && (flags & TCP_FLAG_ACK);
}

static __always_inline void read_tcp(struct __sk_buff *skb, struct packet *p, bool leaves)
{
	struct flow_key key;
	struct tcp_head tcp;
	u16 source, dest;

	if (bpf_skb_load_bytes(skb, p->offset, &tcp, sizeof(tcp)))
		return;
	if (!tells(tcp.flags, leaves))
		return;
	source = __builtin_bswap16(tcp.source);
	dest = __builtin_bswap16(tcp.dest);
	if (leaves) {
		fill_key(&key, p->saddr, p->daddr, source, dest);
		/* what came in by a device before it leaves was not made here */
		sent_syn(&key, __builtin_bswap32(tcp.seq), skb->ingress_ifindex != 0);
		return;
	}
	fill_key(&key, p->daddr, p->saddr, dest, source);
	got_answer(&key, __builtin_bswap32(tcp.ack) - 1,
		   tcp.flags & TCP_FLAG_RST ? ANSWER_RST : ANSWER_SYN_ACK, 0, 0);
}

/* Unreachable, too long on the way, wrong: errors that quote the packet they are about. */
static __always_inline bool is_error(u32 protocol, u8 type)
{
	return protocol == NEXT_ICMP ? type == 3 || type == 11 || type == 12
				     : type == 1 || type == 3 || type == 4;
}

static __always_inline void read_icmp(struct __sk_buff *skb, struct packet *p)
{
	struct packet quoted = {.offset = p->offset + 8};
	struct flow_key key;
	u8 head[2];
	u32 tcp[2];
	bool known;

	if (bpf_skb_load_bytes(skb, p->offset, head, sizeof(head)) ||
	    !is_error(p->protocol, head[0]))
		return;
	known = p->protocol == NEXT_ICMP ? read_v4(skb, &quoted) : read_v6(skb, &quoted);
	if (!known || quoted.protocol != NEXT_TCP)
		return;
	/* of the quoted packet no more than 8 bytes behind IP need be there: ports and number */
	if (bpf_skb_load_bytes(skb, quoted.offset, tcp, sizeof(tcp)))
		return;
	fill_key(&key, quoted.saddr, quoted.daddr, __builtin_bswap16(tcp[0] & 0xffff),
		 __builtin_bswap16(tcp[0] >> 16));
	got_answer(&key, __builtin_bswap32(tcp[1]), ANSWER_ICMP, head[0], head[1]);
}

/* Nearly all of them, told by one look: TCP in IPv4, about no connect. */
static __always_inline bool tells_nothing(struct __sk_buff *skb, bool leaves)
{
	struct plain_head head;

	if (skb->protocol != __builtin_bswap16(ETH_P_IP) ||
	    bpf_skb_load_bytes(skb, 0, &head, sizeof(head)))
		return false;
	return head.ip.version_length == 0x45 && head.ip.protocol == NEXT_TCP &&
	       !(head.ip.fragment & __builtin_bswap16(0x1fff)) && !tells(head.tcp.flags, leaves);
}

/* Returns the bytes that the packet socket is to keep: none. */
static __always_inline int packet(struct __sk_buff *skb)
{
	bool leaves = skb->pkt_type == PACKET_OUTGOING;
	struct packet p = {};

	if (tells_nothing(skb, leaves) || !read_packet(skb, &p))
		return 0;
	if (p.protocol == NEXT_TCP)
		read_tcp(skb, &p, leaves);
	else if (!leaves && (p.protocol == NEXT_ICMP || p.protocol == NEXT_ICMPV6))
		read_icmp(skb, &p);
	return 0;
}

/* -- the other side: what the socket's own events carry of it --------------------- */

static __always_inline void wire_expects(u64 sock, u64 start_ns)
{
	u64 task = bpf_get_current_task();
	struct sender s = {.sock = sock, .start_ns = start_ns};

	senders.update(&task, &s);
}

static __always_inline void wire_expects_none(void)
{
	u64 task = bpf_get_current_task();

	senders.delete(&task);
}

/* The kernel frees a packet: is it the SYN that this very task is about to send? */
static __always_inline void dropped(u32 reason)
{
	u64 task = bpf_get_current_task();
	struct sender *s = senders.lookup(&task);
	struct attempt *a;
	u64 sock;

	if (!s)
		return;
	sock = s->sock;
	a = attempts.lookup(&sock);
	if (a && a->start_ns == s->start_ns && !a->drop_reason)
		a->drop_reason = reason;
}

static __always_inline bool same_key(struct flow_key *a, struct flow_key *b)
{
	u64 *x = (u64 *)a, *y = (u64 *)b;

	return x[0] == y[0] && x[1] == y[1] && x[2] == y[2] && x[3] == y[3] && x[4] == y[4];
}

/* Another address or port on the wire than in the socket: told once, before the marks. */
static __always_inline void emit_translated(void *ctx, int room, struct attempt *a, u64 sock,
					    struct flow_key *key)
{
	struct event *e = new_event_in(room, EVENT_WIRE);

	if (!e)
		return;
	fill_owner(e, a, sock);
	__builtin_memcpy(e->saddr, key->laddr, ADDR_LEN);
	__builtin_memcpy(e->daddr, key->raddr, ADDR_LEN);
	e->sport = key->lport;
	e->dport = key->rport;
	emit(ctx, e);
}

/* Returns what the wire probe knows of an attempt, or NULL; tells of translated addresses. */
static __always_inline struct flow *wire_of(void *ctx, int room, struct attempt *a, u64 sock,
					    struct ends *ends)
{
	struct flow_key *own = wire_keys.lookup(&room), *key = &a->wire;
	struct flow *f;

	if (!own)
		return NULL;
	fill_key(own, ends->saddr, a->daddr, ends->sport, a->dport);
	if (key->lport) {
		f = flows.lookup(key);
		if (f && f->sock == sock && f->start_ns == a->start_ns) {
			if (!same_key(key, own))
				emit_translated(ctx, room, a, sock, key);
			return f;
		}
	}
	f = flows.lookup(own);
	return f && f->first_ns >= a->start_ns ? f : NULL;
}

/* The attempt is over. Room that is used again at once is warm, and nothing has to make any. */
static __always_inline void forget_wire(struct attempt *a)
{
	if (a->wire.lport)
		flows.delete(&a->wire);
}

static __always_inline void fill_wire(struct event *e, struct flow *f, struct attempt *a)
{
	e->drop_reason = a->drop_reason;
	if (!f)
		return;
	e->wire_ns = f->first_ns;
	e->wire_last_ns = f->last_ns;
	e->wire_count = f->count;
	e->answer_ns = f->answer_ns;
	e->answer = f->answer;
	e->answers = f->answers;
	e->icmp_type = f->icmp_type;
	e->icmp_code = f->icmp_code;
}

#else
struct flow;

static __always_inline void wire_expects(u64 sock, u64 start_ns)
{
}

static __always_inline void wire_expects_none(void)
{
}

static __always_inline struct flow *wire_of(void *ctx, int room, struct attempt *a, u64 sock,
					    struct ends *ends)
{
	return NULL;
}

static __always_inline void forget_wire(struct attempt *a)
{
}

static __always_inline void fill_wire(struct event *e, struct flow *f, struct attempt *a)
{
}

#endif
