#!/bin/sh
# shellcheck shell=dash
# Test double of OpenWrt's /lib/functions.sh. Reads the real settings file by sourcing it: UCI quotes like the shell.

# Appends a call to /record, one line each, with the words separated by the unit separator (octal 037).
record() {
	local word line=''
	for word; do
		line="$line$(printf '\037')$word"
	done
	printf '%s\n' "${line#?}" >>/record
}
logger() {
	local print=''
	while [ "${1#-}" != "$1" ]; do
		case "$1" in
			-s) print=1; shift ;;
			-p)
				record log "$2" "$3"
				[ -z "$print" ] || echo "net-pulse: $3" >&2
				shift 2 ;;
			*) shift 2 ;;
		esac
	done
}

reset_cb() {
	option_cb() { :; }
	list_cb() { :; }
}
reset_cb

config() {
	CONFIG_SECTION="${2:-anonymous}"
	config_set "$CONFIG_SECTION" TYPE "$1"
}
option() {
	config_set "$CONFIG_SECTION" "$1" "$2"
	option_cb "$1" "$2"
}
# A list has a variable with its length, one for each item, and one with all items, as in OpenWrt.
list() {
	local length text
	config_get length "$CONFIG_SECTION" "$1_LENGTH" 0
	config_get text "$CONFIG_SECTION" "$1"
	length=$((length + 1))
	config_set "$CONFIG_SECTION" "$1_LENGTH" "$length"
	config_set "$CONFIG_SECTION" "$1_ITEM$length" "$2"
	config_set "$CONFIG_SECTION" "$1" "${text:+$text }$2"
	list_cb "$1" "$2"
}
config_load() {
	local stale
	for stale in $(set | sed -n 's/^\(CONFIG_[A-Za-z0-9_]*_\(LENGTH\|ITEM[0-9]*\)\)=.*/\1/p'); do
		unset "$stale" "${stale%_LENGTH}"
	done
	# shellcheck source=/dev/null
	[ ! -e "/etc/config/$1" ] || . "/etc/config/$1"
}
config_set() {
	eval "CONFIG_$1_$2=\$3"
}
# Without an option it only prints an empty line, as in OpenWrt.
config_get() {
	[ -n "$3" ] || { echo; return; }
	eval "$1=\${CONFIG_$2_$3:-\$4}"
}
get_bool() {
	case "$1" in
		1 | on | true | yes | enabled) printf 1 ;;
		0 | off | false | no | disabled) printf 0 ;;
		*) printf '%s' "$2" ;;
	esac
}
config_get_bool() {
	config_get "$1" "$2" "$3" "$4"
	eval "$1=\$(get_bool \"\$$1\" \"\$4\")"
}
# The called function sees these local names, as in OpenWrt.
config_list_foreach() {
	local section="$1" option="$2" function="$3" val len c=1
	shift 3
	config_get len "$section" "${option}_LENGTH" 0
	while [ "$c" -le "$len" ]; do
		config_get val "$section" "${option}_ITEM$c"
		"$function" "$val" "$@"
		c=$((c + 1))
	done
}
user_exists() {
	grep -q "^$1:" /etc/passwd
}
