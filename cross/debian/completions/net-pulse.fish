# fish completion for net-pulse

set -l before 'not __fish_seen_subcommand_from token check'

complete -c net-pulse -f
# made by cross/settings
complete -c net-pulse -x -l host -d 'address to listen on'
complete -c net-pulse -x -l port -d 'port to listen on'
complete -c net-pulse -x -l allowed-host -d 'additional name of this machine that browsers may use'
complete -c net-pulse -l private -d 'require the access token for reading too'
complete -c net-pulse -l open -d 'allow changes without the access token to everyone who can reach the port'
complete -c net-pulse -r -F -l database -d 'database file'
complete -c net-pulse -x -l interval -d 'seconds between two samples'
complete -c net-pulse -x -l media -a 'disk flash' -d 'storage of the database'
complete -c net-pulse -x -l flush -d 'seconds between two saves'
complete -c net-pulse -x -l max-size -d 'maximum size of the database'
complete -c net-pulse -x -l timezone -d 'time zone of days and months'
complete -c net-pulse -x -l log-level -a 'error warn info debug trace' -d 'log verbosity'
complete -c net-pulse -x -l source -a 'auto getstats getlink sysfs' -d 'kernel API to read counters from'
complete -c net-pulse -x -l interface -a '(command ls /sys/class/net)' -d 'interface to watch'
complete -c net-pulse -x -l ignore -a '(command ls /sys/class/net)' -d 'interface to ignore'
complete -c net-pulse -x -l primary -a '(command ls /sys/class/net)' -d 'primary interface'
# end of what cross/settings makes
complete -c net-pulse -n $before -l version -d 'print the version and exit'
complete -c net-pulse -s h -l help -d 'display usage information'
complete -c net-pulse -n $before -a token -d 'print the access token'
complete -c net-pulse -n $before -a check -d 'check settings, files and the daemon'
complete -c net-pulse -n '__fish_seen_subcommand_from check' -l health -d 'only ask the daemon for its health'
