#!/bin/sh
# Stands in for OpenWrt's /lib/functions/procd.sh: writes down what procd would be told.
for name in open_instance set_param append_param close_instance add_reload_trigger add_interface_trigger \
	add_reload_mount_trigger send_signal; do
	eval "procd_$name() { record $name \"\$@\"; }"
done
procd_running() {
	[ -e /running ]
}
