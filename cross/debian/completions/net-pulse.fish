# fish completion for net-pulse

set -l before 'not __fish_seen_subcommand_from token check'

complete -c net-pulse -f
# made by cross/settings
complete -c net-pulse -x -l host -d 'address to listen on'
complete -c net-pulse -x -l port -d 'port to listen on'
complete -c net-pulse -x -l allowed-host -d 'further name that browsers may use for this machine'
complete -c net-pulse -l private -d 'ask for the access token for reading too'
complete -c net-pulse -l open -d 'let everybody who can reach the port change things'
complete -c net-pulse -r -F -l database -d 'file of the history'
complete -c net-pulse -x -l interval -d 'seconds between two samples'
complete -c net-pulse -x -l media -a 'disk flash' -d 'what the history lies on'
complete -c net-pulse -x -l flush -d 'seconds between two saves'
complete -c net-pulse -x -l max-size -d 'the history never grows past this'
complete -c net-pulse -x -l timezone -d 'zone of days and months'
complete -c net-pulse -x -l log-level -a 'error warn info debug trace' -d 'how much the log says'
complete -c net-pulse -x -l source -a 'auto getstats getlink sysfs' -d 'where counters are read'
complete -c net-pulse -x -l interface -a '(command ls /sys/class/net)' -d 'interface to watch'
complete -c net-pulse -x -l ignore -a '(command ls /sys/class/net)' -d 'interface to leave out'
complete -c net-pulse -x -l primary -a '(command ls /sys/class/net)' -d 'interface of the headline figure'
# end of what cross/settings makes
complete -c net-pulse -n $before -l version -d 'print the version and end'
complete -c net-pulse -s h -l help -d 'display usage information'
complete -c net-pulse -n $before -a token -d 'print the access token'
complete -c net-pulse -n $before -a check -d 'look for what is wrong'
complete -c net-pulse -n '__fish_seen_subcommand_from check' -l health -d 'only ask the daemon whether it reads and keeps what passes'
