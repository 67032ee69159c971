# The life of the service, told line by line: `WHAT: VALUE`.
say() { echo "$1: $(eval "$2" 2>&1 | tr '\n' ' ' | sed 's/ $//')"; }
until_true() { for _ in $(seq 100); do eval "$1" >/dev/null 2>&1 && return; sleep 0.1; done; }
cd /run/try

systemd-sysusers enforcer.conf
systemd-tmpfiles --create enforcer.conf
say started 'systemctl start enforcer && systemctl is-active enforcer'
say words 'systemctl show -P StatusText enforcer'
say socket 'stat -c "%U %G %a" /run/enforcer/enforcer.sock'
say state 'stat -c "%U %a" /var/lib/enforcer'
say applied 'enforcer policy apply -f tiers.yaml | head -1'
until_true '[ "$(enforcer policy list | grep -c " Enforcing ")" = 3 ]'
say enforcing 'enforcer policy list | grep -c " Enforcing "'
say status 'enforcer status -o json'
say restarted 'systemctl restart enforcer && systemctl is-active enforcer && enforcer policy list | grep -c default'
systemctl kill --signal=KILL enforcer
until_true '[ "$(systemctl show -P NRestarts enforcer)" = 1 ] && systemctl is-active enforcer'
say killed 'systemctl is-active enforcer; systemctl show -P NRestarts enforcer'
say reader 'setpriv --reuid=nobody --regid=enforcer --clear-groups enforcer policy list | grep -c default'
say writer 'setpriv --reuid=nobody --regid=enforcer --clear-groups enforcer policy delete web'
say stranger 'setpriv --reuid=nobody --regid=nogroup --clear-groups enforcer policy list'
say stopped 'systemctl stop enforcer; systemctl is-active enforcer'
say pins 'ls /sys/fs/bpf/enforcer | grep -c link_'
say removed 'enforcer uninstall >/dev/null && ls /sys/fs/bpf'
touch done
