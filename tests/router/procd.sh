#!/bin/sh
# Test double of OpenWrt's /lib/functions/procd.sh. Records the calls.
for name in open_instance set_param append_param close_instance add_reload_trigger add_interface_trigger \
	add_reload_mount_trigger send_signal; do
	eval "procd_$name() { record $name \"\$@\"; }"
done
procd_running() {
	[ -e /running ]
}
