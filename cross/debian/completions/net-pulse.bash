# bash completion for net-pulse

_net_pulse_files() {
  compopt -o filenames
  mapfile -t COMPREPLY < <(compgen -f -- "$current")
}

_net_pulse_interfaces() {
  mapfile -t COMPREPLY < <(cd /sys/class/net 2>/dev/null && compgen -f -- "$current")
}

_net_pulse_zones() {
  mapfile -t COMPREPLY < <(cd /usr/share/zoneinfo 2>/dev/null && compgen -f -- "$current")
  # After a region the user types "/" and a city.
  if [ "${#COMPREPLY[@]}" -eq 1 ] && [ -d "/usr/share/zoneinfo/${COMPREPLY[0]}" ]; then
    COMPREPLY[0]+=/
    compopt -o nospace
  fi
}

_net_pulse() {
  local current=$2 previous=$3 word command=
  COMPREPLY=()
  # Finds the subcommand. Skips the values of options, which may have the same name.
  local at skip=
  for ((at = 1; at < COMP_CWORD; at++)); do
    word=${COMP_WORDS[at]}
    if [ -n "$skip" ]; then
      skip=
      continue
    fi
    case $word in
      # switches made by cross/settings
      --private | --open | --version | --help | --health) ;;
      # end of what cross/settings makes
      --*) skip=yes ;;
      token | check) command=$word ;;
    esac
  done
  # Options may stand before or after a subcommand.
  # options made by cross/settings
  local words="--host --port --allowed-host --private --open --database --interval --media --flush --max-size \
    --timezone --log-level --source --interface --ignore --primary --help"
  # end of what cross/settings makes
  case $command in
    token) ;;
    check) words+=" --health" ;;
    *) words+=" --version token check" ;;
  esac
  case $previous in
    # values made by cross/settings
    --media) mapfile -t COMPREPLY < <(compgen -W "disk flash" -- "$current") ;;
    --log-level) mapfile -t COMPREPLY < <(compgen -W "error warn info debug trace" -- "$current") ;;
    --source) mapfile -t COMPREPLY < <(compgen -W "auto getstats getlink sysfs" -- "$current") ;;
    --database) _net_pulse_files ;;
    --interface | --ignore | --primary) _net_pulse_interfaces ;;
    --timezone) _net_pulse_zones ;;
    --host | --port | --allowed-host | --interval | --flush | --max-size) ;;
    # end of what cross/settings makes
    *) mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current") ;;
  esac
}
complete -F _net_pulse net-pulse
