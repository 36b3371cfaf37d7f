#!/bin/bash
# Records the captures beside this script, or those named: two network namespaces, a veth pair, all offloads off (in
# "offloads_" captures on, as Linux has them), tcpdump on the side that receives. Needs root, iproute2, ethtool, tcpdump, wireshark-common and deno (DENO=path if it is not in PATH).
# See README.md.
set -euo pipefail
cd "$(dirname "$0")"
wanted=" $* "
DENO=${DENO:-deno}
id=$(od -An -N3 -tx1 /dev/urandom | tr -d ' \n')
guest=dv-guest-$id peer=dv-peer-$id hop=dv-hop-$id
work=$(mktemp -d)
children=()

cleanup() {
  for pid in "${children[@]}"; do kill "$pid" 2>/dev/null || true; done
  for ns in "$guest" "$peer" "$hop"; do ip netns del "$ns" 2>/dev/null || true; done
  rm -rf "$work"
}
trap cleanup EXIT

quiet() { # NAMESPACE INTERFACE: what leaves is cut and checksummed as on a wire, and nothing is merged
  if [ "$offloads" = on ]; then return; fi
  ip netns exec "$1" ethtool -K "$2" tso off gso off gro off lro off sg off tx off rx off >/dev/null 2>&1
}

settle() { # NAMESPACE: no pacing, large buffers
  ip netns exec "$1" sysctl -qw net.ipv4.tcp_congestion_control=reno \
    net.ipv4.tcp_rmem="4096 4194304 4194304" net.ipv4.tcp_wmem="4096 4194304 4194304" net.ipv4.tcp_no_metrics_save=1
}

wait_for() { # FILE TEXT
  for _ in $(seq 200); do grep -q "$2" "$1" && return; sleep 0.05; done
  echo "\"$2\" did not come: $(cat "$1")" >&2
  exit 1
}

address() { # NAMESPACE INTERFACE MAC NUMBER
  ip -n "$1" link set "$2" address "$3"
  ip -n "$1" addr add "10.77.0.$4/24" dev "$2"
  ip -n "$1" addr add "fd77::$4/64" dev "$2" nodad
  ip -n "$1" link set "$2" up
}

for ns in "$guest" "$peer" "$hop"; do ip netns add "$ns"; settle "$ns"; done
ip netns exec "$hop" sysctl -qw net.ipv6.conf.default.disable_ipv6=1

direct() { # the guest's eth0 to the peer's eth0
  ip -n "$peer" link add eth0 type veth peer name eth0 netns "$guest"
  quiet "$peer" eth0
  quiet "$guest" eth0
}

through_hop() { # LOSS_RATE SEED: peer - hop - guest
  ip -n "$peer" link add eth0 type veth peer name left netns "$hop"
  ip -n "$guest" link add eth0 type veth peer name right netns "$hop"
  for pair in "$peer eth0" "$guest eth0" "$hop left" "$hop right"; do quiet $pair; done
  ip -n "$hop" link set left up
  ip -n "$hop" link set right up
  ip netns exec "$hop" "$DENO" run --allow-ffi dropping_hop.ts left right "$1" "$2" >"$work/hop" 2>&1 &
  hop_pid=$!
  children+=("$hop_pid")
  wait_for "$work/hop" forwarding
}

plug() { # LOSS_RATE SEED, or nothing
  if [ $# -eq 2 ]; then through_hop "$@"; else direct; fi
  address "$peer" eth0 52:54:00:00:00:02 2
  address "$guest" eth0 52:54:00:00:00:01 1
  sleep 1 # until multicast reports and router solicitations have become rare
}

unplug() {
  if [ -n "${hop_pid:-}" ]; then
    kill "$hop_pid"
    wait "$hop_pid" || true
    echo "    hop: $(tail -1 "$work/hop")"
    hop_pid=
  fi
  ip -n "$peer" link del eth0
  if ip -n "$guest" link show eth0 >/dev/null 2>&1; then ip -n "$guest" link del eth0; fi
}

record() { # NAME.EXTENSION RECEIVER SERVER_ADDRESS TIMESTAMPS MODE AMOUNT PRECISION [LOSS_RATE SEED]
  if [ "$wanted" != "  " ] && [[ "$wanted" != *" $1 "* ]]; then return; fi
  case $1 in offloads*) offloads=on ;; *) offloads=off ;; esac
  local name=$1 receiver=$2 server=$3 timestamps=$4 mode=$5 amount=$6 precision=$7
  shift 7
  plug "$@"
  for ns in "$guest" "$peer"; do ip netns exec "$ns" sysctl -qw net.ipv4.tcp_timestamps="$timestamps"; done
  ip netns exec "$peer" "$DENO" run --allow-net peer.ts serve "$server" 7700 >"$work/serve" 2>&1 &
  local serve_pid=$!
  children+=("$serve_pid")
  wait_for "$work/serve" listening
  ip netns exec "$receiver" tcpdump -i eth0 -n -s 0 -B 16384 --immediate-mode -U \
    --time-stamp-precision="$precision" -w "$work/raw.pcap" 2>"$work/tcpdump" &
  local dump_pid=$!
  children+=("$dump_pid")
  wait_for "$work/tcpdump" listening
  ip netns exec "$guest" "$DENO" run --allow-net peer.ts call "$server" 7700 "$mode" "$amount"
  wait "$serve_pid"
  sleep 0.3
  kill -INT "$dump_pid"
  wait "$dump_pid" || true
  grep -q "^0 packets dropped by kernel" "$work/tcpdump" || { cat "$work/tcpdump" >&2; exit 1; }
  case $name in
    bulk_v6*.pcapng | request*.pcapng) editcap -F pcapng "$work/raw.pcap" "$name" ;;
    *.pcapng) "$DENO" run --allow-read --allow-write convert.ts "$work/raw.pcap" "$name" 52:54:00:00:00:01 ;;
    *) cp "$work/raw.pcap" "$name" ;;
  esac
  echo "$name: $(grep captured "$work/tcpdump")"
  unplug
}

bulk=262144
# The guest fetches: the peer sends, tcpdump runs with the guest.
record bulk_v4_timestamps.pcapng "$guest" 10.77.0.2 1 fetch $bulk nano
record bulk_v4_plain.pcap "$guest" 10.77.0.2 0 fetch $bulk nano
record bulk_v6_timestamps.pcap "$guest" fd77::2 1 fetch $bulk micro
record bulk_v6_plain.pcapng "$guest" fd77::2 0 fetch $bulk nano
record loss_v4_timestamps.pcap "$guest" 10.77.0.2 1 fetch $bulk micro 20 77
record loss_v6_plain.pcapng "$guest" fd77::2 0 fetch $bulk nano 20 78
# The guest sends: tcpdump runs with the peer.
record bulk_out_v4_timestamps.pcapng "$peer" 10.77.0.2 1 send $bulk nano
record bulk_out_v6_plain.pcap "$peer" fd77::2 0 send $bulk nano
# Requests of the guest, answers of the peer.
record request_response_v4.pcapng "$guest" 10.77.0.2 1 ask 60 nano
record request_response_v6.pcap "$guest" fd77::2 1 ask 60 micro

# What Linux does by default: the peer's kernel hands over large frames with the pseudo header's sum in the checksum field.
record offloads_v4_timestamps.pcap "$guest" 10.77.0.2 1 fetch $bulk nano
record offloads_v6_plain.pcap "$guest" fd77::2 0 fetch 65536 micro
record offloads_ask_v4.pcap "$guest" 10.77.0.2 1 ask 20 nano

capinfos -T -c -d -E -m -Q ./*.pcap ./*.pcapng
"$DENO" run --allow-read describe.ts ./*.pcap ./*.pcapng
