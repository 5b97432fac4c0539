#!/bin/sh
# Test double of OpenWrt's /lib/functions/network.sh. The files in /interfaces have the addresses of each interface.
network_flush_cache() { :; }
network_get_ipaddrs() { network_read "$1" "/interfaces/$2.4"; }
network_get_ipaddrs6() { network_read "$1" "/interfaces/$2.6"; }
network_read() {
	unset "$1"
	[ -s "$2" ] || return 1
	read -r "${1?}" <"$2"
}
