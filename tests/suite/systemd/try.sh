# The life of the service, told line by line: `WHAT: VALUE`. The same on every stage.
say() { echo "$1: $(eval "$2" 2>&1 | tr '\n' ' ' | sed 's/ $//')"; }
until_true() { local end=$((SECONDS + ${PATIENCE:-60})); while ! eval "$1" >/dev/null 2>&1 && [ $SECONDS -lt $end ]; do sleep 0.1; done; }
# The example of the manual's page that has this text.
page() { awk -v want="$1" '/^```yaml$/ {all = ""; inside = 1; next} /^```$/ {if (inside && index(all, want)) printf "%s", all; inside = 0}
    inside {all = all $0 "\n"}' host.md; }
cd /try
mkdir -p calls

systemd-sysusers enforcer.conf
systemd-tmpfiles --create enforcer.conf
say started 'systemctl start enforcer && systemctl is-active enforcer'
say words 'systemctl show -P StatusText enforcer'
say socket 'stat -c "%U %G %a" /run/enforcer/enforcer.sock'
say state 'stat -c "%U %a" /var/lib/enforcer'
say applied 'enforcer policy apply -f tiers.yaml | head -1'
until_true '[ "$(enforcer policy list | grep -c "default.* Enforcing ")" = 3 ]'
say enforcing 'enforcer policy list | grep -c "default.* Enforcing "'
say status 'enforcer status -o json'
page 'systemd: [' >> /etc/enforcer/enforcer.yaml
say checked 'enforcer config check >/dev/null && echo good'
say restarted 'systemctl restart enforcer && systemctl is-active enforcer && enforcer policy list | grep -c default'
# The manual's part about units: one that may call, one that the policy does not know, one that is called.
page 'name: backend' > backend.yaml
say page 'enforcer policy apply -f backend.yaml'
systemctl start app@blue nginx other
until_true '[ "$(cat calls/nginx)" = allowed ] && grep "not permitted" calls/other'
say nginx 'cat calls/nginx'
say other 'cat calls/other'
say units 'enforcer endpoint list -o json | sed -n "s/^ *.name.: .\([^ ]*\).,$/\1/p" | sort'
say labels 'enforcer endpoint list -o json | grep -o "systemd.io/[a-z]*=[a-z.]*" | sort -u'
say directory 'systemctl show -P ControlGroup nginx.service'
systemctl kill --signal=KILL enforcer
until_true '[ "$(systemctl show -P NRestarts enforcer)" = 1 ] && systemctl is-active enforcer'
say killed 'systemctl is-active enforcer; systemctl show -P NRestarts enforcer'
say reader 'setpriv --reuid=nobody --regid=enforcer --clear-groups enforcer policy list | grep -c default'
say writer 'setpriv --reuid=nobody --regid=enforcer --clear-groups enforcer policy delete web'
say stranger 'setpriv --reuid=nobody --regid=nogroup --clear-groups enforcer policy list'
say manager 'before=$(systemctl show -P MainPID enforcer); systemctl daemon-reexec
    [ "$(systemctl show -P MainPID enforcer)" = "$before" ] && systemctl is-active enforcer'
say stopped 'systemctl stop enforcer; systemctl is-active enforcer'
say pins 'ls /sys/fs/bpf/enforcer | grep -c link_'
# Nobody is there but the kernel.
rm calls/*
until_true '[ -s calls/nginx ] && [ -s calls/other ]'
say nginx_alone 'cat calls/nginx'
say other_alone 'cat calls/other'
say removed 'enforcer uninstall >/dev/null && ls /sys/fs/bpf'
until_true '[ "$(cat calls/other)" = allowed ]'
say other_free 'cat calls/other'
systemctl stop app@blue nginx other
touch done
