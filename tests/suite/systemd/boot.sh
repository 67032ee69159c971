# What holds before there is a network, told by a service that waits for `network-pre.target` like all that bring one up.
say() { echo "$1: $(eval "$2" 2>&1 | tr '\n' ' ' | sed 's/ $//')"; }
say kernel 'uname -r'
say first 'cat /proc/1/comm'
say controllers 'cat /sys/fs/cgroup/cgroup.controllers'
say old_trees 'grep -c " cgroup " /proc/mounts'
say boot 'systemctl is-active enforcer network-pre.target network.target'
say boot_words 'systemctl show -P StatusText enforcer'
say boot_links 'ls /sys/fs/bpf/enforcer | grep -c link_'
say boot_policies 'enforcer policy list | grep boot'
