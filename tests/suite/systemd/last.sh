# After the agent's end, on the console.
say() { echo "$1: $(eval "$2" 2>&1 | tr '\n' ' ' | sed 's/ $//')"; }
{
    say shutdown 'systemctl show -P ActiveState -P Result enforcer'
    say shutdown_links 'ls /sys/fs/bpf/enforcer | grep -c link_'
} >> /try/out
sed 's/^/told: /' /try/out
[ -e /try/done ] || journalctl --no-pager --lines=60
echo 'init: exit 0'
